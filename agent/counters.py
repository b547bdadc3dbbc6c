"""The agent's measurements: what is counted as it happens, and what is read off the state when it is scraped."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from prometheus_client import CollectorRegistry

from agent import __version__
from agent.rules.state import RECORD_TYPES, Event, Record, Replaced, SlotChanged, State, TaskChanged, TaskEntry
from agent.wire import RECOVERING, ErrorCode, Outcome, Phase, SlotState, Step, StepResult, TaskState
from metrics.agent import AgentMetrics
from metrics.exposition import render

WATCH = "watch"
"""What a `GET /slots` is counted as besides, if it is a watch."""
OTHER = "other"
"""The label of requests for a path that the agent does not have."""


class Counters:
    """Counts what happens, and renders it. `calls` are the names that requests are counted by."""

    def __init__(self, registry: CollectorRegistry, calls: Iterable[str]) -> None:
        self._registry = registry
        self._metrics = AgentMetrics(
            registry,
            version=__version__,
            slot_states=(*SlotState, RECOVERING),
            events=Event,
            outcomes=Outcome,
            steps=Step,
            calls=dict.fromkeys((*calls, WATCH, OTHER)),
            errors=ErrorCode,
            record_kinds=RECORD_TYPES,
        )
        self._record_kinds = {kind: name for name, kind in RECORD_TYPES.items()}
        self.requests = self._metrics.requests
        """Counts by call; the server adds to it."""

    def refused(self, code: ErrorCode) -> None:
        """A request was refused."""
        self._metrics.refusals[code] += 1

    def recorded(self, record: Record, replaced: Replaced) -> None:
        """A record is in the journal."""
        self._metrics.journal_records[self._record_kinds[type(record)]] += 1
        if isinstance(record, SlotChanged):
            self._metrics.transitions[record.event] += 1
        elif isinstance(record, TaskChanged):
            self._task_changed(record.entry, replaced.task)

    def _task_changed(self, entry: TaskEntry, known: TaskEntry | None) -> None:
        for step in Step:
            result = entry.result_of(step)
            ended_before = known is not None and _has_ended(known.result_of(step))
            if result is not None and _has_ended(result) and not ended_before:
                self._observe_step(step, result.start_time, result.end_time)
        if entry.state is TaskState.ENDED and entry.outcome is not None:
            self._metrics.tasks_ended[entry.outcome].inc()

    def output(self, size_bytes: int) -> None:
        """Output of a step came in."""
        self._metrics.output_bytes.inc(size_bytes)

    def committed(self, seconds: float) -> None:
        """A commit is on the disk."""
        self._metrics.journal_seconds.observe(seconds)

    def commit_failed(self) -> None:
        """The disk refused a commit."""
        self._metrics.journal_failures.inc()

    def render(
        self,
        accept: str,
        *,
        state: State,
        workers: int,
        watchers: int,
        tokens: int,
        journal_bytes: int,
        journal_failing: bool,
    ) -> tuple[bytes, str]:
        """The answer to a scrape, with the figures of the present state."""
        metrics = self._metrics
        states = {slot.id: RECOVERING if slot.id in state.recovering else slot.state for slot in state.slots}
        counted = Counter(states.values())
        for name, gauge in metrics.slots.items():
            gauge.set(counted[name])
            for slot, its in states.items():
                metrics.slot_state.labels(slot, name).set(its == name)
        metrics.open.set(state.phase is Phase.OPEN and not state.closing)
        metrics.recovering.set(len(state.recovering))
        metrics.ended.set(len(state.ended))
        metrics.workers.set(workers)
        metrics.watchers.set(watchers)
        metrics.tokens.set(tokens)
        metrics.journal_bytes.set(journal_bytes)
        metrics.journal_failing.set(journal_failing)
        return render(self._registry, accept)

    def _observe_step(self, step: Step, start: datetime | None, end: datetime | None) -> None:
        if start is not None and end is not None:
            # The worker's own clock gave both; a step back of it must not make a negative duration.
            self._metrics.step_seconds[step].observe(max(0.0, (end - start).total_seconds()))


def _has_ended(result: StepResult | None) -> bool:
    return result is not None and result.end_time is not None
