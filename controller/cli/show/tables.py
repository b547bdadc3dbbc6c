"""Tables for `podslots get`, from raw objects. Pure.

Slots are shown as the tasks' status has them: the CLI can't ask agents (the API server's Pod proxy strips the
Authorization header, and Pod addresses are not reachable from everywhere). A slot without a task is called idle if its
Pod serves and has workers. It is for people to look at: what deletes Pods asks the agent.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from controller import names
from controller.cli.show.table import NONE, Table
from controller.cli.show.times import age, until

Object = Mapping[str, Any]
MAX_MESSAGE_LENGTH = 100
"""Longer messages, as those with digests in them, are left to `get tasks -o yaml` and `wait`."""
FINAL_PHASES = frozenset({"Succeeded", "Failed", "Cancelled", "Expired", "Lost"})
LAYOUT_VARIABLE = "PODSLOTS_LAYOUT"
SIDECAR = "(sidecar)"
"""In place of a task: the Pod's own program holds the slots. The pool's status counts them."""
_WISHES = ((names.DRAIN_REQUESTED, "drain"), (names.FORGET, "forget"), (names.BREAK_GLASS, "break-glass"))
"""Annotation → how it is shown under REQUESTED."""
SERVES = "active"
"""The state of a Pod whose agent takes work."""
_DELETION = frozenset({"Deleting", "DeletionWaits"})
_SLOT_STATES = {"Assigned": "running", "Running": "running", "AwaitingApproval": "reserved"}


def pools(objects: Iterable[Object], now: datetime, *, namespaces: bool, wide: bool = False) -> Table:
    """Size, bounds and slots of each pool."""

    def row(pool: Object) -> list[str]:
        spec, status = pool.get("spec") or {}, pool.get("status") or {}
        scaling, slots = spec.get("autoscaling"), status.get("slots") or {}
        desired = status.get("desiredReplicas", spec.get("replicas", 0))
        more = [
            f"{status.get('updatedReplicas', 0)}/{status.get('replicas', 0)}",
            str(slots.get("total", 0)),
            str(spec.get("mode") or "Pods"),
            ",".join(images(spec.get("template") or {})) or NONE,
        ]
        return [
            f"{status.get('readyReplicas', 0)}/{status.get('replicas', 0)}",
            str(desired),
            str(scaling.get("minReplicas", 0)) if scaling else NONE,
            str(scaling.get("maxReplicas")) if scaling else NONE,
            *(str(slots.get(state, 0)) for state in ("idle", "running", "reserved")),
            *(more if wide else ()),
            age(pool, now),
            standing(pool),
        ]

    more = ["UPDATED", "SLOTS", "MODE", "IMAGES"] if wide else []
    columns = ["PODS", "DESIRED", "MIN", "MAX", "IDLE", "RUNNING", "RESERVED", *more, "AGE", "STATUS"]
    return _table(objects, columns, row, namespaces=namespaces, spare=() if wide else ("MIN", "MAX", "DESIRED"))


def standing(pool: Object) -> str:
    """How a pool stands, in a word: what is wrong with it if anything is, else the reason of its condition Ready.

    What is wrong comes before what is on its way. Whom a deletion waits for is said in full, as nothing else will
    end that wait.
    """
    conditions = {entry.get("type"): entry for entry in (pool.get("status") or {}).get("conditions") or ()}
    ready, degraded = conditions.get("Ready") or {}, conditions.get("Degraded") or {}
    if ready.get("reason") in _DELETION:
        return f"{ready['reason']}: {ready.get('message', '')}"
    if "deletionTimestamp" in pool["metadata"]:
        return "Deleting"
    if degraded.get("status") == "True":
        return str(degraded.get("reason") or "Degraded")
    return str(ready.get("reason") or "Unknown")


def pods(objects: Iterable[Object], now: datetime, *, namespaces: bool, wide: bool = False) -> Table:
    """The Pods of pools and where they stand in their life."""

    def row(pod: Object) -> list[str]:
        status, spec = pod.get("status") or {}, pod.get("spec") or {}
        labels, notes = pod["metadata"].get("labels") or {}, pod["metadata"].get("annotations") or {}
        wishes = [word for key, word in _WISHES if key in notes]
        more = [notes.get(names.TEMPLATE_HASH) or NONE, ",".join(images(pod)) or NONE]
        return [
            labels.get(names.POOL_LABEL, NONE),
            state_of(pod),
            status.get("phase", NONE),
            condition(pod, "Ready"),
            status.get("podIP", NONE),
            spec.get("nodeName", NONE),
            age(pod, now),
            *(more if wide else ()),
            ",".join(wishes) or NONE,
        ]

    more = ["TEMPLATE", "IMAGES"] if wide else []
    columns = ["POOL", "STATE", "PHASE", "READY", "IP", "NODE", "AGE", *more, "REQUESTED"]
    return _table(objects, columns, row, namespaces=namespaces, spare=() if wide else ("IP", "POOL", "NODE", "PHASE"))


def tasks(objects: Iterable[Object], now: datetime, *, namespaces: bool, wide: bool = False) -> Table:
    """Where each task is, and where it runs."""

    def row(task: Object) -> list[str]:
        spec, status = task.get("spec") or {}, task.get("status") or {}
        changed = status.get("changed")
        more = [
            NONE if changed is None else "yes" if changed else "no",
            spec.get("lockKey") or NONE,
            str(spec.get("priority", 0)),
            until(status.get("expiresAt"), now) if phase(task) == "AwaitingApproval" else NONE,
        ]
        return [
            spec.get("pool", NONE),
            spec.get("type", NONE),
            phase(task),
            status.get("step") or NONE,
            status.get("pod") or NONE,
            str(status.get("slot", NONE)),
            str(status.get("attempt", NONE)),
            *(more if wide else ()),
            age(task, now),
            why(task),
        ]

    more = ["CHANGED", "LOCKKEY", "PRIORITY", "EXPIRES"] if wide else []
    columns = ["POOL", "TYPE", "PHASE", "STEP", "POD", "SLOT", "ATTEMPT", *more, "AGE", "REASON"]
    spare = () if wide else ("ATTEMPT", "STEP", "SLOT", "POOL", "POD", "TYPE")
    return _table(objects, columns, row, namespaces=namespaces, spare=spare)


def slots(pod_objects: Iterable[Object], task_objects: Iterable[Object], *, namespaces: bool) -> Table:
    """Every slot of every Pod, with the task that the tasks' status puts there."""
    held: dict[tuple[str, int], Object] = {}
    for task in task_objects:
        status = task.get("status") or {}
        if phase(task) in _SLOT_STATES and status.get("podUID") and isinstance(status.get("slot"), int):
            held[status["podUID"], status["slot"]] = task
    rows = []
    for pod in _sorted(pod_objects):
        metadata = pod["metadata"]
        for slot in sorted(_slots_of(pod)):
            task_there = held.get((metadata["uid"], slot))
            row = [
                metadata["name"],
                str(slot),
                _SLOT_STATES[phase(task_there)] if task_there else _without_task(pod),
                task_there["metadata"]["name"] if task_there else SIDECAR if _by_its_program(pod) else NONE,
                ((task_there or {}).get("status") or {}).get("step") or NONE,
            ]
            rows.append([metadata.get("namespace", NONE), *row] if namespaces else row)
    columns = ["POD", "SLOT", "STATE", "TASK", "STEP"]
    return Table(["NAMESPACE", *columns] if namespaces else columns, rows)


def state_of(pod: Object) -> str:
    """Where a Pod stands in its life."""
    if pod["metadata"].get("deletionTimestamp"):
        return "deleting"
    return str((pod["metadata"].get("labels") or {}).get(names.STATE_LABEL, NONE))


def with_kind(table: Table, kind: str) -> Table:
    """The same with `KIND/NAME` for names, as kubectl shows tables of several kinds."""
    place = list(table.columns).index("NAME")
    rows = [[*row[:place], f"{kind}/{row[place]}", *row[place + 1 :]] for row in table.rows]
    return Table(table.columns, rows, table.spare)


def phase(task: Object) -> str:
    """A task's phase. One that no controller has seen is queued."""
    return str((task.get("status") or {}).get("phase") or "Queued")


def has_ended(task: Object) -> bool:
    """Whether a task is in a phase that it stays in."""
    return phase(task) in FINAL_PHASES


def condition(obj: Object, kind: str) -> str:
    """The status of one condition, with its reason when it is not True."""
    for entry in (obj.get("status") or {}).get("conditions") or ():
        if entry.get("type") == kind:
            status = str(entry.get("status", "Unknown"))
            return status if status == "True" or not entry.get("reason") else f"{status} ({entry['reason']})"
    return "Unknown"


def why(task: Object, *, most: int = MAX_MESSAGE_LENGTH) -> str:
    """What a task waits for, or why it ended as it did, in a message of at most so many characters."""
    status = task.get("status") or {}
    refused = refusal(task)
    if refused is not None:
        return _in_short(task, *refused, most)
    if phase(task) == "Queued":
        return str(status.get("queuedReason") or NONE)
    return _in_short(task, str(status.get("reason") or ""), str(status.get("message") or ""), most)


def refusal(task: Object) -> tuple[str, str] | None:
    """Reason and message, if the task won't go on until a person changes something: its pool, type or approval."""
    spec, status = task.get("spec") or {}, task.get("status") or {}
    if phase(task) == "Queued":
        return _denied(task, "Accepted")
    approval = spec.get("approval") or {}
    # The condition outlives what it was said of: another attempt, or an approval that was mended since.
    other = [approval.get(key) for key in ("attempt", "planDigest")] != [
        status.get(key) for key in ("attempt", "planDigest")
    ]
    return _denied(task, "Approved") if phase(task) == "AwaitingApproval" and approval and other else None


def _denied(task: Object, kind: str) -> tuple[str, str] | None:
    for entry in (task.get("status") or {}).get("conditions") or ():
        if entry.get("type") == kind and entry.get("status") == "False":
            return str(entry.get("reason") or kind), str(entry.get("message") or "")
    return None


def _in_short(task: Object, reason: str, message: str, most: int) -> str:
    """The reason, unless it only repeats the phase, and the message. A long one is left out, or cut if it is all."""
    word = reason if reason != phase(task) else ""
    line = " ".join(message.split())
    if len(line) > most:
        line = "" if word else f"{line[: most - 1]}…"
    return ": ".join(part for part in (word, line) if part) or NONE


def _table(
    objects: Iterable[Object],
    columns: Sequence[str],
    row: Callable[[Object], list[str]],
    *,
    namespaces: bool,
    spare: Sequence[str],
) -> Table:
    """A row for each object, ordered by name."""
    rows = []
    for obj in _sorted(objects):
        metadata = obj["metadata"]
        lead = [metadata.get("namespace", NONE)] if namespaces else []
        rows.append([*lead, metadata["name"], *row(obj)])
    return Table([*(["NAMESPACE"] if namespaces else []), "NAME", *columns], rows, spare)


def _sorted(objects: Iterable[Object]) -> list[Object]:
    return sorted(objects, key=lambda obj: (obj["metadata"].get("namespace", ""), obj["metadata"]["name"]))


def _slots_of(pod: Object) -> Iterable[int]:
    """The slots of a Pod: those that its agent is told of, workers or not."""
    for container in (pod.get("spec") or {}).get("initContainers") or ():
        if container.get("name") == names.AGENT_CONTAINER:
            layout = next((v.get("value") for v in container.get("env") or () if v.get("name") == LAYOUT_VARIABLE), "")
            try:
                slots = json.loads(layout or "[]")
            except ValueError:
                slots = []
            return range(len(slots) if isinstance(slots, list) else 0)
    return ()


def _without_task(pod: Object) -> str:
    """The state of a slot that no task is in. Not known while the Pod starts or goes, nor of a program's own slots."""
    return "idle" if state_of(pod) == SERVES and not _by_its_program(pod) else NONE


def _by_its_program(pod: Object) -> bool:
    """Whether the Pod has no worker: what holds its slots tells its agent alone, and is in no task's status."""
    containers = (pod.get("spec") or {}).get("containers") or ()
    return not any(str(container.get("name")).startswith(f"{names.WORKER_CONTAINER}-") for container in containers)


def images(obj: Object) -> list[str]:
    """The images of the containers that the user wrote, each once."""
    containers = (obj.get("spec") or {}).get("containers") or ()
    return list(dict.fromkeys(str(container["image"]) for container in containers if container.get("image")))
