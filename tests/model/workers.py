"""What the workers of a Pod do, and what becomes of it at their agent."""

from dataclasses import replace
from typing import Any, Final

from agent.rules import tasks
from agent.rules.recovery import recover
from agent.rules.state import Record, State, TaskEntry
from agent.wire import (
    Assignment,
    ExitReport,
    KeptTask,
    Outcome,
    RegisterRequest,
    SlotState,
    StartedReport,
    Step,
    TaskState,
)
from tests.model.site import DEAD, LATER, MOMENT, Kept, Result, Site, ask, change, digest, fresh_site, tidy, work

NEW: Final = "2-new"
"""The worker instance that makes every report: those of an earlier one are refused, as if they had never been sent."""


def waiting(site: Site) -> list[TaskEntry]:
    """The tasks whose step a worker is offered."""
    agent = site.agent
    if agent is None:
        return []
    return [task for task in agent.tasks if task.state is TaskState.WAITING and task.slot not in agent.recovering]


def marked(site: Site, task: TaskEntry) -> bool:
    """Whether the step has its marker already: then the worker never starts it."""
    return any((kept.task_id, kept.step) == (task.task_id, task.step) for kept in site.kept[task.slot])


def busy(site: Site, slot: int) -> bool:
    """Whether the slot's worker runs a step."""
    return any(kept.runs for kept in site.kept[slot])


def begin(site: Site, task: TaskEntry, *, told: bool = True, own: bool = True) -> Result:
    """The worker claims the step and starts its command; a cancelled one it claims only. `told`: the agent hears it.

    `own`: the step has no command before its own.
    """
    fence = task.step_fence
    if fence is None:
        raise ValueError("a step without a fence is not offered")
    outcome = Outcome.CANCELLED if task.cancel_requested else None
    kept = _keep(site, task.slot, Kept(task.task_id, task.step, fence, outcome, own or outcome is not None))
    if outcome is not None:
        return ask(kept, tasks.Exited(slot=task.slot, report=_exit(kept.kept[task.slot][-1])))
    if not told:
        return Result(tidy(kept))
    report = StartedReport(instance=NEW, task_id=task.task_id, step=task.step, fence=fence, start_time=MOMENT)
    return ask(kept, tasks.Started(slot=task.slot, report=report))


def goes_on(site: Site, slot: int, **changes: Any) -> Result:
    """Something changes about the step that runs in a slot, which nobody else hears of."""
    (running,) = (kept for kept in site.kept[slot] if kept.runs)
    return Result(tidy(_keep(site, slot, running._replace(**changes))))


def end(site: Site, slot: int, outcome: Outcome, *, rest: bool = False) -> Result:
    """The command that runs in a slot ends, and its worker reports that. `rest`: something of it still runs."""
    (running,) = (kept for kept in site.kept[slot] if kept.outcome is None)
    ended = running._replace(outcome=outcome, own=True, stopping=None, rest=rest)
    kept = _keep(site, slot, ended)
    if site.agent is not None and slot in site.agent.recovering:
        return Result(tidy(kept))  # the agent hears of it as the worker registers
    result = ask(kept, tasks.Exited(slot=slot, report=_exit(ended)))
    # What the agent refuses for good, the worker does not report again.
    return result if result.refused is None else Result(tidy(kept), result.refused)


def offered_again(site: Site, task: TaskEntry) -> Result:
    """A worker is offered what it started before: it reports how that went, under the new fence."""
    (kept,) = (kept for kept in site.kept[task.slot] if kept.task_id == task.task_id)
    renewed = _keep(site, task.slot, kept._replace(fence=task.step_fence or 0))
    if kept.outcome is None:
        report = StartedReport(
            instance=NEW, task_id=task.task_id, step=task.step, fence=task.step_fence or 0, start_time=MOMENT
        )
        return ask(renewed, tasks.Started(slot=task.slot, report=report))
    return ask(renewed, tasks.Exited(slot=task.slot, report=_exit(renewed.kept[task.slot][-1])))


def register(site: Site, slot: int) -> Result:
    """After a lost journal, a slot's worker says what it keeps."""
    forget: tuple[str, ...] = ()
    request = RegisterRequest(instance=NEW, tasks=tuple(registered(kept) for kept in site.kept[slot]))

    def decide(state: State) -> tuple[Record, ...]:
        nonlocal forget
        recovered = recover(state, slot, request, MOMENT, repeated=False)
        forget = recovered.forget
        return recovered.records

    place = [tuple(kept for kept in each) for each in site.kept]
    result = change(site, decide)
    if not forget or result.site.agent is None:
        return result
    gone = [tuple(kept for kept in each if kept.task_id not in forget) for each in place]
    return result._replace(site=_with_kept(result.site, place, gone))


def _with_kept(site: Site, before: list[tuple[Kept, ...]], after: list[tuple[Kept, ...]]) -> Site:
    """The site with directories gone, wherever their slot is now."""
    names = {kept.task_id for slot in before for kept in slot} - {kept.task_id for slot in after for kept in slot}
    return forgotten(site, names)


def forgotten(site: Site, names: set[str]) -> Site:
    """The site without the directories of these tasks."""
    return tidy(site._replace(kept=tuple(tuple(k for k in slot if k.task_id not in names) for slot in site.kept)))


def forgettable(site: Site) -> set[str]:
    """Tasks whose directories can go: their results were acknowledged, so the agent does not know them."""
    if site.agent is None:
        return set()
    known = {task.task_id for task in site.agent.tasks}
    return {
        kept.task_id
        for number, slot in enumerate(site.kept)
        for kept in slot
        if kept.outcome and kept.task_id not in known and number not in site.agent.recovering
    }


def expire(site: Site, slot: int) -> Result:
    """The limit of a slot's reservation comes."""

    def decide(state: State) -> tuple[Record, ...]:
        entries = tuple(
            replace(entry, expires_at=None if entry.id != slot else entry.expires_at) for entry in state.slots
        )
        return tasks.decide(replace(state, slots=entries), tasks.ExpireTasks(), LATER).records

    return change(site, decide)


def reserved(site: Site) -> list[int]:
    """The slots that are reserved."""
    return [] if site.agent is None else [s.id for s in site.agent.slots if s.state is SlotState.RESERVED]


def lose_journal(site: Site) -> Site:
    """The agent starts anew and finds no journal; the workers' directories are untouched."""
    fresh = fresh_site(len(site.kept), lost=True).agent
    if fresh is None or site.agent is None:
        return DEAD
    above = 1 + max([site.agent.fence, *(kept.fence for slot in site.kept for kept in slot)])
    return tidy(Site(fresh._replace(fence=above), site.kept))


def _keep(site: Site, slot: int, kept: Kept) -> Site:
    others = tuple(other for other in site.kept[slot] if other.task_id != kept.task_id)
    return site._replace(kept=(*site.kept[:slot], (*others, kept), *site.kept[slot + 1 :]))


def _exit(kept: Kept) -> ExitReport:
    plan = kept.step is Step.PLAN and kept.outcome is Outcome.SUCCEEDED
    return ExitReport(
        instance=NEW,
        task_id=kept.task_id,
        step=kept.step,
        fence=kept.fence,
        outcome=kept.outcome or Outcome.FAILED,
        end_time=MOMENT,
        plan_digest=digest(kept.task_id) if plan else None,
    )


def registered(kept: Kept) -> KeptTask:
    """What a registration says of a kept task."""
    assignment = Assignment(
        task_id=kept.task_id,
        task_type="plan_and_apply",
        step=kept.step,
        fence=kept.fence,
        work=work(kept.task_id, "plan_and_apply"),
        plan_digest=digest(kept.task_id) if kept.step is Step.APPLY else None,
    )
    return KeptTask(assignment=assignment, started=True, exit=_exit(kept) if kept.outcome else None)
