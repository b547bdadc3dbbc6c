"""`podslots describe`: a pool, a Pod or a task, with what happened to it, in order, and why."""

import shutil
from collections.abc import Callable, Mapping

import click

from controller.cli.arguments import kinds
from controller.cli.arguments.kinds import Selection
from controller.cli.arguments.types import WhatArgument
from controller.cli.arguments.verb import Verb, pass_session
from controller.cli.cluster.session import Connection, Session
from controller.cli.show.changes import in_turn
from controller.cli.verbs.describe.parts import LEAST_WIDTH
from controller.cli.verbs.describe.pod import describe_pod
from controller.cli.verbs.describe.pool import describe_pool
from controller.cli.verbs.describe.task import describe_task
from controller.kube.api import PODS, Object
from controller.names import POOL_LABEL

_DESCRIBERS: Mapping[str, Callable[[Connection, Object, int], str]] = {
    "pools": describe_pool,
    "pods": describe_pod,
    "tasks": describe_task,
}


@click.command(cls=Verb)
@WhatArgument.argument(kinds.OBJECTS, metavar="KIND [NAME]... | KIND/NAME...")
@pass_session
def describe(session: Session, *, what: tuple[Selection, ...]) -> None:
    """Tell how pools, Pods or tasks stand, and why.

    What happened is told in its order, with reasons: conditions, steps and Events. Of a Pod, its slots too, and the
    task in each. KIND is pool, pod or task. Without a name, all of the kind are told.

    \b
    Examples:
      podslots describe task network
      podslots describe pool/terraform pod/terraform-x2bhq
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    session.run(lambda connection: _describe(connection, what))


def _describe(connection: Connection, what: tuple[Selection, ...]) -> None:
    width = max(LEAST_WIDTH, shutil.get_terminal_size().columns)
    count = 0

    def tell(selection: Selection, name: str) -> None:
        nonlocal count
        assert selection.kind.resource is not None  # noqa: S101 - these kinds are objects
        obj = connection.get(selection.kind.resource, name)
        text = _DESCRIBERS[selection.kind.plural](connection, obj, width)
        click.echo(("\n\n" if count else "") + text)
        count += 1

    wanted = [(selection, name) for selection in what for name in selection.names or _names(connection, selection)]
    if not wanted:
        click.echo(f"No resources found in {connection.namespace} namespace{connection.lack_of_namespace()}.", err=True)
    in_turn(range(len(wanted)), lambda number: tell(*wanted[number]))


def _names(connection: Connection, selection: Selection) -> list[str]:
    assert selection.kind.resource is not None  # noqa: S101 - these kinds are objects
    selector = POOL_LABEL if selection.kind.resource is PODS else ""
    found = connection.list_all(selection.kind.resource, everywhere=False, label_selector=selector)
    return sorted(str(obj["metadata"]["name"]) for obj in found)
