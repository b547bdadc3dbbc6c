"""`podslots retry`: an ended task anew, as an object of its own. What ended stays as it is, and can be looked at."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import click

from controller import names
from controller.cli.arguments import kinds
from controller.cli.arguments.types import Name
from controller.cli.arguments.verb import Verb, pass_session
from controller.cli.cluster.session import Connection, Session
from controller.cli.show.changes import OUTPUT, Change, each
from controller.cli.show.tables import has_ended, phase
from controller.errors import AlreadyExists
from controller.kube.api import SLOTTASKS, Object

LEFT_OUT = ("approval", "cancel")
"""They were said of the earlier run."""
MAX_NAME_LENGTH = 253
MOST_RUNS = 1000
_NUMBERED = re.compile(r"-\d+\Z")
_NOT_COPIED = ("kubectl.kubernetes.io/", names.PREFIX)


def run_again(connection: Connection, name: str) -> Change:
    """Create the task again under the next free name."""
    task = connection.get(SLOTTASKS, name)
    if not has_ended(task):
        raise click.ClickException(f"{name} is {phase(task)}: only a task that has ended can be run again")
    for candidate in candidates(task):
        try:
            created = connection.api.create(SLOTTASKS, connection.namespace, anew(task, candidate))
        except AlreadyExists:
            continue
        return Change(f"slottask/{candidate} created", ((SLOTTASKS, created),))
    raise click.ClickException(f"{name} was run {MOST_RUNS} times: no name is free")


def candidates(task: Object) -> Iterator[str]:
    """Names for the next run: NAME-2, NAME-3 and so on, whichever of the runs it is that is run again."""
    first = first_run(task)
    for number in range(2, MOST_RUNS + 1):
        end = f"-{number}"
        yield first[: MAX_NAME_LENGTH - len(end)].rstrip("-.") + end


def first_run(task: Object) -> str:
    """The name of the first of the runs. A name that merely ends with a number is nobody's second run."""
    metadata = task["metadata"]
    if names.RETRY_OF in (metadata.get("annotations") or {}):
        return _NUMBERED.sub("", str(metadata["name"]))
    return str(metadata["name"])


def anew(task: Object, name: str) -> Object:
    """The object that runs it again."""
    metadata = task["metadata"]
    given: Mapping[str, Any] = metadata.get("annotations") or {}
    kept = {key: value for key, value in given.items() if not key.startswith(_NOT_COPIED)}
    labels = metadata.get("labels")
    return {
        "apiVersion": SLOTTASKS.api_version,
        "kind": SLOTTASKS.kind,
        "metadata": {
            "name": name,
            "annotations": {**kept, names.RETRY_OF: metadata["name"]},
            **({"labels": labels} if labels else {}),
        },
        "spec": {key: value for key, value in task["spec"].items() if key not in LEFT_OUT},
    }


@click.command(cls=Verb)
@click.argument("names_", metavar="TASK...", nargs=-1, required=True, type=Name(kinds.TASKS, completed=has_ended))
@OUTPUT
@pass_session
def retry(session: Session, *, names_: tuple[str, ...], output: str | None) -> None:
    """Run ended tasks once more, as new objects.

    The same work is submitted under the next free name: network-2 after network.
    """
    session.run(lambda connection: each(names_, lambda name: run_again(connection, name), output))
