"""What `GET /slots` says, from the state and what surrounds it. Pure."""

from dataclasses import dataclass
from datetime import timedelta

from agent.rules.state import State
from agent.wire import AgentState, Slot, WorkerLink


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What does not change while the agent runs."""

    version: str
    pod: str
    pod_uid: str
    pool: str
    incarnation: str
    first_revision: int = 0


def make_view(
    facts: Facts,
    state: State,
    *,
    revision: int,
    tokens: tuple[str, ...],
    links: tuple[WorkerLink | None, ...],
    warnings: tuple[str, ...],
    shift: timedelta = timedelta(),
) -> AgentState:
    """The agent as others see it. `links` has the worker of each slot, `shift` leads to the wall clock's time."""
    if state.recovering:
        warnings = (*warnings, "a journal was lost; waiting for the workers to say what they hold")
    return AgentState(
        version=facts.version,
        pod=facts.pod,
        pod_uid=facts.pod_uid,
        pool=facts.pool,
        incarnation=facts.incarnation,
        phase=state.phase,
        drain_id=state.drain_id,
        revision=revision,
        tokens=tokens,
        slots=tuple(
            Slot(
                id=slot.id,
                accepts=accepts,
                state=slot.state,
                fence=slot.fence,
                since=slot.since + shift,
                task_id=slot.task_id,
                task_type=slot.task_type,
                step=slot.step,
                origin=slot.origin,
                expires_at=slot.expires_at + shift if slot.expires_at is not None else None,
                worker=link,
                recovering=slot.id in state.recovering,
            )
            for slot, accepts, link in zip(state.slots, state.layout, links, strict=True)
        ),
        ended=state.ended,
        closing=state.closing,
        recovering=bool(state.recovering),
        warnings=warnings,
    )
