"""`podslots plans`: what waits for an approval, once or as it comes."""

from collections.abc import Callable, Iterator

import click

from controller.cli.arguments import kinds
from controller.cli.arguments.options import EVERYWHERE, OF_POOL
from controller.cli.arguments.types import Name
from controller.cli.arguments.verb import Verb, pass_session
from controller.cli.cluster.session import Connection, Session
from controller.cli.cluster.watching import Fresh, Listing
from controller.cli.show.documents import as_text, listed, name_line
from controller.cli.show.tables import phase
from controller.cli.task import approval
from controller.kube.api import SLOTTASKS, Object

_WAITING = Name(kinds.TASKS, completed=approval.waits)


@click.command(cls=Verb)
@click.argument("names_", metavar="[TASK]...", nargs=-1, type=_WAITING)
@EVERYWHERE
@OF_POOL
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "wide", "json", "yaml", "name"]),
    default="text",
    help="How to show them (default: text). wide: with attempt, Pod and digest. json, yaml, name: the tasks.",
)
@click.option("-w", "--watch", is_flag=True, help="Go on, and show plans as they begin to wait.")
@pass_session
def plans(
    session: Session, *, names_: tuple[str, ...], everywhere: bool, pool: str | None, output: str, watch: bool
) -> None:
    """List the plans that wait for an approval.

    Each with how long it waits, when it expires, how its output ends, and the command that approves it. Names are those
    of tasks; without one, all are listed.
    """
    if watch and output in {"json", "yaml"}:
        raise click.UsageError("-w goes with -o text, wide and name")

    def wanted(task: Object) -> bool:
        named = not names_ or task["metadata"]["name"] in names_
        return named and approval.waits(task) and pool in {None, (task.get("spec") or {}).get("pool")}

    def run(connection: Connection) -> None:
        listing = Listing(resource=SLOTTASKS, everywhere=everywhere)
        found, version = listing.read(connection)
        for name in names_:
            _check(connection, name, found, everywhere=everywhere)
        _show(connection, sorted(filter(wanted, found), key=_expiry), output)
        if watch:
            _watch(connection, listing.changes(connection, version), found, wanted, output)

    session.run(run)


def _expiry(task: Object) -> str:
    """What expires first comes first."""
    return str((task.get("status") or {}).get("expiresAt") or "")


def _watch(
    connection: Connection,
    changes: Iterator[Object],
    found: list[Object],
    wanted: Callable[[Object], bool],
    output: str,
) -> None:
    """Show each plan as it begins to wait, until Ctrl-C."""
    fresh = Fresh(lambda task: wanted(task) and (task.get("status") or {}).get("planDigest"))
    for task in found:
        fresh(task)
    for task in changes:
        if fresh(task) and wanted(task):
            if output != "name":
                click.echo()
            _show(connection, [task], output)


def _check(connection: Connection, name: str, found: list[Object], *, everywhere: bool) -> None:
    """Say of a task that was named if it does not wait: nothing at all would look like an answer."""
    named = [task for task in found if task["metadata"]["name"] == name]
    if not named:
        where = "" if everywhere else f" in namespace {connection.namespace}{connection.lack_of_namespace()}"
        raise click.ClickException(f"no task named {name}{where}")
    if not any(map(approval.waits, named)):
        approved = " and approved" if phase(named[0]) == approval.AWAITING else ""
        click.echo(f"{name} is {phase(named[0])}{approved}: no plan of it waits", err=True)


def _show(connection: Connection, waiting: list[Object], output: str) -> None:
    if output in {"json", "yaml"}:
        click.echo(as_text(listed([(SLOTTASKS, task) for task in waiting], alone=False), output))
    elif output == "name":
        for task in waiting:
            click.echo(name_line(SLOTTASKS, task))
    else:
        lack = "" if waiting else connection.lack_of_namespace()
        click.echo(waiting_plans(connection, waiting, wide=output == "wide") + lack)


def waiting_plans(connection: Connection, waiting: list[Object], *, wide: bool = False) -> str:
    """Plans that wait, each with the command that approves it."""
    if not waiting:
        return "no plan waits for an approval"
    now = connection.now()
    texts = []
    for task in waiting:
        namespace = task["metadata"].get("namespace")
        other = namespace if namespace != connection.namespace else None
        command = connection.cluster.podslots("approve", task["metadata"]["name"], namespace=other)
        texts.append(approval.waiting_text(task, now, command, wide=wide))
    return "\n\n".join(texts)
