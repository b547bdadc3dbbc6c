"""Which operations the leader may start: those that `pod_actions` and `task_actions` ask for.

For tasks `task_actions.next_action` itself is asked. For Pods the model is freer than the controller: any idle Pod may
be drained at any time, for any reason. A start is *fair* if the controller would come to it by itself for certain.

What the controller has read may be old by the time it acts. That is the same as an operation which was started on what
was true then, and whose first step is put off.
"""

from collections.abc import Iterator

from agent.wire import Phase, SlotState
from controller.decide.tasks.task_actions import (
    Ack,
    Acquire,
    Approve,
    Cancel,
    Finish,
    Follow,
    ReleaseLock,
    Retry,
    TaskAction,
)
from controller.decide.view import PodState
from controller.objects.task import TaskPhase
from tests.model.checker import Move
from tests.model.effects import Op, drain_number
from tests.model.flight import Flight, named
from tests.model.objects import FINAL, PodObject, TaskObject, is_idle, next_step
from tests.model.site import Site, fresh_site, parse_task_id
from tests.model.tables import State, Tables

AT_ONCE = {
    ("drain", "read"),
    ("delete starting", "read"),
    ("delete dead", "read"),
    ("follow", "read"),
    ("retry", "write"),
    ("finish", "look"),
    ("finish", "write"),
    ("assign", "ask again"),
    ("approve", "intend"),
    ("approve", "intend again"),
    ("release lock", "read"),
    ("settle orphan", "read"),
}
"""First steps that an operation takes in the instant of its start.

They are reads, and writes that name the version which the decision to start rests on. Put off, such a write either
meets the same version and does the same, or fails and changes nothing; such a read finds what one of an operation that
is started then would find. So whatever can happen with them put off can happen with the start put off as well.
"""

Start = tuple[bool, int]
"""Whether it is fair, and the operation's number."""


class Starts:
    """Starts operations."""

    def __init__(self, tables: Tables, flight: Flight) -> None:
        self._tables = tables
        self._flight = flight
        self._bugs = tables.config.bugs

    def moves(self, state: State) -> Iterator[Move[State]]:
        """Every start."""
        ops = [self._tables.ops.of(n) for n in state.ops]
        if sum(not op.old for op in ops) >= self._tables.config.operations:
            return
        keys = {op.key for op in ops}
        for fair, number in self._candidates(state):
            op = self._tables.ops.of(number)
            if op.key in keys:
                continue
            if (op.kind, op.at) in AT_ONCE:
                for move in self._flight.next_step(state, number, state.ops):
                    if move.state != state:
                        yield move if fair else move._replace(fair=False)
            else:
                started = state._replace(ops=tuple(sorted((*state.ops, number))))
                yield Move(f"leader starts {named(op)}", fair, self._flight.tidy(started))

    def _candidates(self, state: State) -> Iterator[Start]:
        remember = self._tables.remember
        needed = self._tables.needed(state)
        for pod, (obj, site) in enumerate(zip(state.pods, state.sites, strict=True)):
            yield from remember(self._on_pod, pod, obj, site, needed)
            yield from remember(self._orphans, pod, obj, site, state.tasks)
        for number, task in enumerate(state.tasks):
            where = self._tables.tasks.of(task).pod
            there = (None, None) if where is None else (state.pods[where], state.sites[where])
            yield from remember(self._on_task, number, task, *there, state.lock == number)
            if self._has_turn(state, number, task):
                yield from remember(self._assignments, number, task, state.pods, state.sites)

    # --- Pods -------------------------------------------------------------------------------------------------------

    def _on_pod(self, pod: int, obj: int, site: int, needed: bool) -> list[Start]:
        planned = self._pod_operations(pod, self._tables.pods.of(obj), self._tables.sites.of(site), needed=needed)
        return [(fair, self._tables.ops[op]) for fair, op in planned]

    def _pod_operations(self, pod: int, obj: PodObject, site: Site, *, needed: bool) -> Iterator[tuple[bool, Op]]:
        agent = site.agent
        if not obj.there or obj.deleting:
            return
        if obj.proof or (obj.failed and "failed is proof" in self._bugs):
            yield True, Op("delete dead", "read", pod)
            return
        idle = agent is not None and is_idle(site)
        if obj.label is PodState.STARTING:
            if idle or agent is None:
                yield not needed, Op("delete starting", "read", pod)
        elif idle or ("silence" in self._bugs and agent is not None):
            at = "ask" if "version late" in self._bugs else "read"
            known = ("draining",) if obj.label is PodState.DRAINING else ()
            yield not needed, Op("drain", at, pod, known=known)
        if agent is None:
            return
        drained = agent.phase is Phase.DRAINED
        take = Op("open", "label", pod, drain=drain_number(agent.drain_id) if drained else -1)
        if obj.label is PodState.DRAINING:
            yield needed or not idle, take
        elif drained and not agent.recovering:
            yield needed or obj.label is PodState.ACTIVE, take

    def _orphans(self, pod: int, obj: int, site: int, numbers: tuple[int, ...]) -> list[Start]:
        """What an agent has of tasks that do not stand for it."""
        agent, there = self._tables.sites.of(site).agent, self._tables.pods.of(obj)
        found: list[Start] = []
        if agent is None or not there.there or there.proof:
            return found
        for known in agent.tasks:
            number, attempt = parse_task_id(known.task_id)
            task = self._tables.tasks.of(numbers[number])
            mine = not task.gone and task.attempt == attempt and task.pod == pod
            if not mine or (task.final and known.outcome is None):
                found.append((True, self._tables.ops[Op("settle orphan", "read", pod, number, attempt)]))
        return found

    # --- tasks ------------------------------------------------------------------------------------------------------

    def _has_turn(self, state: State, number: int, task: int) -> bool:
        """Whether a queued task may be given to a Pod: it has the lockKey, or nobody who could change things has."""
        obj = self._tables.tasks.of(task)
        if obj.phase is not TaskPhase.QUEUED or obj.cancel:
            return False
        if state.lock is not None:
            return state.lock == number
        return all(self._tables.tasks.of(n).phase in {TaskPhase.QUEUED, *FINAL} for n in state.tasks)

    def _assignments(self, number: int, task: int, pods: tuple[int, ...], places: tuple[int, ...]) -> list[Start]:
        attempt = self._tables.tasks.of(task).attempt
        if "acquire first" in self._bugs:
            attempt = max(1, attempt)
        return [
            (True, self._tables.ops[Op("assign", "lock", pod, number, attempt)])
            for pod, (obj, site) in enumerate(zip(pods, places, strict=True))
            if _takes_work(self._tables.pods.of(obj), self._tables.sites.of(site))
        ]

    def _on_task(self, number: int, task: int, pod: int | None, site: int | None, locked: bool) -> list[Start]:
        tables = self._tables
        there = None if pod is None else tables.pods.of(pod)
        where = None if site is None else tables.sites.of(site)
        found: dict[Op, bool] = {}
        for fair, op in self._task_operations(number, tables.tasks.of(task), there, where, locked=locked):
            found.setdefault(op, fair)
        return [(fair, tables.ops[op]) for op, fair in found.items()]

    def _task_operations(
        self, number: int, task: TaskObject, pod: PodObject | None, site: Site | None, *, locked: bool
    ) -> Iterator[tuple[bool, Op]]:
        if task.gone:
            return
        views = [(site, True)]
        blank = fresh_site(1).agent
        if site is not None and site.agent is not None and blank is not None:
            # A report that is older than the task's status: nothing was held yet.
            views.append((Site(site.agent._replace(slots=blank.slots, tasks=())), False))
        for seen, fair in views:
            # Only a leader that saw the Pod's last version knows what it proves.
            for buried in {False, pod is not None and pod.buried}:
                action = next_step(number, task, pod, seen, locked=locked, buried=buried)
                op = self._operation(number, task, action)
                if op is not None:
                    yield fair, op
        if "lost unlocks" in self._bugs and task.phase is TaskPhase.LOST and locked:
            yield True, Op("release lock", "read", task=number)
        if "approval unbound" in self._bugs and task.phase is TaskPhase.AWAITING_APPROVAL and task.approval:
            yield True, Op("approve", "intend", task.pod, number, task.attempt)

    def _operation(self, number: int, task: TaskObject, action: TaskAction | None) -> Op | None:
        """The operation of `act.tasks` for an action, as `passes.task_starts` maps them."""
        pod, attempt = task.pod, task.attempt
        match action:
            case Acquire():
                at = "acquire" if "ask at once" in self._bugs else "ask again"
                return Op("assign", at, pod, number, attempt)
            case Follow():
                return Op("follow", "read", pod, number, attempt)
            case Approve():
                return Op("approve", self._approves_at(task), pod, number, attempt)
            case Cancel():
                known = ("assigned",) if task.phase is TaskPhase.ASSIGNED else ()
                return Op("cancel", "cancel", pod, number, attempt, known=known)
            case Retry():
                return Op("retry", "write", pod, number, attempt)
            case Finish(phase=phase, if_pod_gone=look):
                return Op(
                    "finish", "look" if look and pod is not None else "write", pod, number, attempt, known=(phase,)
                )
            case Ack():
                return Op("ack", "ack", pod, number, attempt)
            case ReleaseLock():
                return Op("release lock", "read", task=number)
        return None

    def _approves_at(self, task: TaskObject) -> str:
        if "approve first" in self._bugs:
            return "approve"
        if task.phase is TaskPhase.AWAITING_APPROVAL:
            return "intend"
        return "approve" if "approve at once" in self._bugs else "intend again"


def _takes_work(pod: PodObject, site: Site) -> bool:
    agent = site.agent
    if agent is None or not pod.there or pod.deleting or pod.proof or pod.label is not PodState.ACTIVE:
        return False
    return agent.phase is Phase.OPEN and any(slot.state is SlotState.IDLE for slot in agent.slots)
