"""What people ask of pools. An annotation says it; only the controller acts."""

import click

from controller import names
from controller.cli.arguments import kinds
from controller.cli.arguments.types import Name
from controller.cli.arguments.verb import Verb, pass_session
from controller.cli.cluster.session import Connection, Session
from controller.cli.show.changes import OUTPUT, Change, each
from controller.kube.api import SLOTPOOLS


def request_rotation(connection: Connection, name: str) -> Change:
    """Have the pool's tokens rotated once, now."""
    pool = connection.get(SLOTPOOLS, name)
    request = connection.now().isoformat(timespec="microseconds")
    patch = {"metadata": {"uid": pool["metadata"]["uid"], "annotations": {names.ROTATION_REQUESTED: request}}}
    after = connection.api.patch(SLOTPOOLS, connection.namespace, name, patch)
    text = f"{name}: rotation of its tokens requested; its condition TokensInSync tells how it goes"
    return Change(text, ((SLOTPOOLS, after),))


@click.command(cls=Verb)
@click.argument("names_", metavar="POOL...", nargs=-1, required=True, type=Name(kinds.POOLS))
@OUTPUT
@pass_session
def rotate(session: Session, *, names_: tuple[str, ...], output: str | None) -> None:
    """Replace pools' tokens. Takes minutes, and interrupts nothing."""
    session.run(lambda connection: each(names_, lambda name: request_rotation(connection, name), output))
