"""A task as `podslots describe` tells it."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from controller.cli.cluster.session import Connection
from controller.cli.show import tables
from controller.cli.show.table import NONE, Table
from controller.cli.show.tables import has_ended, phase
from controller.cli.show.times import age, age_text, time_or_none, until
from controller.cli.verbs.describe.parts import Happening, changes, conditions, events, fields, section, told
from controller.kube.api import Object


def describe_task(connection: Connection, task: Object, width: int) -> str:
    """All of it."""
    spec, status, now = task.get("spec") or {}, task.get("status") or {}, connection.now()
    place = f"{status['pod']}, slot {status.get('slot')}" if status.get("pod") else None
    expires = status.get("expiresAt") if phase(task) == "AwaitingApproval" else None
    lines = fields(
        {
            "Name": task["metadata"]["name"],
            "Namespace": task["metadata"].get("namespace"),
            "Age": age(task, now),
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
            "Expires": f"in {until(expires, now)}" if expires else None,
            "Approval": _approval(spec, status),
        },
        width,
    )
    lines += section("Steps", _steps(spec, status))
    lines += conditions(status, now, width)
    said = events(connection, task)
    words = {each.word for each in said}
    # An Event says the same with more in it, as long as there is one.
    happened = [*said, *(each for each in _of_task(task) if each.word.partition("=")[0] not in words)]
    return "\n".join([*lines, *told(happened, now, width)])


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
        started, ended = time_or_none(result.get("startTime")), time_or_none(result.get("endTime"))
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
    if created := time_or_none(metadata.get("creationTimestamp")):
        yield Happening(created, "Created", rank=-1)
    for number, (name, result) in enumerate((status.get("steps") or {}).items()):
        if started := time_or_none(result.get("startTime")):
            yield Happening(started, "StepStarted", f"{name} step, attempt {status.get('attempt')}", 2 * number + 1)
        if ended := time_or_none(result.get("endTime")):
            code = result.get("exitCode")
            text = f"{name} step" + (f", exit code {code}" if code is not None else "")
            yield Happening(ended, "StepEnded", text, 2 * number + 2)
    yield from changes(status)
    if has_ended(task) and (ended := time_or_none(status.get("finishTime"))):
        yield Happening(ended, phase(task), _reason(task) or "", 100)
    if going := time_or_none(metadata.get("deletionTimestamp")):
        yield Happening(going, "Deleted", "somebody asked for its deletion", 101)
