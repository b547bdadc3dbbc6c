"""The one way to write a state down: Pods and tasks have the names that sort first.

Nothing in the protocol depends on what a Pod or a task is called (of tasks that wait for one lockKey, the model lets
any go first), so states that differ by names alone have the same future. Slots are sorted in `site.tidy`.
"""

from itertools import permutations

from tests.model import site as sites
from tests.model.tables import State, Tables


class Symmetry:
    """Renames what a state speaks of."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def canonical(self, state: State) -> State:
        """The state in the names that sort first."""
        if len(state.tasks) == 1:
            return self._sort_pods(state)
        shapes = [self._tables.remember(self._shape, n) for n in state.tasks]
        ordered = sorted(shapes)
        if len(set(shapes)) == len(shapes):
            order = tuple(sorted(range(len(shapes)), key=shapes.__getitem__))
            return self._sort_pods(self._rename_tasks(state, order))
        return min(
            self._sort_pods(self._rename_tasks(state, order))
            for order in permutations(range(len(shapes)))
            if [shapes[n] for n in order] == ordered
        )

    def _shape(self, number: int) -> tuple[int, bool]:
        """A task without the name of its Pod."""
        task = self._tables.tasks.of(number)
        return self._tables.tasks[task._replace(pod=None)], task.pod is not None

    def _sort_pods(self, state: State) -> State:
        if len(state.pods) == 1:
            return state
        pairs = list(zip(state.sites, state.pods, strict=True))
        ordered = sorted(pairs)
        if len(set(pairs)) == len(pairs):
            if pairs == ordered:
                return state
            return self._rename_pods(state, tuple(sorted(range(len(pairs)), key=pairs.__getitem__)))
        return min(
            self._rename_pods(state, order)
            for order in permutations(range(len(pairs)))
            if [pairs[n] for n in order] == ordered
        )

    def _rename_tasks(self, state: State, order: tuple[int, ...]) -> State:
        """The state in which the task that was `order[n]` is n."""
        if order == tuple(range(len(order))):
            return state
        tables = self._tables
        return State(
            state.pods,
            tuple([tables.remember(self._site, n, order) for n in state.sites]),
            tuple([state.tasks[old] for old in order]),
            None if state.lock is None else order.index(state.lock),
            state.faults,
            tuple(sorted([tables.remember(self._op_of_task, n, order) for n in state.ops])),
            tuple(sorted([tables.remember(self._op_of_task, n, order) for n in state.late])),
        )

    def _rename_pods(self, state: State, order: tuple[int, ...]) -> State:
        if order == tuple(range(len(order))):
            return state
        tables = self._tables
        return State(
            tuple([state.pods[old] for old in order]),
            tuple([state.sites[old] for old in order]),
            tuple([tables.remember(self._task_on_pod, n, order) for n in state.tasks]),
            state.lock,
            state.faults,
            tuple(sorted([tables.remember(self._op_on_pod, n, order) for n in state.ops])),
            tuple(sorted([tables.remember(self._op_on_pod, n, order) for n in state.late])),
        )

    def _site(self, number: int, order: tuple[int, ...]) -> int:
        names = {old: new for new, old in enumerate(order)}
        return self._tables.sites[sites.rename(self._tables.sites.of(number), names)]

    def _op_of_task(self, number: int, order: tuple[int, ...]) -> int:
        op = self._tables.ops.of(number)
        return number if op.task is None else self._tables.ops[op._replace(task=order.index(op.task))]

    def _op_on_pod(self, number: int, order: tuple[int, ...]) -> int:
        op = self._tables.ops.of(number)
        return number if op.pod is None else self._tables.ops[op._replace(pod=order.index(op.pod))]

    def _task_on_pod(self, number: int, order: tuple[int, ...]) -> int:
        task = self._tables.tasks.of(number)
        return number if task.pod is None else self._tables.tasks[task._replace(pod=order.index(task.pod))]
