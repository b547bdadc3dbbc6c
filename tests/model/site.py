"""A Pod from the inside: its agent, and what its workers keep. The agent decides by its own code.

`slots`, `tasks` and `recovery` of `agent.rules` are pure, so the model runs them as they are. What is left out of an
agent's state, and why nothing hangs on it:

- Times. A limit either has come or not; that it comes is an event of its own (`expire`).
- Fences are numbered anew, in order: they are only ever compared. Those of slots serve holders without work, and are 0.
- Slots that accept the same are interchangeable, so they are sorted.
- A worker's report arrives in the instant of what it reports. A worker repeats a report until it is answered, and
  nothing but the worker can tell a step that ended without a report from one that still runs, so a late report is the
  same as a late end. The exception is an agent that lost its journal: there the registration, which carries
  everything again, is an event of its own for each slot.
- The agent's answer to a poll starts the step in the same instant: a worker polls on one channel, one poll at a time,
  so a registration never overtakes it, and all else commutes with it.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from agent.errors import Refusal
from agent.rules import slots, tasks
from agent.rules.state import Record, SlotChanged, SlotEntry, State, TaskEntry, apply, initial_state
from agent.wire import (
    ErrorCode,
    Outcome,
    Phase,
    SlotState,
    Step,
    StepResult,
    Steps,
    StepSpec,
    TaskState,
    Work,
)

MOMENT = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = MOMENT + timedelta(days=365)
NEW, OLD = "2-new", "1-old"
TRUE = StepSpec(command=("true",))


class Kept(NamedTuple):
    """The last step of a task in a worker's directory. Without an outcome, its processes run.

    Of a step that runs: `own` is False while the command before its own one runs; `stopping` is what it will have come
    to, once it was told to stop. `rest`: the step has ended, and something of it still runs.
    """

    task_id: str
    step: Step
    fence: int
    outcome: Outcome | None
    own: bool = True
    stopping: Outcome | None = None
    rest: bool = False

    @property
    def runs(self) -> bool:
        """Whether anything of it does."""
        return self.outcome is None or self.rest


class Agent(NamedTuple):
    """An agent's durable state, without what the model leaves out."""

    phase: Phase
    drain_id: str | None
    slots: tuple[SlotEntry, ...]
    tasks: tuple[TaskEntry, ...]
    acked: tuple[str, ...]
    recovering: tuple[int, ...]
    fence: int


class Site(NamedTuple):
    """The processes of one Pod. `kept` is by slot, the oldest first. None for the agent: all of it is over."""

    agent: Agent | None
    kept: tuple[tuple[Kept, ...], ...] = ()


DEAD = Site(None)


class Result(NamedTuple):
    """What an event came to: the site after it, the agent's refusal if it refused, and the slots' transitions."""

    site: Site
    refused: ErrorCode | None = None
    slot_events: tuple[SlotChanged, ...] = ()


def task_id(task: int, attempt: int) -> str:
    """What the agent knows an attempt by."""
    return f"t{task}.{attempt}"


def parse_task_id(text: str) -> tuple[int, int]:
    """The task and the attempt that a task id names."""
    task, _, attempt = text[1:].partition(".")
    return int(task), int(attempt)


def digest(name: str) -> str:
    """The digest of the plan of an attempt."""
    return f"plan of {name}"


@cache
def work(name: str, kind: str) -> Work:
    """What the agent is given to run."""
    steps = Steps(plan=TRUE, apply=TRUE if kind == "plan_and_apply" else None)
    return Work(name=f"ns/{name}", attempt=parse_task_id(name)[1], steps=steps)


def fresh_site(slot_count: int, *, lost: bool = False) -> Site:
    """A Pod that was just created; `lost`: its agent, after it lost its journal."""
    state = initial_state(layout(slot_count), drain_id="born", lost=lost, now=MOMENT)
    return tidy(Site(freeze(state), ((),) * slot_count))


@cache
def layout(slot_count: int) -> tuple[tuple[str, ...], ...]:
    """Slots that all accept every type."""
    return (("plan", "plan_and_apply"),) * slot_count


def freeze(state: State) -> Agent:
    """The agent's state as the model keeps it."""
    return Agent(
        state.phase,
        state.drain_id,
        tuple(replace(slot, fence=0, acquire_fence=0, since=MOMENT) for slot in state.slots),
        tuple(state.tasks[name] for name in sorted(state.tasks)),
        tuple(sorted(state.acked)),
        state.recovering,
        state.fence,
    )


@cache
def thaw(agent: Agent) -> State:
    """The agent's state as its code takes it."""
    return State(
        layout=layout(len(agent.slots)),
        slots=agent.slots,
        fence=agent.fence,
        phase=agent.phase,
        drain_id=agent.drain_id,
        tasks={task.task_id: task for task in agent.tasks},
        works={task.task_id: work(task.task_id, task.task_type) for task in agent.tasks},
        acked=agent.acked,
        recovering=agent.recovering,
    )


def tidy(site: Site) -> Site:
    """The one way to write a site down: fences numbered anew, slots sorted."""
    agent = site.agent
    if agent is None:
        return DEAD
    site = Site(agent := agent._replace(tasks=tuple(map(_plain, agent.tasks))), site.kept)
    used = {task.plan_fence for task in agent.tasks} | {task.apply_fence for task in agent.tasks}
    used |= {kept.fence for slot in site.kept for kept in slot} | {agent.fence}
    rank = {fence: number for number, fence in enumerate(sorted(used - {None}))}  # type: ignore[type-var]
    agent_tasks = [
        replace(
            task,
            plan_fence=None if task.plan_fence is None else rank[task.plan_fence],
            apply_fence=None if task.apply_fence is None else rank[task.apply_fence],
        )
        for task in agent.tasks
    ]
    kept = [tuple(k._replace(fence=rank[k.fence]) for k in slot) for slot in site.kept]
    order = sorted(
        range(len(agent.slots)), key=lambda i: (repr(replace(agent.slots[i], id=0)), kept[i], i in agent.recovering)
    )
    place = {old: new for new, old in enumerate(order)}
    return Site(
        Agent(
            agent.phase,
            agent.drain_id,
            tuple(replace(agent.slots[old], id=new) for new, old in enumerate(order)),
            tuple(replace(task, slot=place[task.slot]) for task in agent_tasks),
            agent.acked,
            tuple(sorted(place[slot] for slot in agent.recovering)),
            rank[agent.fence],
        ),
        tuple(kept[old] for old in order),
    )


def _plain(task: TaskEntry) -> TaskEntry:
    """A task without what nothing hangs on: times and reasons.

    Of an end it matters whether the step was lost, and where, and whether it is a plan that failed.
    """
    if task.state is not TaskState.ENDED:
        return replace(task, reason=None, started_by=None, plan=_outcome(task.plan), apply=_outcome(task.apply))
    lost = task.outcome is Outcome.LOST
    failed = task.outcome is Outcome.FAILED and task.step is Step.PLAN
    return TaskEntry(
        task_id=task.task_id,
        task_type=task.task_type,
        name=task.name,
        attempt=task.attempt,
        slot=task.slot,
        state=task.state,
        step=task.step if lost else Step.PLAN,
        outcome=Outcome.LOST if lost else Outcome.FAILED if failed else Outcome.SUCCEEDED,
    )


def _outcome(result: StepResult | None) -> StepResult | None:
    return None if result is None or result.outcome is None else StepResult(outcome=result.outcome)


def bare(site: Site) -> Site:
    """A site without what only matters if its journal is lost once more: directories of tasks that the agent forgot."""
    agent = site.agent
    if agent is None or agent.recovering:
        return site
    known = {task.task_id for task in agent.tasks if task.state is not TaskState.ENDED}
    kept = tuple(tuple(k for k in slot if k.task_id in known or k.runs) for slot in site.kept)
    return site if kept == site.kept else tidy(Site(agent, kept))


def without(site: Site, task: int) -> Site:
    """A site whose agent does not remember that it acknowledged this task."""
    agent = site.agent
    if agent is None:
        return site
    acked = tuple(name for name in agent.acked if parse_task_id(name)[0] != task)
    return site if acked == agent.acked else site._replace(agent=agent._replace(acked=acked))


def rename(site: Site, names: dict[int, int]) -> Site:
    """The site with tasks named otherwise."""
    if site.agent is None:
        return site

    def named(name: str) -> str:
        task, attempt = parse_task_id(name)
        return task_id(names[task], attempt)

    agent = site.agent
    renamed = [
        replace(task, task_id=(new := named(task.task_id)), plan_digest=task.plan_digest and digest(new), name=new)
        for task in agent.tasks
    ]
    return tidy(
        Site(
            agent._replace(
                slots=tuple(s if s.task_id is None else replace(s, task_id=named(s.task_id)) for s in agent.slots),
                tasks=tuple(sorted(renamed, key=lambda task: task.task_id)),
                acked=tuple(sorted(map(named, agent.acked))),
            ),
            tuple(tuple(k._replace(task_id=named(k.task_id)) for k in slot) for slot in site.kept),
        )
    )


def ask(site: Site, command: Any, *, closing: bool = False) -> Result:
    """A command decided by the agent. `closing`: it was told that its Pod ends."""
    module = slots if isinstance(command, slots.Acquire | slots.Drain | slots.Open) else tasks
    return change(site, lambda state: module.decide(replace(state, closing=closing), command, MOMENT).records)


def acquire(site: Site, command: slots.Acquire, *, closing: bool = False) -> list[Result]:
    """An acquire, for each free slot that the agent may choose: the first one, in an order that is not the model's."""
    agent = site.agent
    if agent is None:
        raise ValueError("nobody is there to decide")
    free = [number for number, slot in enumerate(agent.slots) if slot.state is SlotState.IDLE]
    return list(dict.fromkeys(ask(_swapped(site, agent, number), command, closing=closing) for number in free or [0]))


def _swapped(site: Site, agent: Agent, number: int) -> Site:
    """The site with this slot in the first place."""
    place = {0: number, number: 0}
    order = [place.get(new, new) for new in range(len(agent.slots))]
    return Site(
        agent._replace(
            slots=tuple(replace(agent.slots[old], id=new) for new, old in enumerate(order)),
            tasks=tuple(replace(task, slot=place.get(task.slot, task.slot)) for task in agent.tasks),
            recovering=tuple(place.get(slot, slot) for slot in agent.recovering),
        ),
        tuple(site.kept[old] for old in order),
    )


def change(site: Site, decide: Callable[[State], tuple[Record, ...]]) -> Result:
    """The site after the records that `decide` gives for the agent's state."""
    if site.agent is None:
        raise ValueError("nobody is there to decide")
    state = thaw(site.agent)
    try:
        records = decide(state)
    except Refusal as refusal:
        return Result(site, refusal.code)
    for record in records:
        state = apply(state, record)
    changed = tuple(record for record in records if isinstance(record, SlotChanged))
    agent_tasks = {name: replace(task, name=name) for name, task in state.tasks.items()}
    return Result(tidy(Site(freeze(replace(state, tasks=agent_tasks)), site.kept)), None, changed)
