"""The steps of `controller.act.tasks` and `task_acks`: lock, intent, acquire, result, ack, and what is around them."""

from agent.rules import slots, tasks
from agent.wire import ErrorCode, Outcome, Step, TaskState
from controller.decide.tasks.task_actions import may_retry
from controller.objects.task import TaskPhase
from tests.model import site as sites
from tests.model.effects import Effect, Local, Op, Rules, end, go, tell, write_task
from tests.model.objects import ATTEMPTS, parsed

PHASES = {
    Outcome.SUCCEEDED: TaskPhase.SUCCEEDED,
    Outcome.FAILED: TaskPhase.FAILED,
    Outcome.CANCELLED: TaskPhase.CANCELLED,
    Outcome.EXPIRED: TaskPhase.EXPIRED,
    Outcome.LOST: TaskPhase.LOST,
}
NOT_TAKEN = {ErrorCode.NO_FREE_SLOT, ErrorCode.DRAINED, ErrorCode.CLOSING}


def _id(op: Op) -> str:
    return sites.task_id(op.task or 0, op.attempt)


def _stale(op: Op, now: Local) -> list[Effect] | None:
    if op.fresh and not now.task.gone:
        return None
    return end("finds that the task changed", now)


def assign(op: Op, now: Local, rules: Rules) -> list[Effect]:
    """Lock, intent, acquire, and what the answer comes to; `ask again` begins with a write of its own."""
    match op.at:
        case "lock":
            if now.lock not in {None, op.task}:
                return end("finds the lockKey taken", now)
            taken = now if now.lock is not None else now._replace(lock=op.task, bumped=("lock",))
            return go("takes the lockKey", op, taken, "acquire" if "acquire first" in rules else "intend")
        case "acquire":
            return _acquire(op, now, rules)
    return _stale(op, now) or _write_assigned(op, now, rules)


def _write_assigned(op: Op, now: Local, rules: Rules) -> list[Effect]:
    match op.at:
        case "intend":
            attempt = max(1, now.task.attempt)
            after = write_task(
                now, phase=TaskPhase.ASSIGNED, attempt=attempt, pod=op.pod, step=None, planned=False, told=False
            )
            at = "note" if "acquire first" in rules else "acquire"
            return go(f"writes the intent: Assigned, Pod {op.pod}, attempt {attempt}", op, after, at, attempt=attempt)
        case "ask again":
            after = now._replace(bumped=("task",))
            if "another agent" in rules:
                after = write_task(now, pod=op.pod)
            return go("writes that it asks again", op, after, "acquire")
        case "note":
            return end("writes Running", write_task(now, phase=TaskPhase.RUNNING, step=Step.PLAN), taken=True)
    after = write_task(now, phase=TaskPhase.QUEUED, pod=None, step=None, told=False)
    return end("writes that the task is queued again", after, taken=True)


def _acquire(op: Op, now: Local, rules: Rules) -> list[Effect]:
    attempt = max(1, op.attempt)
    name = sites.task_id(op.task or 0, attempt)
    command = slots.Acquire(task_id=name, task_type="plan_and_apply", work=sites.work(name, "plan_and_apply"))
    if now.site.agent is None:
        return end(f"asks for a slot for {name} and gets no answer", now)
    if not op.same_agent and "incarnation" not in rules:
        return end(f"asks for a slot for {name}: refused, {ErrorCode.RESTARTED}", now, taken=True)
    effects: list[Effect] = []
    for result in sites.acquire(now.site, command, closing=now.pod.forced):
        after, refused = now._replace(site=result.site, heard=True), result.refused
        if refused is None:
            at = "intend" if "acquire first" in rules else "note"
            effects += go(f"acquires a slot for {name}", op, after, at)
        elif refused in NOT_TAKEN and "acquire first" not in rules:
            effects += go(f"asks for a slot for {name}: {refused}", op, after, "withdraw")
        else:
            effects += end(f"asks for a slot for {name}: refused, {refused}", after, taken=True)
    return effects


def follow(op: Op, now: Local, rules: Rules) -> list[Effect]:
    name = _id(op)
    match op.at:
        case "read" | "look again":
            return _look(op, now, name, rules)
        case "keep":
            after = now._replace(task=now.task._replace(kept=True))
            return go(
                "keeps the output and what was handed over", op, after, None if "output late" in rules else "write"
            )
        case "write":
            if stale := _stale(op, now):
                return stale
            return _write_known(op, now, rules)
    return ack(op, now, rules)


def _look(op: Op, now: Local, name: str, rules: Rules) -> list[Effect]:
    agent = now.site.agent
    if agent is None:
        return end(f"asks for {name} and gets no answer", now)
    found = next((task for task in agent.tasks if task.task_id == name), None)
    if op.at == "look again":
        if agent.recovering or found is not None:
            return end("looks again: the agent can't tell yet, or knows it", now)
        return go(f"looks again: {name} is forgotten", op, now, "write", taken=False, known=("forgotten",))
    if found is None:
        if agent.recovering:
            return end(f"asks for {name}: the agent can't tell yet", now)
        return go(f"asks for {name}: not found", op, now, "look again", taken=False)
    if found.state is TaskState.ENDED:
        over = ("ended", found.outcome, found.step)
        at = "ack" if "ack first" in rules else "write" if "output late" in rules or now.task.kept else "keep"
        how = "was lost" if found.outcome is Outcome.LOST else "is over"
        return go(f"reads that {name} {how}", op, now, at, taken=False, known=over)
    if now.task.step is Step.APPLY and found.step is not Step.APPLY:
        return end(f"reads that {name} has not heard of its approval", now)
    if found.state is TaskState.RESERVED:
        return go(f"reads that {name} is reserved", op, now, "write", taken=False, known=("reserved",))
    known = ("running", found.step, found.plan_digest is not None)
    return go(f"reads that the {found.step} of {name} runs", op, now, "write", taken=False, known=known)


def _write_known(op: Op, now: Local, rules: Rules) -> list[Effect]:
    task = now.task
    view = parsed(task, op.task or 0)
    match op.known:
        case ("forgotten",):
            if may_retry(view):
                return end("writes that the task is queued again as the next attempt", _retried(now), taken=True)
            return end("writes Lost", write_task(now, phase=TaskPhase.LOST), taken=True)
        case ("ended", Outcome() as outcome, Step() as which):
            at = None if "ack first" in rules else "ack"
            again = go("writes that the task is queued again as the next attempt", op, _retried(now), at)
            if outcome is Outcome.LOST and which is not Step.APPLY and may_retry(view):
                return again
            if "asks anyway" in rules and outcome is Outcome.SUCCEEDED and task.step is Step.PLAN:
                after = write_task(now, phase=TaskPhase.AWAITING_APPROVAL, step=Step.PLAN, planned=True)
                return go("writes AwaitingApproval, though nothing is to be changed", op, after, at)
            phase = PHASES[outcome]
            if outcome is Outcome.LOST and task.phase is TaskPhase.AWAITING_APPROVAL:
                phase = TaskPhase.FAILED
            # How it ended is not in the model, but for a loss.
            text = "writes Lost" if phase is TaskPhase.LOST else "writes the end and its result"
            ended = go(text, op, write_task(now, phase=phase, step=which), at)
            return [*ended, *again] if _is_tried_again(op, now, rules) else ended
        case ("reserved",):
            after = write_task(
                now,
                phase=TaskPhase.AWAITING_APPROVAL,
                step=Step.PLAN,
                planned=True,
                seen=task.seen | {task.attempt},
            )
            return end("writes AwaitingApproval and the plan's digest", after, taken=True)
        case ("running", Step() as which, bool() as planned):
            after = write_task(now, phase=TaskPhase.RUNNING, step=which, planned=planned)
            return end(f"writes Running, {which}", after, taken=True)
    raise ValueError(op)


def _is_tried_again(op: Op, now: Local, rules: Rules) -> bool:
    """Whether a step that has ended, and was not lost, may be followed by another attempt: its exit code decides."""
    if "apply again" in rules:
        return now.task.step is Step.APPLY and now.task.attempt < ATTEMPTS
    failed = op.known[:2] == ("ended", Outcome.FAILED)
    return rules.trying_again and failed and may_retry(parsed(now.task, op.task or 0))


def _retried(now: Local) -> Local:
    if any(step is Step.APPLY for _, step in now.task.began):
        now = now._replace(wrong="a task is queued again whose apply has begun")
    return write_task(
        now,
        phase=TaskPhase.QUEUED,
        attempt=now.task.attempt + 1,
        pod=None,
        step=None,
        planned=False,
        told=False,
        kept=False,
        began=frozenset(),
    )


def approve(op: Op, now: Local, rules: Rules) -> list[Effect]:
    if op.at == "intend":
        if stale := _stale(op, now):
            return stale
        meant = now.task.meant | {now.task.attempt}
        after = write_task(now, phase=TaskPhase.RUNNING, step=Step.APPLY, meant=meant)
        return go("writes that the apply may start", op, after, None if "approve first" in rules else "approve")
    if op.at == "intend again":
        if stale := _stale(op, now):
            return stale
        return go("writes that it approves again", op, now._replace(bumped=("task",)), "approve")
    name = _id(op)
    told = tell(op, now, tasks.Approve(task_id=name, plan_digest=sites.digest(name), attempt=op.attempt), rules)
    if told is None:
        return end(f"approves {name} and gets no answer", now)
    after, refused = told
    if refused:
        return end(f"approves {name}: refused, {refused}", after, taken=True)
    again = "approve first" in rules and now.task.phase is TaskPhase.AWAITING_APPROVAL
    return go(f"approves {name}", op, after, "intend" if again else None)


def cancel(op: Op, now: Local, rules: Rules) -> list[Effect]:
    name = _id(op)
    match op.at:
        case "write":
            if stale := _stale(op, now):
                return stale
            after = now._replace(task=now.task._replace(told=op.same_agent), bumped=("task",))
            return end("writes that the agent was told to cancel", after, taken=True)
        case "finish":
            if stale := _stale(op, now):
                return stale
            return end("writes Cancelled", write_task(now, phase=TaskPhase.CANCELLED), taken=True)
    told = tell(op, now, tasks.Cancel(task_id=name), rules)
    if told is None:
        return end(f"cancels {name} and gets no answer", now)
    after, refused = told
    if refused is ErrorCode.NOT_FOUND and op.known:
        return go(f"cancels {name}: the agent never got it", op, after, "finish")
    if refused:
        return end(f"cancels {name}: refused, {refused}", after, taken=True)
    return go(f"cancels {name}", op, after, "write")


def retry(op: Op, now: Local, rules: Rules) -> list[Effect]:
    del rules
    if stale := _stale(op, now):
        return stale
    return end("writes that the task is queued again as the next attempt", _retried(now), taken=True)


def finish(op: Op, now: Local, rules: Rules) -> list[Effect]:
    del rules
    if op.at == "look":
        if now.pod.there:
            return end("reads the Pod: it is there after all", now)
        return go("reads the Pod: it is gone", op, now, "write", taken=False)
    if stale := _stale(op, now):
        return stale
    (phase,) = op.known
    return end(f"writes {phase}", write_task(now, phase=phase), taken=True)


def ack(op: Op, now: Local, rules: Rules) -> list[Effect]:
    name = _id(op)
    told = tell(op, now, tasks.Ack(task_id=name), rules)
    if told is None:
        return end(f"acknowledges {name} and gets no answer", now)
    after, refused = told
    task, agent = now.task, now.site.agent
    forgot = refused is None and agent is not None and any(known.task_id == name for known in agent.tasks)
    if forgot and not (task.gone or task.final or task.attempt != op.attempt):
        after = after._replace(wrong="an agent was let forget a result that is written nowhere")
    elif forgot and op.kind == "follow" and not (task.gone or task.kept or task.attempt != op.attempt):
        after = after._replace(wrong="an agent was let forget output that is kept nowhere")
    if refused:
        return end(f"acknowledges {name}: refused, {refused}", after, taken=True)
    following = None
    if op.kind == "follow":
        following = "write" if "ack first" in rules else "keep" if "output late" in rules else None
    return go(f"acknowledges {name}", op, after, following)


def release_lock(op: Op, now: Local, rules: Rules) -> list[Effect]:
    del rules
    if op.at == "read":
        if now.lock != op.task:
            return end("reads the lockKey: another holds it", now)
        return go("reads the lockKey", op, now, "delete", taken=False, fresh=True)
    if not op.fresh or now.lock != op.task:
        return end("finds the lockKey changed", now)
    return end("releases the lockKey", now._replace(lock=None, bumped=("lock",)), taken=True)


def settle_orphan(op: Op, now: Local, rules: Rules) -> list[Effect]:
    name = _id(op)
    match op.at:
        case "read":
            agent = now.site.agent
            found = next((task for task in agent.tasks if task.task_id == name), None) if agent else None
            if found is None:
                return end(f"asks for {name}: not found, or no answer", now)
            known = (found.state is TaskState.ENDED, found.step is Step.APPLY or found.cancel_requested)
            return go(f"reads {name}, for which no SlotTask seems to stand", op, now, "judge", taken=False, known=known)
        case "judge":
            ended, leave = op.known
            task = now.task
            if not task.gone:
                mine = task.attempt == op.attempt
                if not task.final and mine and task.pod == op.pod:
                    return end("reads the SlotTask: it stands for it", now)
                if task.final and mine and ended:
                    return go("reads the SlotTask: its result is written", op, now, "ack", taken=False)
            if ended:
                return go("reads the SlotTask: it does not stand for it", op, now, "ack", taken=False)
            following = None if leave else "cancel"
            return go("reads the SlotTask: it does not stand for it", op, now, following, taken=False)
        case "cancel":
            told = tell(op, now, tasks.Cancel(task_id=name), rules)
            if told is None:
                return end(f"cancels {name} and gets no answer", now)
            return end(f"cancels {name}", told[0], taken=True)
    return ack(op, now, rules)
