"""`podslots rollout`: how far a pool is on its way to its present template, to hold that, and to go back.

An undo writes an earlier template and layout into the pool, as whoever asks for it; the controller then sees one more
change. What ran with a pool's templates is in ControllerRevisions, which the controller writes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import click

from controller import names
from controller.cli.arguments import kinds
from controller.cli.arguments.types import Duration, Name
from controller.cli.arguments.verb import VerbGroup, pass_session
from controller.cli.cluster.session import Connection, Session
from controller.cli.show import screen
from controller.cli.show.changes import OUTPUT, Change, each, in_turn
from controller.cli.show.documents import OBJECT_OUTPUTS, as_text, listed, name_line
from controller.cli.show.table import Table
from controller.kube.api import CONTROLLERREVISIONS, SLOTPOOLS, Object
from controller.objects.revision import FIELDS, belongs_to, name_of

POLL_SECONDS = 1.0
STUCK_SECONDS = 60.0
"""How long a watched rollout may be stuck before the command gives up: nodes are added, images are pulled again."""
UNUSABLE = frozenset({"InvalidTemplate", "InvalidSpec"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """How a rollout stands, in words. `stuck`: it does not go on, but may yet; `failed`: not without a change."""

    text: str
    done: bool = False
    stuck: bool = False
    failed: bool = False


def stand_of(pool: Object) -> Stand:
    """What a pool's status says of its rollout."""
    metadata, status = pool["metadata"], pool.get("status") or {}
    name = metadata["name"]
    if status.get("observedGeneration", 0) < metadata.get("generation", 0):
        return Stand(text=f"{name}: the controller has not looked at the last change yet")
    conditions = {entry["type"]: entry for entry in status.get("conditions") or ()}
    degraded, progress = conditions.get("Degraded") or {}, conditions.get("Progressing") or {}
    if degraded.get("status") == "True" and degraded.get("reason") in UNUSABLE:
        return Stand(text=f"{name}: {degraded['reason']}: {degraded.get('message', '')}", failed=True)
    total, updated = status.get("replicas", 0), status.get("updatedReplicas", 0)
    if updated < total:
        reason, message = progress.get("reason", ""), progress.get("message", "")
        text = f"{name}: {reason}: {message}" if reason else f"{name}: {updated} of {total} Pods are updated"
        return Stand(text=text, stuck=reason == "RolloutStuck", failed=reason == "OnDelete")
    if status.get("readyReplicas", 0) < total:
        return Stand(text=f"{name}: {status.get('readyReplicas', 0)} of {total} Pods are ready")
    return Stand(text=f"{name}: rolled out: {total} Pod{'s' * (total != 1)}, all of the present template", done=True)


def follow(
    connection: Connection,
    name: str,
    *,
    watch: bool,
    timeout_seconds: float | None,
    echo: Callable[[str], object],
    poll_seconds: float = POLL_SECONDS,
    stuck_seconds: float = STUCK_SECONDS,
) -> None:
    """Say how a rollout stands; with `watch` until it is over. Raises ClickException if it does not come to its end."""
    clock = time.monotonic
    began, stuck_since, said = clock(), None, ""
    while True:
        found = stand_of(connection.get(SLOTPOOLS, name))
        now = clock()
        stuck_since = (stuck_since if stuck_since is not None else now) if found.stuck else None
        patience = stuck_seconds if watch else 0.0
        if found.failed or (stuck_since is not None and now - stuck_since >= patience):
            raise click.ClickException(found.text)
        if found.text != said:
            echo(found.text)
            said = found.text
        if found.done or not watch:
            return
        if timeout_seconds is not None and now - began >= timeout_seconds:
            raise click.ClickException(f"{name}: not rolled out after {timeout_seconds:g} s")
        time.sleep(poll_seconds)


def set_paused(connection: Connection, name: str, *, paused: bool) -> Change:
    """Have no further Pod replaced, or have that go on."""
    pool, word = connection.get(SLOTPOOLS, name), "paused" if paused else "resumed"
    if bool((pool["spec"].get("updateStrategy") or {}).get("paused")) is paused:
        raise click.ClickException(f"{name} is {'paused already' if paused else 'not paused'}")
    body = {"metadata": {"uid": pool["metadata"]["uid"]}, "spec": {"updateStrategy": {"paused": paused}}}
    after = connection.api.patch(SLOTPOOLS, connection.namespace, name, body)
    return Change(f"slotpool/{name} {word}", ((SLOTPOOLS, after),))


def revisions(connection: Connection, name: str, revision: int | None, output: str = "table") -> str:
    """The templates that a pool had, the latest last; or all of one of them, as YAML. json, yaml, name: the objects."""
    pool = connection.get(SLOTPOOLS, name)
    found = _revisions(connection, pool)
    chosen = found if revision is None else [_numbered(found, revision, name)]
    if output == "name":
        return "\n".join(name_line(CONTROLLERREVISIONS, entry) for entry in chosen)
    if output in {"json", "yaml"}:
        return as_text(listed([(CONTROLLERREVISIONS, entry) for entry in chosen], alone=revision is not None), output)
    if revision is not None:
        return as_text(chosen[0]["data"], "yaml")
    present = name_of(pool)
    rows = [
        [
            str(entry["revision"]),
            "yes" if entry["metadata"]["name"] == present else "-",
            str(len(entry["data"].get("slots") or ())),
            entry["metadata"].get("creationTimestamp", "-"),
            ",".join(_images(entry)) or "-",
        ]
        for entry in found
    ]
    return screen.shown(Table(["REVISION", "PRESENT", "SLOTS", "FIRST SEEN", "IMAGES"], rows))


def roll_back(connection: Connection, name: str, revision: int | None) -> Change:
    """Write an earlier template and layout back into the pool: that revision's, or the one before the present."""
    pool = connection.get(SLOTPOOLS, name)
    if (pool["spec"].get("updateStrategy") or {}).get("paused"):
        resume = connection.cluster.podslots("rollout", "resume", name)
        raise click.ClickException(f"{name} is paused; `{resume}` first")
    found, present = _revisions(connection, pool), name_of(pool)
    if revision is None:
        earlier = [entry for entry in found if entry["metadata"]["name"] != present]
        if not earlier:
            raise click.ClickException(f"{name} has no earlier revision")
        wanted = earlier[-1]
    else:
        wanted = _numbered(found, revision, name)
    if wanted["metadata"]["name"] == present:
        return Change(f"slotpool/{name} is at revision {wanted['revision']} already", ((SLOTPOOLS, pool),))
    kept = {field: value for field, value in pool["spec"].items() if field not in FIELDS}
    body = {**pool, "spec": {**kept, **wanted["data"]}}
    after = connection.api.replace(SLOTPOOLS, connection.namespace, name, body)
    text = f"slotpool/{name} rolled back to the template of revision {wanted['revision']}"
    return Change(text, ((SLOTPOOLS, after),))


def _revisions(connection: Connection, pool: Object) -> list[Object]:
    """A pool's revisions, the latest last."""
    selector = f"{names.POOL_LABEL}={pool['metadata']['name']}"
    found = connection.list_all(CONTROLLERREVISIONS, everywhere=False, label_selector=selector)
    return sorted((entry for entry in found if belongs_to(entry, pool)), key=lambda entry: int(entry["revision"]))


def _numbered(found: list[Object], revision: int, name: str) -> Object:
    for entry in found:
        if entry["revision"] == revision:
            return entry
    known = ", ".join(str(entry["revision"]) for entry in found) or "none"
    raise click.ClickException(f"{name} has no revision {revision}; there are: {known}")


def _images(revision: Object) -> list[str]:
    containers = ((revision["data"].get("template") or {}).get("spec") or {}).get("containers") or ()
    return [str(container["image"]) for container in containers if container.get("image")]


# --- the commands -----------------------------------------------------------------------------------------------------

_POOLS = click.argument("names_", metavar="POOL...", nargs=-1, required=True, type=Name(kinds.POOLS))


@click.group(cls=VerbGroup)
def rollout() -> None:
    """Bring pools' Pods to the present template: status, undo, …."""


@rollout.command("status")
@_POOLS
@click.option("-w", "--watch", is_flag=True, help="Until it is over.")
@click.option("--timeout", type=Duration(), metavar="TIME", help="Give up on a pool after this: 90s, 5m, 1h30m.")
@pass_session
def _status(session: Session, *, names_: tuple[str, ...], watch: bool, timeout: float | None) -> None:
    """Say how far it is. Several pools are looked at one after the other.

    Exit codes as kubectl's: 0 it is over, or (without --watch) on its way; 1 new Pods don't start (watched: for a
    minute), the template can't be used, Pods are replaced only when somebody drains them, or the time is over.
    """

    def one(connection: Connection, name: str) -> None:
        follow(connection, name, watch=watch, timeout_seconds=timeout, echo=click.echo)

    session.run(lambda connection: in_turn(names_, lambda name: one(connection, name)))


@rollout.command("pause")
@_POOLS
@OUTPUT
@pass_session
def _pause(session: Session, *, names_: tuple[str, ...], output: str | None) -> None:
    """Replace no further Pod."""
    session.run(lambda connection: each(names_, lambda name: set_paused(connection, name, paused=True), output))


@rollout.command("resume")
@_POOLS
@OUTPUT
@pass_session
def _resume(session: Session, *, names_: tuple[str, ...], output: str | None) -> None:
    """Go on after a pause."""
    session.run(lambda connection: each(names_, lambda name: set_paused(connection, name, paused=False), output))


@rollout.command("history")
@_POOLS
@click.option("--revision", type=int, metavar="NUMBER", help="Show all of this one.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", *OBJECT_OUTPUTS]),
    default="table",
    help="How to show it (default: table). json, yaml, name: the ControllerRevisions.",
)
@pass_session
def _history(session: Session, *, names_: tuple[str, ...], revision: int | None, output: str) -> None:
    """List the templates that pools had."""
    if len(names_) > 1 and output in {"json", "yaml"}:
        raise click.UsageError("-o json and -o yaml are of one pool: name one")

    def one(connection: Connection, name: str) -> None:
        text = revisions(connection, name, revision, output)
        click.echo(f"{name}:\n{text}\n" if len(names_) > 1 and output == "table" else text)

    session.run(lambda connection: in_turn(names_, lambda name: one(connection, name)))


@rollout.command("undo")
@_POOLS
@click.option(
    "--to-revision",
    "revision",
    type=int,
    metavar="NUMBER",
    help="Back to this one (default: the one before the present).",
)
@OUTPUT
@pass_session
def _undo(session: Session, *, names_: tuple[str, ...], revision: int | None, output: str | None) -> None:
    """Write an earlier template and layout back into pools."""
    if revision is not None and len(names_) > 1:
        raise click.UsageError("--to-revision is of one pool: name one")
    session.run(lambda connection: each(names_, lambda name: roll_back(connection, name, revision), output))
