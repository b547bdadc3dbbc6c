"""What must hold in every state, and what may happen as a step begins. Each rule returns what is wrong, or None.

The rules about single writes (deleting a Pod, writing a phase, an ack) stand where those writes are made, in
`operations`; here are those that are seen from outside.
"""

from collections import Counter
from collections.abc import Sequence

from agent.rules.state import Event, SlotChanged
from agent.wire import Outcome, Phase, Step
from controller.objects.task import TaskPhase
from tests.model.objects import PodObject, TaskObject
from tests.model.site import Kept, Site, parse_task_id


def in_state(
    pods: Sequence[PodObject], sites: Sequence[Site], tasks: Sequence[TaskObject], lock: int | None
) -> str | None:
    """What is wrong with a state."""
    slots: Counter[int] = Counter()
    commands: Counter[int] = Counter()
    applies: Counter[int] = Counter()
    for number, (pod, site) in enumerate(zip(pods, sites, strict=True)):
        if site.agent is None:
            continue
        if pod.there and pod.deleting and not pod.forced and (found := _lost_by_deletion(site, tasks)):
            return f"Pod {number} is deleted, and {found}"
        slots.update(parse_task_id(slot.task_id)[0] for slot in site.agent.slots if slot.task_id is not None)
        running = [kept for place in site.kept for kept in place if kept.runs]
        commands.update(parse_task_id(kept.task_id)[0] for kept in running)
        applies.update(parse_task_id(kept.task_id)[0] for kept in running if kept.step is Step.APPLY)
    for number, task in enumerate(tasks):
        if found := _wrong_with_task(task, slots[number], commands[number]):
            return f"task {number} is {found}"
        if applies[number] and lock != number:
            return f"an apply of task {number} runs without its lockKey"
    return None


def _wrong_with_task(task: TaskObject, slots: int, commands: int) -> str | None:
    """What is wrong with a task that holds this many slots, and of which this many commands run."""
    if slots > 1:
        return "in two slots"
    if commands > 1:
        return "run by two commands at once"
    if task.phase is TaskPhase.QUEUED and (slots or commands):
        return "Queued, and held by an agent"
    if task.final and task.phase is not TaskPhase.LOST and commands:
        return "over, and a command of it runs"
    return None


def _lost_by_deletion(site: Site, tasks: Sequence[TaskObject]) -> str | None:
    """What a Pod on its way out still has that must not go with it.

    What an agent without a journal brought back of a task that is over for everybody else is nothing to lose.
    """
    agent = site.agent
    if agent is None:
        return None
    if agent.phase is Phase.OPEN:
        return "its agent is open"
    if any(kept.runs for slot in site.kept for kept in slot):
        return "a command runs in it"
    for known in agent.tasks:
        number, attempt = parse_task_id(known.task_id)
        task = tasks[number]
        if not (task.gone or task.final or task.attempt != attempt):
            return f"{known.task_id} is {known.state} in it"
    return None


def at_start(task: TaskObject, attempt: int, step: Step) -> str | None:
    """What is wrong with a command that is about to start."""
    if task.final and task.phase is not TaskPhase.LOST:
        return f"the {step} of a task that has ended starts"
    if attempt != task.attempt:
        return f"the {step} of attempt {attempt} starts, and attempt {task.attempt} is the present one"
    if (attempt, step) in task.began:
        return f"the {step} of attempt {attempt} starts a second time"
    if step is not Step.APPLY:
        return None
    if any(which is Step.APPLY for _, which in task.began):
        return "an apply starts a second time, in another attempt"
    if attempt not in task.approved:
        return f"an apply starts that nobody approved: attempt {attempt}"
    if attempt not in task.meant:
        return f"an apply starts before that was written down: attempt {attempt}"
    return None


def at_next_command(kept: Kept) -> str | None:
    """What is wrong with a step's own command that is about to start, after the one before it has ended."""
    return None if kept.stopping is None else f"a command of the {kept.step} of {kept.task_id} starts after its stop"


def at_end(kept: Kept, outcome: Outcome) -> str | None:
    """What is wrong with how a step is said to have ended."""
    if outcome is not Outcome.SUCCEEDED:
        return None
    if kept.stopping is not None:
        return f"the {kept.step} of {kept.task_id} was stopped, and is said to have succeeded"
    return None if kept.own else f"the {kept.step} of {kept.task_id} is said to have succeeded, and never began"


_ENDS_OF_A_RESERVATION = {Event.APPROVE, Event.CANCEL, Event.EXPIRE, Event.LOSE}


def at_transition(changed: Sequence[SlotChanged], before: Site) -> str | None:
    """What is wrong with what an event did to slots."""
    if before.agent is None:
        return None
    for record in changed:
        was = before.agent.slots[record.entry.id]
        if was.state.value == "reserved" and record.event not in _ENDS_OF_A_RESERVATION:
            return f"a reservation was ended by {record.event}"
    return None
