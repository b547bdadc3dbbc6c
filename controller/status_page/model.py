"""What the page and its API say, as values: made of frozen views, and bounded. Pure.

These classes are the API: their fields are the JSON's, and `schema` describes them. Every time is absolute, so that
nothing changes while nothing happens; who reads makes ages of them. No output of a task and no value of its
environment is in any of it.
"""

import heapq
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from agent.wire import RECOVERING, Slot, SlotState
from controller import names
from controller.act.recent import Decision
from controller.decide.pool_status import DEGRADED, PROGRESSING, SCALING_LIMITED
from controller.decide.task_actions import ACCEPTED, APPROVED
from controller.decide.view import PodState, PodView
from controller.errors import InvalidObject
from controller.objects.conditions import Condition, find
from controller.objects.fields import Fields
from controller.objects.pool import PoolSpec
from controller.objects.task import Task, TaskPhase

MOST_LISTED = 100
"""Entries of a list that is sent at every change. The rest is there by pages."""

MOST_TEXT = 500
"""Characters of a message that somebody else wrote: a condition may have 32 768."""

SILENT = "silent"
"""What is asked for to get the Pods whose agent is not heard, beside the states of slots."""

_GOOD_IF_FALSE = frozenset({DEGRADED, PROGRESSING, SCALING_LIMITED})
_NO_CONCERN = frozenset({PROGRESSING, "ScalingActive"})
"""Conditions that say what is going on, and that nobody need look at."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed(Generic[T]):
    """Some of a list: `items`, of `total`."""

    total: int
    items: tuple[T, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """Who answers. `leader` holds the Lease, as this replica last saw; None: nobody, or it has not looked yet.

    `synced`: everything was read at least once. `namespace`: the only one that is looked at; None: all.
    """

    identity: str
    leads: bool
    leader: str | None
    synced: bool
    namespace: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionSaid:
    """A condition of a pool. `concern`: it says that something is not as it should be."""

    type: str
    status: str
    reason: str
    message: str
    since: datetime | None
    concern: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSaid:
    """A pool. `pods` counts them by state, `slots` by state, `tasks` by phase (ended ones too).

    `revision` moves when anything about its Pods does. `problem`: why its spec can't be read. `desired`: the size that
    was decided on; `minimum` and `maximum` are of autoscaling, None without. `silent`: Pods whose agent is not heard.
    `running_since` and `reserved_since` are of the slot that is so the longest, `waiting_since` of the task that is
    queued the longest.
    """

    namespace: str
    name: str
    revision: int
    problem: str | None
    deleting: bool
    paused: bool
    replicas: int
    ready: int
    desired: int | None
    minimum: int | None
    maximum: int | None
    silent: int
    pods: dict[str, int]
    slots: dict[str, int]
    tasks: dict[str, int]
    running_since: datetime | None
    reserved_since: datetime | None
    waiting_since: datetime | None
    conditions: tuple[ConditionSaid, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSaid:
    """A plan that awaits its approval. `command` shows it, and asks. `problem`: why an approval was none.

    `changes`: whether it found something to change, None if its exit code does not say.
    """

    namespace: str
    name: str
    pool: str
    type: str
    pod: str | None
    slot: int | None
    attempt: int
    plan_digest: str | None
    changes: bool | None
    since: datetime | None
    expires_at: datetime | None
    command: str
    problem: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingSaid:
    """A task that is queued. `waits` says for what; None: nobody has said yet. `refused`: only a change helps."""

    namespace: str
    name: str
    pool: str
    type: str
    priority: int
    lock_key: str | None
    attempt: int
    since: datetime
    waits: str | None
    refused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSaid:
    """A slot, as its agent last said. `holder` is the name of its task, or what a program of the Pod's calls its hold.

    `worker`: whether its worker is heard of; None: it has none.
    """

    id: int
    accepts: tuple[str, ...]
    state: str
    since: datetime
    holder: str | None
    type: str | None
    step: str | None
    expires_at: datetime | None
    worker: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSaid:
    """A Pod. `connected`: its agent is heard; else `slots` are as last heard. `notes`: what is not as usual."""

    namespace: str
    pool: str
    name: str
    state: str
    created: datetime
    connected: bool
    agent_version: str | None
    idle_since: datetime | None
    notes: tuple[str, ...]
    slots: tuple[SlotSaid, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Everything but the Pods. `version` names this state of it; `now` is the controller's clock.

    Lists have at most 100 entries: of the plans those that expire first, of the queue those that are served first, of
    the decisions the newest.
    """

    version: str
    now: datetime
    replica: Replica
    pools: Listed[PoolSaid]
    plans: Listed[PlanSaid]
    queue: Listed[WaitingSaid]
    decisions: Listed[Decision]


@dataclass(frozen=True, slots=True, kw_only=True)
class PodsWanted:
    """Which Pods are asked for.

    `state`: with a slot in this state, or `silent`. `text` is part of a Pod's or holder's name. `oldest_first`: those
    first whose slots are held the longest.
    """

    state: str = ""
    text: str = ""
    oldest_first: bool = False
    offset: int = 0
    limit: int = MOST_LISTED


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolKnown:
    """All that is known of a pool. `obj` None: there is none of this name, and something names it.

    `unreadable` are its tasks whose objects can't be read, with the reason.
    """

    namespace: str
    name: str
    obj: Mapping[str, Any] | None
    spec: PoolSpec | InvalidObject | None
    pods: Sequence[PodView] = ()
    tasks: Sequence[Task] = ()
    unreadable: Sequence[tuple[Mapping[str, Any], InvalidObject]] = ()
    phases: Mapping[TaskPhase, int] = field(default_factory=dict)


# --- a pool -----------------------------------------------------------------------------------------------------------


def pool_said(known: PoolKnown, revision: int) -> PoolSaid:
    """A pool in one entry."""
    obj = known.obj or {}
    status = obj.get("status") or {}
    spec = known.spec if isinstance(known.spec, PoolSpec) else None
    scaler = spec.autoscaling if spec is not None else None
    present = [pod for pod in known.pods if not pod.dead]
    running_since, reserved_since = _oldest_holds(present)
    desired = status.get("desiredReplicas")
    return PoolSaid(
        namespace=known.namespace,
        name=known.name,
        revision=revision,
        problem=_why_no_spec(known),
        deleting="deletionTimestamp" in (obj.get("metadata") or {}),
        paused=scaler is not None and scaler.paused,
        replicas=len(present),
        ready=sum(pod.ready and pod.connected and pod.state is PodState.ACTIVE for pod in present),
        desired=desired if isinstance(desired, int) else None,
        minimum=scaler.min_replicas if scaler is not None else None,
        maximum=scaler.max_replicas if scaler is not None else None,
        silent=sum(not pod.connected for pod in present),
        pods={
            **dict.fromkeys((*(state.value for state in PodState), "dead"), 0),
            **Counter(p.word for p in known.pods),
        },
        slots=_slot_counts(present),
        tasks={
            **dict.fromkeys((phase.value for phase in TaskPhase), 0),
            **{p.value: n for p, n in known.phases.items()},
        },
        running_since=running_since,
        reserved_since=reserved_since,
        waiting_since=min((task.created for task in known.tasks if task.queued), default=None),
        conditions=_conditions(status),
    )


def _why_no_spec(known: PoolKnown) -> str | None:
    if known.obj is None:
        return "there is no pool of this name"
    return _short(str(known.spec)) if isinstance(known.spec, InvalidObject) else None


def _slot_counts(pods: Iterable[PodView]) -> dict[str, int]:
    idle = all_running = all_reserved = recovering = 0
    for pod in pods:
        running, reserved, free = pod.load
        all_running += running
        all_reserved += reserved
        if pod.agent is not None and pod.agent.recovering:
            recovering += len(free)
        else:
            idle += len(free)
    return {"idle": idle, "running": all_running, "reserved": all_reserved, RECOVERING: recovering}


def _oldest_holds(pods: Iterable[PodView]) -> tuple[datetime | None, datetime | None]:
    """Since when the slot is running that is so the longest, and since when the one is reserved."""
    running: datetime | None = None
    reserved: datetime | None = None
    for pod in pods:
        for slot in pod.held:
            if slot.state is SlotState.RUNNING:
                running = slot.since if running is None else min(running, slot.since)
            else:
                reserved = slot.since if reserved is None else min(reserved, slot.since)
    return running, reserved


def _conditions(status: Mapping[str, Any]) -> tuple[ConditionSaid, ...]:
    """Those of the status; none if somebody wrote nonsense into it."""
    try:
        found = [Condition.parse(entry) for entry in Fields(dict(status), "status").children("conditions")]
    except InvalidObject:
        return ()
    return tuple(
        ConditionSaid(
            type=_short(condition.type),
            status=condition.status,
            reason=_short(condition.reason),
            message=_short(condition.message),
            since=condition.since,
            concern=_is_concern(condition),
        )
        for condition in found
    )


def _is_concern(condition: Condition) -> bool:
    if condition.type in _NO_CONCERN:
        return False
    return (condition.status == "True") is (condition.type in _GOOD_IF_FALSE)


# --- tasks ------------------------------------------------------------------------------------------------------------


def plans_said(tasks: Iterable[Task], most: int) -> Listed[PlanSaid]:
    """The plans that await an approval: those that expire first, at most so many."""
    waiting = [
        task
        for task in tasks
        if task.status.phase is TaskPhase.AWAITING_APPROVAL and not task.approved and not task.unwanted
    ]
    return Listed(total=len(waiting), items=tuple(map(_plan, heapq.nsmallest(most, waiting, key=_expiry))))


def _expiry(task: Task) -> tuple[float, str, str]:
    return _moment(task.status.expires_at), task.namespace, task.name


def _plan(task: Task) -> PlanSaid:
    status = task.status
    rejected = find(status.conditions, APPROVED)
    wrong = task.spec.approval is not None and rejected is not None and rejected.status == "False"
    return PlanSaid(
        namespace=task.namespace,
        name=task.name,
        pool=task.spec.pool,
        type=task.spec.type,
        pod=status.pod,
        slot=status.slot,
        attempt=status.attempt,
        plan_digest=status.plan_digest,
        changes=status.changed,
        since=status.plan.end_time if status.plan is not None else None,
        expires_at=status.expires_at,
        command=approve_command(task),
        problem=_short(f"{rejected.reason}: {rejected.message}") if wrong and rejected is not None else None,
    )


def approve_command(task: Task) -> str:
    """What a person enters to be shown the plan, and asked whether to approve what was shown."""
    return shlex.join(["podslots", "-n", task.namespace, "approve", task.name])


def queue_said(
    tasks: Iterable[Task], unreadable: Iterable[tuple[Mapping[str, Any], InvalidObject]], most: int
) -> Listed[WaitingSaid]:
    """The tasks that are queued, as they are served, at most so many. Those that can't be read come first."""
    broken = [_unreadable(obj, problem) for obj, problem in unreadable]
    waiting = [task for task in tasks if task.queued]
    first = heapq.nsmallest(max(0, most - len(broken)), waiting, key=lambda task: task.order)
    return Listed(total=len(broken) + len(waiting), items=(*broken[:most], *map(_waiting, first)))


def _waiting(task: Task) -> WaitingSaid:
    refused = find(task.status.conditions, ACCEPTED)
    if refused is not None and refused.status != "False":
        refused = None
    word = f"{refused.reason}: {refused.message}" if refused is not None else task.status.queued_reason
    if task.unwanted:
        word = "for its end: it was cancelled" if task.spec.cancel else "for its end: it was deleted"
    return WaitingSaid(
        namespace=task.namespace,
        name=task.name,
        pool=task.spec.pool,
        type=task.spec.type,
        priority=task.spec.priority,
        lock_key=task.spec.lock_key,
        attempt=task.status.attempt,
        since=task.created,
        waits=_short(word) if word else None,
        refused=refused is not None and not task.unwanted,
    )


def _unreadable(obj: Mapping[str, Any], problem: InvalidObject) -> WaitingSaid:
    metadata, spec = obj["metadata"], obj.get("spec")
    given = spec if isinstance(spec, dict) else {}
    return WaitingSaid(
        namespace=metadata["namespace"],
        name=metadata["name"],
        pool=_short(str(given.get("pool", ""))),
        type=_short(str(given.get("type", ""))),
        priority=0,
        lock_key=None,
        attempt=0,
        since=datetime.fromisoformat(metadata["creationTimestamp"]),
        waits=_short(f"InvalidSpec: {problem}"),
        refused=True,
    )


def merged_plans(parts: Iterable[Listed[PlanSaid]], most: int) -> Listed[PlanSaid]:
    """The plans of all pools."""
    parts = list(parts)
    every = (plan for part in parts for plan in part.items)
    first = heapq.nsmallest(most, every, key=lambda plan: (_moment(plan.expires_at), plan.namespace, plan.name))
    return Listed(total=sum(part.total for part in parts), items=tuple(first))


def _moment(time: datetime | None) -> float:
    return time.timestamp() if time is not None else float("inf")


def merged_queue(parts: Iterable[Listed[WaitingSaid]], most: int) -> Listed[WaitingSaid]:
    """The queues of all pools."""
    parts = list(parts)
    every = (task for part in parts for task in part.items)
    first = heapq.nsmallest(most, every, key=lambda task: (-task.priority, task.since, task.namespace, task.name))
    return Listed(total=sum(part.total for part in parts), items=tuple(first))


# --- Pods -------------------------------------------------------------------------------------------------------------


def pods_said(known: Iterable[PoolKnown], wanted: PodsWanted) -> Listed[PodSaid]:
    """A page of the Pods that are asked for."""
    found = []
    for pool in known:
        holders: dict[str, str] = {task.task_id: task.name for task in pool.tasks}
        found += [(pool, pod, holders) for pod in pool.pods if _is_wanted(pod, holders, wanted)]
    if wanted.oldest_first:
        found.sort(key=lambda entry: (*_held_since(entry[1]), entry[0].namespace, entry[1].name))
    else:
        found.sort(key=lambda entry: (entry[0].namespace, entry[0].name, entry[1].name))
    page = found[wanted.offset : wanted.offset + wanted.limit]
    return Listed(total=len(found), items=tuple(_pod(*entry) for entry in page))


def _held_since(pod: PodView) -> tuple[bool, datetime]:
    return not pod.held, min((slot.since for slot in pod.held), default=pod.created)


def _is_wanted(pod: PodView, holders: Mapping[str, str], wanted: PodsWanted) -> bool:
    if wanted.state == SILENT and pod.connected:
        return False
    slots = pod.agent.slots if pod.agent is not None else ()
    if wanted.state not in {"", SILENT} and not any(_slot_state(slot) == wanted.state for slot in slots):
        return False
    if not wanted.text:
        return True
    named = (holders.get(slot.task_id, slot.task_id) for slot in pod.held if slot.task_id)
    return wanted.text in pod.name or any(wanted.text in name for name in named)


def _slot_state(slot: Slot) -> str:
    return RECOVERING if slot.recovering else slot.state.value


def _pod(pool: PoolKnown, pod: PodView, holders: Mapping[str, str]) -> PodSaid:
    agent = pod.agent
    return PodSaid(
        namespace=pool.namespace,
        pool=pool.name,
        name=pod.name,
        state=pod.word,
        created=pod.created,
        connected=pod.connected,
        agent_version=agent.version if agent is not None else None,
        idle_since=pod.idle_since,
        notes=tuple(_notes(pod)),
        slots=tuple(_slot(slot, holders) for slot in agent.slots) if agent is not None else (),
    )


def _notes(pod: PodView) -> Iterable[str]:
    if pod.start_problem is not None:
        yield _short(f"{pod.start_problem.reason}: {pod.start_problem.message}")
    if pod.deleting:
        yield "it was deleted, and ends"
    if not pod.connected and not pod.dead and pod.state is not PodState.STARTING:
        yield "its agent is not reached yet" if pod.contacting else "its agent does not answer"
    if pod.drain_requested:
        yield "somebody asked to have it drained"
    if pod.node_cordoned:
        yield "its node is cordoned"
    if pod.disowned:
        yield "an earlier pool of this name made it"
    if pod.agent_too_old:
        yield "its agent is too old to be given work"
    if pod.agent is not None:
        yield from map(_short, pod.agent.warnings)


def _slot(slot: Slot, holders: Mapping[str, str]) -> SlotSaid:
    known = holders.get(slot.task_id or "")
    parts = names.split_task_id(slot.task_id or "")
    return SlotSaid(
        id=slot.id,
        accepts=slot.accepts,
        state=_slot_state(slot),
        since=slot.since,
        holder=known or (_short(slot.task_id) if slot.task_id else None),
        type=slot.task_type,
        step=slot.step.value if slot.step is not None and parts is not None else None,
        expires_at=slot.expires_at,
        worker=slot.worker.connected if slot.worker is not None else None,
    )


def _short(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 1]}…"
