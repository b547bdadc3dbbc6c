"""The protocol as a graph of states: the API's objects, the Pods' insides, operations, and messages on their way."""

from collections.abc import Iterator

from controller.objects.task import TaskPhase
from tests.model import invariants
from tests.model.checker import Move
from tests.model.flight import Flight
from tests.model.objects import PodObject, TaskObject
from tests.model.starts import Starts
from tests.model.surroundings import Surroundings
from tests.model.symmetry import Symmetry
from tests.model.tables import Config, State, Tables

__all__ = ["Config", "Protocol", "State"]


class Protocol:
    """A `checker.System`."""

    def __init__(self, config: Config) -> None:
        self.tables = Tables(config)
        self._flight = Flight(self.tables)
        self._starts = Starts(self.tables, self._flight)
        self._surroundings = Surroundings(self.tables, self._flight)
        self.canonical = Symmetry(self.tables).canonical
        self._wrong: dict[tuple[object, ...], str | None] = {}

    def initial(self) -> State:
        """Pods that were just created, and tasks that nobody has looked at."""
        tables, config = self.tables, self.tables.config
        return State(
            pods=(tables.pods[PodObject()],) * config.pods,
            sites=(tables.fresh,) * config.pods,
            tasks=(tables.tasks[TaskObject()],) * config.tasks,
            lock=None,
            faults=config.faults,
            ops=(),
            late=(),
        )

    def successors(self, state: State) -> Iterator[Move[State]]:
        """Every step from a state."""
        yield from self._flight.go_on(state)
        yield from self._flight.late_arrive(state)
        yield from self._starts.moves(state)
        yield from self._surroundings.moves(state)
        yield from self._flight.leader_changes(state)

    def wrong(self, state: State) -> str | None:
        """The rule that a state breaks."""
        key = state[:4]
        try:
            return self._wrong[key]
        except KeyError:
            tables = self.tables
            found = self._wrong[key] = invariants.in_state(
                [tables.pods.of(n) for n in state.pods],
                [tables.sites.of(n) for n in state.sites],
                [tables.tasks.of(n) for n in state.tasks],
                state.lock,
            )
            return found

    def good(self, state: State) -> bool:
        """Every task is over, or waits for a lockKey that only a person may release; every Pod is gone."""
        tables = self.tables
        if state.ops or any(tables.pods.of(n).there for n in state.pods) or any(n != tables.dead for n in state.sites):
            return False
        kept = tables.kept_for_good(state)
        if state.lock is not None and not kept:
            return False
        for number, place in enumerate(state.tasks):
            task = tables.tasks.of(place)
            waits = task.phase is TaskPhase.QUEUED and not task.cancel
            if not (task.gone or (kept and (waits or number == state.lock))):
                return False
        return True
