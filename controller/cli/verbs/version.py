"""`podslots version`: of this command, of the controller, and of the API server."""

from contextlib import suppress

import click

from controller import names
from controller.cli.arguments.verb import Verb, pass_session
from controller.cli.cluster.session import Connection, Session, explain
from controller.cli.show.documents import as_text
from controller.errors import ApiError, PodslotsError
from controller.kube.api import LEASES, Object
from controller.version import own_version

UNKNOWN = "unknown"


@click.command(cls=Verb)
@click.option("--client", "only_client", is_flag=True, help="Of this command only; no cluster is asked.")
@click.option("-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text")
@pass_session
def version(session: Session, *, only_client: bool, output: str) -> None:
    """Show the versions of podslots and of Kubernetes.

    Of this command, of the controller that leads, and of the API server.
    """
    found = {"client": own_version()}
    problem = ""
    if not only_client:
        try:
            with session.open() as connection:
                found |= {"controller": _controller(connection), "kubernetes": connection.api.version()}
        except PodslotsError as error:
            problem = explain(error)
    if output == "text":
        for name, value in found.items():
            click.echo(f"{name.capitalize()} version: {value}")
    else:
        click.echo(as_text(found, output))
    if problem:
        raise click.ClickException(problem)


def _controller(connection: Connection) -> str:
    """As the leader has written it on its Lease, where it is looked for as `doctor` does."""
    for home in connection.homes:
        with suppress(ApiError):
            lease: Object = connection.api.get(LEASES, home, names.LEADER_LEASE)
            notes = lease["metadata"].get("annotations") or {}
            return str(notes.get(names.CONTROLLER_VERSION) or UNKNOWN)
    return UNKNOWN
