"""The controller's operations, step by step: what each coroutine of `controller.pods` and `controller.dispatcher` does
between two awaits that others can get between.

An operation in flight is an `Op`. `at` names its next effect: a read, or a write at the API or an agent. `step` gives
what can come of that effect if it takes place now. Whatever the operation remembers is in the Op: whether the
resourceVersion it will name is still the newest (`fresh`), whether the incarnation it knows is still the agent's
(`same_agent`), its drain id, and what an agent answered (`known`).

What an operation decides without any await between is one step. A read that is followed by a decision alone is a step
of its own, for the answer may be old when the next write is sent.
"""

from collections.abc import Callable
from typing import NamedTuple

from agent import slots, tasks
from agent.wire import ErrorCode, Outcome, Phase, Step, TaskState
from controller.progress import may_retry
from controller.task import TaskPhase
from controller.view import PodState
from tests.model import site as sites
from tests.model.objects import PodObject, TaskObject, parsed, plain
from tests.model.site import Site

PHASES = {
    Outcome.SUCCEEDED: TaskPhase.SUCCEEDED,
    Outcome.FAILED: TaskPhase.FAILED,
    Outcome.CANCELLED: TaskPhase.CANCELLED,
    Outcome.EXPIRED: TaskPhase.EXPIRED,
    Outcome.LOST: TaskPhase.LOST,
}
NOT_TAKEN = {ErrorCode.NO_FREE_SLOT, ErrorCode.DRAINED, ErrorCode.CLOSING}

READS = {
    ("drain", "read"),
    ("drain", "read again"),
    ("delete starting", "read"),
    ("delete dead", "read"),
    ("follow", "read"),
    ("follow", "look again"),
    ("finish", "look"),
    ("release lock", "read"),
    ("settle orphan", "read"),
    ("settle orphan", "judge"),
}
TO_AGENT = {
    ("open", "open"),
    ("drain", "ask"),
    ("drain", "confirm"),
    ("assign", "acquire"),
    ("approve", "approve"),
    ("cancel", "cancel"),
    ("follow", "ack"),
    ("ack", "ack"),
    ("settle orphan", "cancel"),
    ("settle orphan", "ack"),
}
GUARDED = {
    ("assign", "intend"),
    ("assign", "ask again"),
    ("assign", "note"),
    ("assign", "withdraw"),
    ("follow", "write"),
    ("approve", "intend"),
    ("approve", "intend again"),
    ("cancel", "write"),
    ("cancel", "finish"),
    ("retry", "write"),
    ("finish", "write"),
}
"""Writes of a task's status, which name the version of the task that the operation was decided on."""

FIRST_STEP = {"follow": {"read", "look again"}, "finish": {"look"}}
"""Reads that lead to nothing but such a write."""


class Op(NamedTuple):
    """An operation in flight. `late`: only its next write is still on the way; nobody waits for the answer."""

    kind: str
    at: str
    pod: int | None = None
    task: int | None = None
    attempt: int = 0
    fresh: bool = True
    same_agent: bool = True
    drain: int = -1
    known: tuple[object, ...] = ()
    late: bool = False

    @property
    def key(self) -> tuple[object, ...]:
        """What the controller starts one operation at a time for."""
        if self.kind in POD_KINDS:
            return ("pod", self.pod)
        if self.kind == "settle orphan":
            return ("orphan", self.pod, self.task, self.attempt)
        return ("task", self.task)


POD_KINDS = {"open", "drain", "delete starting", "delete dead"}


class Local(NamedTuple):
    """What an operation's step reads and writes. `bumped` are objects of which there is a new version."""

    pod: PodObject
    site: Site
    task: TaskObject
    lock: int | None
    bumped: tuple[str, ...] = ()
    heard: bool = False
    wrong: str | None = None


class Effect(NamedTuple):
    """One thing that can come of a step."""

    text: str
    op: Op | None
    local: Local
    taken: bool = True
    """Whether something was written."""


class Rules(NamedTuple):
    """Switches that plant a mistake in the protocol; all off is the protocol as it is."""

    bugs: frozenset[str] = frozenset()
    free_drain: int = 0

    def __contains__(self, bug: object) -> bool:
        return bug in self.bugs


Program = Callable[[Op, Local, Rules], list[Effect]]


def step(op: Op, now: Local, rules: Rules) -> list[Effect]:
    """What can come of the operation's next effect, if it takes place now and is answered."""
    return PROGRAMS[op.kind](op, now, rules)


def _end(text: str, now: Local, *, taken: bool = False) -> list[Effect]:
    return [Effect(text, None, now, taken)]


def _go(text: str, op: Op, now: Local, at: str | None, *, taken: bool = True, **changes: object) -> list[Effect]:
    following = None if at is None else op._replace(at=at, **changes)  # type: ignore[arg-type]
    return [Effect(text, following, now, taken)]


# --- writes -----------------------------------------------------------------------------------------------------------


def tell(op: Op, now: Local, command: object, rules: Rules) -> tuple[Local, ErrorCode | None] | None:
    """A stamped write to the agent, and what it refused; None if nobody is there to answer."""
    if now.site.agent is None:
        return None
    if not op.same_agent and "incarnation" not in rules:
        return now, ErrorCode.RESTARTED
    result = sites.ask(now.site, command)
    heard = now._replace(site=result.site, heard=True)
    return _judged(op, heard, result, command), result.refused


def _judged(op: Op, now: Local, result: sites.Result, command: object) -> Local:
    """Rules that hold for what a controller's message brings about on an agent."""
    if isinstance(command, tasks.Ack) and result.refused is None and result.site != now.site._replace():
        pass
    for changed in result.slot_events:
        if changed.event.value == "cancel" and not _may_cancel(op, now):
            return now._replace(wrong="a reservation was cancelled that nobody wanted cancelled")
    return now


def _may_cancel(op: Op, now: Local) -> bool:
    task = now.task
    return task.cancel or task.gone or task.final or task.attempt != op.attempt or task.pod != op.pod


def write_task(op: Op, now: Local, **changes: object) -> Local:
    """The task's status, written."""
    before = now.task
    after = before._replace(**changes)  # type: ignore[arg-type]
    if after == before:
        return now
    wrong = now.wrong or _bad_write(before, after)
    return now._replace(task=plain(after), bumped=(*now.bumped, "task"), wrong=wrong)


def _bad_write(before: TaskObject, after: TaskObject) -> str | None:
    if before.final:
        return f"a final phase was written over with {after.phase}"
    if after.phase is TaskPhase.CANCELLED and before.phase is not after.phase and not before.cancel:
        return "a task was written Cancelled that nobody cancelled"
    return None


def label(now: Local, state: PodState, *, moved: bool = True) -> Local:
    """The Pod's label and a new annotation, written."""
    return now._replace(pod=now.pod._replace(label=state), bumped=(*now.bumped, "pod") if moved else now.bumped)


def delete_pod(now: Local) -> Local:
    """The Pod, deleted: it lingers until its processes are over."""
    return now._replace(pod=now.pod._replace(deleting=True), bumped=(*now.bumped, "pod"))


# --- Pods -------------------------------------------------------------------------------------------------------------


def _open(op: Op, now: Local, rules: Rules) -> list[Effect]:
    if op.at == "label":
        if not now.pod.there:
            return _end("finds the Pod gone", now)
        moved = not ("same version" in rules and now.pod.label is PodState.ACTIVE)
        labelled = label(now, PodState.ACTIVE, moved=moved)
        if now.pod.deleting:
            return _end("labels the Pod active, sees that it is being deleted, and stops", labelled, taken=True)
        return _go("labels the Pod active", op, labelled, "open" if op.drain >= 0 else None)
    told = tell(op, now, slots.Open(drain_id=_drain_id(op.drain)), rules)
    if told is None:
        return _end("asks the agent to open and gets no answer", now)
    after, refused = told
    if refused:
        return _end(f"asks the agent to take back drain {_drain_id(op.drain)}: refused, {refused}", after, taken=True)
    return _end(f"has the agent take back drain {_drain_id(op.drain)}: it is open", after, taken=True)


def _drain_id(number: int) -> str:
    return "born" if number == 0 else f"d{number}"


def drain_number(name: str | None) -> int:
    """The inverse of `_drain_id`; -1: none."""
    if name is None:
        return -1
    return 0 if name == "born" else int(name[1:])


def _drain(op: Op, now: Local, rules: Rules) -> list[Effect]:
    pod = now.pod
    match op.at:
        case "read":
            if not pod.there or pod.deleting:
                return _end("reads the Pod: it is gone, or on its way out", now)
            drain = op.drain if "same drain id" in rules and op.drain >= 0 else rules.free_drain
            at = "label" if "version late" in rules else "ask"
            text = "reads the Pod and its version"
            return _go(text, op, now, at, taken=False, fresh=True, drain=drain)
        case "read again":
            return _go("reads the Pod's version again", op, now, "delete", taken=False, fresh=True)
        case "ask" | "confirm":
            return _ask_for_drain(op, now, rules)
        case "label":
            if not op.fresh:
                return _go("finds that the Pod changed", op, now, "read", taken=False)
            following = "delete" if "version late" in rules else "confirm"
            return _go("labels the Pod draining", op, label(now, PodState.DRAINING), following, fresh=True)
        case "delete":
            if not op.fresh:
                at = "read again" if "no confirm" in rules else "read"
                return _go("finds that the Pod changed", op, now, at, taken=False)
            return _end("deletes the Pod", delete_pod(now), taken=True)
    if not pod.there:
        return _end("finds the Pod gone", now)
    return _end("labels the Pod active again", label(now, PodState.ACTIVE), taken=True)


def _ask_for_drain(op: Op, now: Local, rules: Rules) -> list[Effect]:
    if "version late" in rules and op.drain < 0:
        op = op._replace(drain=rules.free_drain)
    name = _drain_id(op.drain)
    if "unacked" in rules and now.site.agent is not None and op.same_agent:
        agent = now.site.agent
        if all(slot.task_id is None for slot in agent.slots) and agent.tasks:
            drained = agent._replace(phase=Phase.DRAINED, drain_id=name)
            after = now._replace(site=sites.tidy(now.site._replace(agent=drained)), heard=True)
            return _go(f"asks for drain {name}: granted", op, after, "label" if op.at == "ask" else "delete")
    told = tell(op, now, slots.Drain(drain_id=name), rules)
    if told is None:
        if "silence" in rules:
            return _go("asks for a drain, and takes silence for idleness", op, now, "label", taken=False)
        return _end(f"asks for drain {name} and gets no answer", now)
    after, refused = told
    if "still admits" in rules and refused is None and now.site.agent is not None:
        after = after._replace(site=now.site)
    if refused is ErrorCode.BUSY:
        return _go(f"asks for drain {name}: busy", op, after, "undo" if op.known else None)
    if refused:
        return _end(f"asks for drain {name}: refused, {refused}", after, taken=True)
    if "version late" in rules:
        return _go(f"asks for drain {name}: granted", op, after, "read", taken=True)
    return _go(f"asks for drain {name}: granted", op, after, "label" if op.at == "ask" else "delete")


def _delete_starting(op: Op, now: Local, rules: Rules) -> list[Effect]:
    del rules
    if op.at == "read":
        if not now.pod.there or now.pod.label is not PodState.STARTING:
            return _end("reads the Pod: it is gone, or not starting any more", now)
        return _go("reads the Pod: it is still starting", op, now, "delete", taken=False, fresh=True)
    if not op.fresh or not now.pod.there:
        return _end("finds that the Pod changed", now)
    return _end("deletes the Pod that was never opened", delete_pod(now), taken=True)


def _delete_dead(op: Op, now: Local, rules: Rules) -> list[Effect]:
    if op.at == "read":
        dead = now.pod.proof or ("failed is proof" in rules and now.pod.failed)
        if not now.pod.there or not dead:
            return _end("reads the Pod: nothing proves its death", now)
        return _go("reads the Pod: it is provably dead", op, now, "delete", taken=False, fresh=True)
    if not op.fresh or not now.pod.there:
        return _end("finds that the Pod changed", now)
    return _end("deletes the dead Pod", delete_pod(now), taken=True)


# --- tasks ------------------------------------------------------------------------------------------------------------


def _id(op: Op) -> str:
    return sites.task_id(op.task or 0, op.attempt)


def _stale(op: Op, now: Local) -> list[Effect] | None:
    if op.fresh and not now.task.gone:
        return None
    return _end("finds that the task changed", now)


def _assign(op: Op, now: Local, rules: Rules) -> list[Effect]:
    match op.at:
        case "lock":
            if now.lock not in (None, op.task):
                return _end("finds the lockKey taken", now)
            taken = now if now.lock is not None else now._replace(lock=op.task, bumped=("lock",))
            return _go("takes the lockKey", op, taken, "acquire" if "acquire first" in rules else "intend")
        case "intend":
            if stale := _stale(op, now):
                return stale
            attempt = max(1, now.task.attempt)
            after = write_task(
                op, now, phase=TaskPhase.ASSIGNED, attempt=attempt, pod=op.pod, step=None, planned=False, told=False
            )
            at = "note" if "acquire first" in rules else "acquire"
            return _go(f"writes the intent: Assigned, Pod {op.pod}, attempt {attempt}", op, after, at, attempt=attempt)
        case "ask again":
            if stale := _stale(op, now):
                return stale
            after = now._replace(bumped=("task",))
            if "another agent" in rules:
                after = write_task(op, now, pod=op.pod)
            return _go("writes that it asks again", op, after, "acquire")
        case "acquire":
            return _acquire(op, now, rules)
        case "note":
            if stale := _stale(op, now):
                return stale
            return _end("writes Running", write_task(op, now, phase=TaskPhase.RUNNING, step=Step.PLAN), taken=True)
    if stale := _stale(op, now):
        return stale
    after = write_task(op, now, phase=TaskPhase.QUEUED, pod=None, step=None, told=False)
    return _end("writes that the task is queued again", after, taken=True)


def _acquire(op: Op, now: Local, rules: Rules) -> list[Effect]:
    attempt = max(1, op.attempt)
    name = sites.task_id(op.task or 0, attempt)
    command = slots.Acquire(
        task_id=name, task_type="plan_and_apply", work=sites.work(name, "plan_and_apply")
    )
    told = tell(op, now, command, rules)
    if told is None:
        return _end(f"asks for a slot for {name} and gets no answer", now)
    after, refused = told
    if "acquire first" in rules and refused is None:
        return _go(f"acquires a slot for {name}", op, after, "intend")
    if refused is None:
        return _go(f"acquires a slot for {name}", op, after, "note")
    if refused in NOT_TAKEN and "acquire first" not in rules:
        return _go(f"asks for a slot for {name}: {refused}", op, after, "withdraw")
    return _end(f"asks for a slot for {name}: refused, {refused}", after, taken=True)


def _follow(op: Op, now: Local, rules: Rules) -> list[Effect]:
    name = _id(op)
    match op.at:
        case "read" | "look again":
            return _look(op, now, name, rules)
        case "write":
            if stale := _stale(op, now):
                return stale
            return _write_known(op, now, rules)
    return _ack(op, now, rules)


def _look(op: Op, now: Local, name: str, rules: Rules) -> list[Effect]:
    agent = now.site.agent
    if agent is None:
        return _end(f"asks for {name} and gets no answer", now)
    found = next((task for task in agent.tasks if task.task_id == name), None)
    if op.at == "look again":
        if agent.recovering or found is not None:
            return _end("looks again: the agent can't tell yet, or knows it", now)
        return _go(f"looks again: {name} is forgotten", op, now, "write", taken=False, known=("forgotten",))
    if found is None:
        if agent.recovering:
            return _end(f"asks for {name}: the agent can't tell yet", now)
        return _go(f"asks for {name}: not found", op, now, "look again", taken=False)
    if found.state is TaskState.ENDED:
        known = ("ended", found.outcome, found.step)
        at = "ack" if "ack first" in rules else "write"
        return _go(f"reads that {name} ended: {found.step} {found.outcome}", op, now, at, taken=False, known=known)
    if now.task.step is Step.APPLY and found.step is not Step.APPLY:
        return _end(f"reads that {name} has not heard of its approval", now)
    if found.state is TaskState.RESERVED:
        return _go(f"reads that {name} is reserved", op, now, "write", taken=False, known=("reserved",))
    known = ("running", found.step, found.plan_digest is not None)
    return _go(f"reads that the {found.step} of {name} runs", op, now, "write", taken=False, known=known)


def _write_known(op: Op, now: Local, rules: Rules) -> list[Effect]:
    task = now.task
    view = parsed(task, op.task or 0)
    match op.known:
        case ("forgotten",):
            if may_retry(view):
                return _end("writes that the task is queued again as the next attempt", _retried(op, now), taken=True)
            return _end("writes Lost", write_task(op, now, phase=TaskPhase.LOST), taken=True)
        case ("ended", Outcome() as outcome, Step() as which):
            at = None if "ack first" in rules else "ack"
            if outcome is Outcome.LOST and which is not Step.APPLY and may_retry(view):
                text = "writes that the task is queued again as the next attempt"
                return _go(text, op, _retried(op, now), at)
            phase = PHASES[outcome]
            if outcome is Outcome.LOST and task.phase is TaskPhase.AWAITING_APPROVAL:
                phase = TaskPhase.FAILED
            return _go(f"writes {phase}", op, write_task(op, now, phase=phase, step=which), at)
        case ("reserved",):
            after = write_task(
                op,
                now,
                phase=TaskPhase.AWAITING_APPROVAL,
                step=Step.PLAN,
                planned=True,
                seen=task.seen | {task.attempt},
            )
            return _end("writes AwaitingApproval and the plan's digest", after, taken=True)
        case ("running", Step() as which, bool() as planned):
            after = write_task(op, now, phase=TaskPhase.RUNNING, step=which, planned=planned)
            return _end(f"writes Running, {which}", after, taken=True)
    raise ValueError(op)


def _retried(op: Op, now: Local) -> Local:
    return write_task(
        op,
        now,
        phase=TaskPhase.QUEUED,
        attempt=now.task.attempt + 1,
        pod=None,
        step=None,
        planned=False,
        told=False,
        began=frozenset(),
    )


def _approve(op: Op, now: Local, rules: Rules) -> list[Effect]:
    if op.at == "intend":
        if stale := _stale(op, now):
            return stale
        meant = now.task.meant | {now.task.attempt}
        after = write_task(op, now, phase=TaskPhase.RUNNING, step=Step.APPLY, meant=meant)
        return _go("writes that the apply may start", op, after, None if "approve first" in rules else "approve")
    if op.at == "intend again":
        if stale := _stale(op, now):
            return stale
        return _go("writes that it approves again", op, now._replace(bumped=("task",)), "approve")
    name = _id(op)
    told = tell(op, now, tasks.Approve(task_id=name, plan_digest=sites.digest(name), attempt=op.attempt), rules)
    if told is None:
        return _end(f"approves {name} and gets no answer", now)
    after, refused = told
    if refused:
        return _end(f"approves {name}: refused, {refused}", after, taken=True)
    again = "approve first" in rules and now.task.phase is TaskPhase.AWAITING_APPROVAL
    return _go(f"approves {name}", op, after, "intend" if again else None)


def _cancel(op: Op, now: Local, rules: Rules) -> list[Effect]:
    name = _id(op)
    match op.at:
        case "write":
            if stale := _stale(op, now):
                return stale
            after = now._replace(task=now.task._replace(told=op.same_agent), bumped=("task",))
            return _end("writes that the agent was told to cancel", after, taken=True)
        case "finish":
            if stale := _stale(op, now):
                return stale
            return _end("writes Cancelled", write_task(op, now, phase=TaskPhase.CANCELLED), taken=True)
    told = tell(op, now, tasks.Cancel(task_id=name), rules)
    if told is None:
        return _end(f"cancels {name} and gets no answer", now)
    after, refused = told
    if refused is ErrorCode.NOT_FOUND and op.known:
        return _go(f"cancels {name}: the agent never got it", op, after, "finish")
    if refused:
        return _end(f"cancels {name}: refused, {refused}", after, taken=True)
    return _go(f"cancels {name}", op, after, "write")


def _retry(op: Op, now: Local, rules: Rules) -> list[Effect]:
    del rules
    if stale := _stale(op, now):
        return stale
    return _end("writes that the task is queued again as the next attempt", _retried(op, now), taken=True)


def _finish(op: Op, now: Local, rules: Rules) -> list[Effect]:
    del rules
    if op.at == "look":
        if now.pod.there:
            return _end("reads the Pod: it is there after all", now)
        return _go("reads the Pod: it is gone", op, now, "write", taken=False)
    if stale := _stale(op, now):
        return stale
    (phase,) = op.known
    return _end(f"writes {phase}", write_task(op, now, phase=phase), taken=True)


def _ack(op: Op, now: Local, rules: Rules) -> list[Effect]:
    name = _id(op)
    told = tell(op, now, tasks.Ack(task_id=name), rules)
    if told is None:
        return _end(f"acknowledges {name} and gets no answer", now)
    after, refused = told
    task, agent = now.task, now.site.agent
    forgot = refused is None and agent is not None and any(known.task_id == name for known in agent.tasks)
    if forgot and not (task.gone or task.final or task.attempt != op.attempt):
        after = after._replace(wrong="an agent was let forget a result that is written nowhere")
    if refused:
        return _end(f"acknowledges {name}: refused, {refused}", after, taken=True)
    again = op.kind == "follow" and "ack first" in rules
    return _go(f"acknowledges {name}", op, after, "write" if again else None)


def _release(op: Op, now: Local, rules: Rules) -> list[Effect]:
    del rules
    if op.at == "read":
        if now.lock != op.task:
            return _end("reads the lockKey: another holds it", now)
        return _go("reads the lockKey", op, now, "delete", taken=False, fresh=True)
    if not op.fresh or now.lock != op.task:
        return _end("finds the lockKey changed", now)
    return _end("releases the lockKey", now._replace(lock=None, bumped=("lock",)), taken=True)


def _orphan(op: Op, now: Local, rules: Rules) -> list[Effect]:
    name = _id(op)
    match op.at:
        case "read":
            agent = now.site.agent
            found = next((task for task in agent.tasks if task.task_id == name), None) if agent else None
            if found is None:
                return _end(f"asks for {name}: not found, or no answer", now)
            known = (found.state is TaskState.ENDED, found.step is Step.APPLY or found.cancel_requested)
            return _go(f"reads {name}, for which no SlotTask seems to stand", op, now, "judge", taken=False, known=known)
        case "judge":
            ended, leave = op.known
            task = now.task
            if not task.gone:
                mine = task.attempt == op.attempt
                if not task.final and mine and task.pod == op.pod:
                    return _end("reads the SlotTask: it stands for it", now)
                if task.final and mine and ended:
                    return _go("reads the SlotTask: its result is written", op, now, "ack", taken=False)
            if ended:
                return _go("reads the SlotTask: it does not stand for it", op, now, "ack", taken=False)
            following = None if leave else "cancel"
            return _go("reads the SlotTask: it does not stand for it", op, now, following, taken=False)
        case "cancel":
            told = tell(op, now, tasks.Cancel(task_id=name), rules)
            if told is None:
                return _end(f"cancels {name} and gets no answer", now)
            return _end(f"cancels {name}", told[0], taken=True)
    return _ack(op, now, rules)


PROGRAMS: dict[str, Program] = {
    "open": _open,
    "drain": _drain,
    "delete starting": _delete_starting,
    "delete dead": _delete_dead,
    "assign": _assign,
    "follow": _follow,
    "approve": _approve,
    "cancel": _cancel,
    "retry": _retry,
    "finish": _finish,
    "ack": _ack,
    "release lock": _release,
    "settle orphan": _orphan,
}
