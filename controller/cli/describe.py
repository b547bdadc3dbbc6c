"""`podslots describe`: a pool or a task, with what happened to it, in order, and why."""

import shlex
import shutil
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from controller.cli import colours, kinds, tables
from controller.cli.given import KindName, Name
from controller.cli.kinds import Kind
from controller.cli.session import Connection, Session
from controller.cli.tables import FINAL_PHASES, NONE, Table, age_text, phase, time_of
from controller.cli.verbs import Verb, pass_session
from controller.errors import ApiError
from controller.kube.api import EVENTS, PODS, SLOTTASKS, Object
from controller.names import POOL_LABEL

INDENT = "  "
LEAST_WIDTH = 40
"""Columns that a message is wrapped to at least, however narrow the terminal."""
HEAD_WIDTH = 12


@click.command(cls=Verb)
@click.argument("kind", metavar="{pool|task}", type=KindName((kinds.POOLS, kinds.TASKS)))
@click.argument("names_", metavar="NAME...", nargs=-1, required=True, type=Name())
@pass_session
def describe(session: Session, *, kind: Kind, names_: tuple[str, ...]) -> None:
    """Tell all of a pool or a task: what it is, how it stands, and what happened, in order, with reasons."""
    session.run(lambda connection: _describe(connection, kind, names_))


def _describe(connection: Connection, kind: Kind, wanted: tuple[str, ...]) -> None:
    assert kind.resource is not None  # noqa: S101 - pools and tasks are objects
    tell = _pool if kind is kinds.POOLS else _task
    width = max(LEAST_WIDTH, shutil.get_terminal_size().columns)
    for number, name in enumerate(dict.fromkeys(wanted)):
        obj = connection.get(kind.resource, name)
        click.echo(("\n\n" if number else "") + tell(connection, obj, width))


_CONDITION_RANKS = {"Approved": 2}
"""An approval stands between the end of the plan and the start of the apply, in the same second, too."""
_EVENT_RANKS = {"Assigned": 0}
"""Events that come before a task's steps, within one second."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened: when, in a word, and in more. `rank` orders those of one second."""

    time: datetime
    word: str
    text: str = ""
    rank: int = 0


# --- a task -----------------------------------------------------------------------------------------------------------


def _task(connection: Connection, task: Object, width: int) -> str:
    spec, status, now = task.get("spec") or {}, task.get("status") or {}, connection.now()
    place = f"{status['pod']}, slot {status.get('slot')}" if status.get("pod") else None
    expires = status.get("expiresAt") if phase(task) == "AwaitingApproval" else None
    lines = _fields(
        {
            "Name": task["metadata"]["name"],
            "Namespace": task["metadata"].get("namespace"),
            "Age": tables.age(task, now),
            "Pool": spec.get("pool"),
            "Type": spec.get("type"),
            "Lock key": spec.get("lockKey"),
            "Priority": spec.get("priority") or None,
            "Phase": phase(task),
            "Reason": _reason(task),
            "Attempt": status.get("attempt"),
            "Pod": place,
            "Plan": status.get("planDigest"),
            "Changed": _yes_or_no(status.get("changed")),
            "Expires": f"in {tables.until(expires, now)}" if expires else None,
            "Approval": _approval(spec, status),
        },
        width,
    )
    lines += ["", "Steps:", _steps(spec, status).text(coloured=colours.wanted())]
    lines += _conditions(status, now, width)
    said = _events(connection, task)
    words = {each.word for each in said}
    # An Event says the same with more in it, as long as there is one.
    happened = [*said, *(each for each in _of_task(task) if each.word.partition("=")[0] not in words)]
    return "\n".join([*lines, *_told(happened, now, width)])


def _yes_or_no(value: object) -> str | None:
    return None if value is None else "yes" if value else "no"


def _reason(task: Object) -> str | None:
    """All of what it waits for, or of why it ended."""
    status = task.get("status") or {}
    refused = tables.refusal(task)
    if refused is not None:
        return ": ".join(part for part in refused if part)
    if phase(task) == "Queued":
        return status.get("queuedReason")
    parts = [str(status.get(key) or "") for key in ("reason", "message")]
    return ": ".join(part for part in parts if part) or None


def _approval(spec: Mapping[str, Any], status: Mapping[str, Any]) -> str | None:
    given = spec.get("approval")
    if given:
        this = given.get("planDigest") == status.get("planDigest") and given.get("attempt") == status.get("attempt")
        return f"by {given.get('by') or 'somebody'}" + ("" if this else ", of another plan")
    return "automatic" if spec.get("approvalPolicy") == "Auto" else None


def _steps(spec: Mapping[str, Any], status: Mapping[str, Any]) -> Table:
    rows = []
    results = status.get("steps") or {}
    for name, step in (spec.get("steps") or {}).items():
        result = results.get(name) or {}
        started, ended = time_of(result.get("startTime")), time_of(result.get("endTime"))
        code = result.get("exitCode")
        rows.append(
            [
                str(name),
                age_text(ended - started) if started and ended else NONE,
                NONE if code is None else str(code),
                result.get("output") or NONE,
                shlex.join(map(str, step.get("command") or ())),
            ]
        )
    return Table(["STEP", "TOOK", "EXIT CODE", "OUTPUT", "COMMAND"], rows)


def _of_task(task: Object) -> Iterable[Happening]:
    """What the task itself says of its life."""
    metadata, status = task["metadata"], task.get("status") or {}
    if created := time_of(metadata.get("creationTimestamp")):
        yield Happening(created, "Created", rank=-1)
    for number, (name, result) in enumerate((status.get("steps") or {}).items()):
        if started := time_of(result.get("startTime")):
            yield Happening(started, "StepStarted", f"{name} step, attempt {status.get('attempt')}", 2 * number + 1)
        if ended := time_of(result.get("endTime")):
            code = result.get("exitCode")
            text = f"{name} step" + (f", exit code {code}" if code is not None else "")
            yield Happening(ended, "StepEnded", text, 2 * number + 2)
    yield from _changes(status)
    if phase(task) in FINAL_PHASES and (ended := time_of(status.get("finishTime"))):
        yield Happening(ended, phase(task), _reason(task) or "", 100)
    if going := time_of(metadata.get("deletionTimestamp")):
        yield Happening(going, "Deleted", "somebody asked for its deletion", 101)


# --- a pool -----------------------------------------------------------------------------------------------------------


def _pool(connection: Connection, pool: Object, width: int) -> str:
    spec, status, now = pool.get("spec") or {}, pool.get("status") or {}, connection.now()
    name, slots = pool["metadata"]["name"], status.get("slots") or {}
    lines = _fields(
        {
            "Name": name,
            "Namespace": pool["metadata"].get("namespace"),
            "Age": tables.age(pool, now),
            "Status": tables.standing(pool),
            "Size": _size(spec),
            "Pods": f"{status.get('readyReplicas', 0)} ready of {status.get('replicas', 0)}, "
            f"{status.get('desiredReplicas', 0)} desired, {status.get('updatedReplicas', 0)} updated",
            "Slots": ", ".join(f"{slots.get(state, 0)} {state}" for state in ("idle", "running", "reserved")),
            "Layout": "; ".join(f"{number}: {accepts}" for number, accepts in enumerate(_layout(spec))),
        },
        width,
    )
    lines += _conditions(status, now, width)
    everything = connection.list_all(PODS, everywhere=False, label_selector=f"{POOL_LABEL}={name}")
    if everything:
        lines += ["", "Pods:", tables.pods(everything, now, namespaces=False).text(coloured=colours.wanted())]
    tasks = connection.list_all(SLOTTASKS, everywhere=False)
    of_pool = [task for task in tasks if (task.get("spec") or {}).get("pool") == name]
    left = [task for task in of_pool if phase(task) not in FINAL_PHASES]
    if left:
        lines += ["", "Tasks that have not ended:"]
        lines += [tables.tasks(left, now, namespaces=False).text(coloured=colours.wanted())]
    happened = [*_changes(status), *_events(connection, pool)]
    if created := time_of(pool["metadata"].get("creationTimestamp")):
        happened.append(Happening(created, "Created", rank=-1))
    return "\n".join([*lines, *_told(happened, now, width)])


def _layout(spec: Mapping[str, Any]) -> list[str]:
    return [", ".join(slot.get("accepts") or ()) for slot in spec.get("slots") or ()]


def _size(spec: Mapping[str, Any]) -> str:
    scaling = spec.get("autoscaling")
    if not scaling:
        return f"{spec.get('replicas', 0)} Pods, set by hand"
    paused = ", paused" if scaling.get("paused") else ""
    return f"{scaling.get('minReplicas', 0)} to {scaling.get('maxReplicas')} Pods, by demand{paused}"


# --- both -------------------------------------------------------------------------------------------------------------


def _fields(fields: Mapping[str, object], width: int) -> list[str]:
    """What is known, a line each."""
    lines = []
    for name, value in fields.items():
        if value not in {None, ""}:
            lines += _wrapped(f"{name}:".ljust(HEAD_WIDTH), str(value), width)
    return lines


def _wrapped(head: str, text: str, width: int) -> list[str]:
    """A text beside its head; what has no spaces stays whole, so that it can be copied."""
    parts = textwrap.wrap(text, max(LEAST_WIDTH, width - len(head)), break_long_words=False, break_on_hyphens=False)
    return [(head if number == 0 else " " * len(head)) + part for number, part in enumerate(parts or [""])]


def _conditions(status: Mapping[str, Any], now: datetime, width: int) -> list[str]:
    found = status.get("conditions") or ()
    if not found:
        return []
    rows = []
    for entry in found:
        since = time_of(entry.get("lastTransitionTime"))
        rows.append([entry["type"], entry.get("status", ""), entry.get("reason") or NONE, _ago(since, now)])
    lines = ["", "Conditions:"]
    table = Table(["CONDITION", "STATUS", "REASON", "SINCE"], rows)
    widths = table.widths()
    shown = [tables.line(table.columns, widths), *table.lines(widths)]
    lines.append(shown[0])
    for entry, row in zip(found, shown[1:], strict=True):
        lines.append(row)
        if entry.get("message"):
            lines += _wrapped(INDENT, entry["message"], width)
    return lines


def _changes(status: Mapping[str, Any]) -> Iterable[Happening]:
    """Conditions as they became what they are."""
    for entry in status.get("conditions") or ():
        if (since := time_of(entry.get("lastTransitionTime"))) is not None:
            reason = f"{entry['reason']}: " if entry.get("reason") else ""
            text = f"{reason}{entry.get('message') or ''}".removesuffix(": ")
            yield Happening(
                since, f"{entry['type']}={entry.get('status')}", text, _CONDITION_RANKS.get(entry["type"], 50)
            )


def _events(connection: Connection, obj: Object) -> list[Happening]:
    """What others said of it. Kubernetes keeps Events for an hour, unless it is told otherwise."""
    selector = f"involvedObject.uid={obj['metadata']['uid']}"
    try:
        found = connection.list_all(EVENTS, everywhere=False, field_selector=selector)
    except ApiError as error:
        click.echo(f"Events can't be shown: {error.message}", err=True)
        return []
    happened = []
    for event in found:
        last = time_of(event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp"))
        if last is not None:
            count = int(event.get("count") or 1)
            often = f" ({count} times since {_clock(first)})" if count > 1 and (first := _first(event)) else ""
            word = str(event.get("reason") or "")
            happened.append(Happening(last, word, f"{event.get('message') or ''}{often}", _EVENT_RANKS.get(word, 60)))
    return happened


def _first(event: Object) -> datetime | None:
    return time_of(event.get("firstTimestamp") or event.get("eventTime"))


def _told(happened: Iterable[Happening], now: datetime, width: int) -> list[str]:
    """What happened, the first at the top."""
    ordered = sorted(happened, key=lambda each: (each.time.replace(microsecond=0), each.rank))
    lines = ["", "What happened:"]
    widest = max((len(each.word) for each in ordered), default=0)
    for each in ordered:
        head = f"{_clock(each.time)}  {_ago(each.time, now):>8}  {each.word.ljust(min(widest, 24))}  "
        lines += _wrapped(head, each.text, width) if each.text else [head.rstrip()]
    return [line.rstrip() for line in lines]


def _clock(time: datetime) -> str:
    """As the API writes it, for the logs are to be searched for it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _ago(time: datetime | None, now: datetime) -> str:
    return age_text(now - time) if time is not None else NONE
