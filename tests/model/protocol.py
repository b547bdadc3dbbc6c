"""The protocol as a graph of states: the API's objects, the agents, the leader's operations, and what is on its way.

Bounds and abstractions, and why they lose nothing: see the docstring of `tests.model.__main__`.
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from itertools import permutations
from typing import NamedTuple, TypeVar

from agent.wire import ErrorCode, Outcome, Phase, SlotState, Step
from controller.progress import Do, keeps_lock
from controller.task import TaskPhase
from controller.view import PodState
from tests.model import invariants
from tests.model import site as sites
from tests.model.checker import Move
from tests.model.objects import FINAL, PodObject, TaskObject, is_idle, next_step, parsed, plain
from tests.model.operations import (
    FIRST_STEP,
    GUARDED,
    POD_KINDS,
    READS,
    TO_AGENT,
    Local,
    Op,
    Rules,
    drain_number,
    step,
)
from tests.model.site import DEAD, Site, fresh_site, parse_task_id


@dataclass(frozen=True)
class Config:
    """The size of what is explored.

    `operations`: how many of the leader's are in flight at once. `faults`: how many of all kinds a run has. `late`: how
    many messages are on their way without a sender that waits for them. `bugs`: mistakes that are planted.
    """

    pods: int = 2
    slots: int = 2
    tasks: int = 2
    controllers: int = 2
    operations: int = 1
    faults: int = 1
    late: int = 1
    bugs: frozenset[str] = frozenset()


class State(NamedTuple):
    """Numbers stand for values, see `Numbers`. `ops` and `late` are sorted; `lock` is the task that holds it."""

    pods: tuple[int, ...]
    sites: tuple[int, ...]
    tasks: tuple[int, ...]
    lock: int | None
    faults: int
    ops: tuple[int, ...]
    late: tuple[int, ...]


V = TypeVar("V", bound=Hashable)


class Numbers(dict[V, int]):
    """Numbers for values, in the order in which they are met."""

    def __init__(self) -> None:
        super().__init__()
        self.values_by_number: list[V] = []

    def __missing__(self, value: V) -> int:
        number = len(self.values_by_number)
        self[value] = number
        self.values_by_number.append(value)
        return number

    def of(self, number: int) -> V:
        return self.values_by_number[number]


class _Change(NamedTuple):
    """What an operation's step changes, in numbers; None: nothing. `lock` counts if `news` says that it changed."""

    text: str
    op: int | None
    pod: int | None
    site: int | None
    task: int | None
    lock: int | None
    news: int
    wrong: str | None
    taken: bool


NEW_POD, NEW_TASK, NEW_LOCK, HEARD, RESTARTED, REPLACED = 1, 2, 4, 8, 16, 32
EVERYTHING = frozenset({"pod", "site", "task", "lock"})
USES: dict[tuple[str, str], frozenset[str]] = {
    **dict.fromkeys([("open", "label"), ("drain", "undo"), ("finish", "look")], frozenset({"pod"})),
    **dict.fromkeys([("drain", at) for at in ("read", "label", "delete")], frozenset({"pod"})),
    **dict.fromkeys([("delete starting", at) for at in ("read", "delete")], frozenset({"pod"})),
    **dict.fromkeys([("delete dead", at) for at in ("read", "delete")], frozenset({"pod"})),
    **dict.fromkeys([("open", "open"), ("drain", "ask"), ("drain", "confirm")], frozenset({"site"})),
    **dict.fromkeys([("assign", "acquire"), ("approve", "approve"), ("follow", "look again")], frozenset({"site"})),
    **dict.fromkeys(GUARDED, frozenset({"task"})),
    ("settle orphan", "judge"): frozenset({"task"}),
    ("settle orphan", "read"): frozenset({"site"}),
    **dict.fromkeys([("release lock", at) for at in ("read", "delete")], frozenset({"lock"})),
    ("assign", "lock"): frozenset({"lock"}),
}
"""What a step reads and writes, where that is not everything: what else there is can't matter to it."""

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

_BITS = {"pod": NEW_POD, "task": NEW_TASK, "lock": NEW_LOCK}


class Protocol:
    """A `checker.System`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.rules = Rules(config.bugs)
        self.pods: Numbers[PodObject] = Numbers()
        self.sites: Numbers[Site] = Numbers()
        self.tasks: Numbers[TaskObject] = Numbers()
        self.ops: Numbers[Op] = Numbers()
        self._memo: dict[object, object] = {}
        self._steps: dict[tuple[int, int, int, int, int | None, int], list[_Change]] = {}
        self._reactions: dict[tuple[int, int, int | None, int | None], int | None] = {}
        self._wrong: dict[object, str | None] = {}
        self._drains: list[int] = []
        self._bare: list[int] = []
        self._fresh = self.sites[fresh_site(config.slots)]
        self._dead = self.sites[DEAD]
        self._task_shape: dict[int, tuple[object, ...]] = {}

    # --- a System -------------------------------------------------------------------------------------------------

    def initial(self) -> State:
        """Pods that were just created, and tasks that nobody has looked at."""
        config = self.config
        return State(
            pods=(self.pods[PodObject()],) * config.pods,
            sites=(self._fresh,) * config.pods,
            tasks=(self.tasks[TaskObject()],) * config.tasks,
            lock=None,
            faults=config.faults,
            ops=(),
            late=(),
        )

    def wrong(self, state: State) -> str | None:
        """The rule that a state breaks."""
        key = state[:4]
        try:
            return self._wrong[key]
        except KeyError:
            found = self._wrong[key] = invariants.in_state(
                [self.pods.of(n) for n in state.pods],
                [self.sites.of(n) for n in state.sites],
                [self.tasks.of(n) for n in state.tasks],
                state.lock,
            )
            return found

    def good(self, state: State) -> bool:
        """Every task ended, or waits for a lockKey that only a person may release; every Pod is gone."""
        if state.ops:
            return False
        if any(self.pods.of(n).there for n in state.pods) or any(n != self._dead for n in state.sites):
            return False
        kept = self._kept(state)
        if state.lock is not None and not kept:
            return False
        return all(
            (task := self.tasks.of(n)).gone
            or (kept and ((task.phase is TaskPhase.QUEUED and not task.cancel) or number == state.lock))
            for number, n in enumerate(state.tasks)
        )

    def _kept(self, state: State) -> bool:
        """Whether the lockKey stays held until a person says otherwise."""
        if state.lock is None:
            return False
        task = self.tasks.of(state.tasks[state.lock])
        return task.final and not task.gone and keeps_lock(parsed(task, state.lock))

    def _needed(self, state: State) -> bool:
        """Whether a task waits for a Pod."""
        if self._kept(state):
            return False
        return any((task := self.tasks.of(n)).phase is TaskPhase.QUEUED and not task.cancel for n in state.tasks)

    # --- canonical ------------------------------------------------------------------------------------------------

    def canonical(self, state: State) -> State:
        """The state in the names that sort first."""
        if self.config.tasks == 1:
            candidates = [state]
        else:
            shapes = [self._shape(n) for n in state.tasks]
            order = sorted(range(len(shapes)), key=shapes.__getitem__)
            first = self._rename_tasks(state, order)
            candidates = [first]
            if len(order) > 1 and len(set(shapes)) < len(shapes):
                candidates = [
                    self._rename_tasks(state, list(names))
                    for names in permutations(range(len(shapes)))
                    if [shapes[n] for n in names] == sorted(shapes)
                ]
        return min(self._sort_pods(candidate) for candidate in candidates)

    def _shape(self, number: int) -> tuple[object, ...]:
        try:
            return self._task_shape[number]
        except KeyError:
            task = self.tasks.of(number)
            shape = self._task_shape[number] = (self.tasks[task._replace(pod=None)], task.pod is not None)
            return shape

    def _rename_tasks(self, state: State, order: list[int]) -> State:
        """The state in which the task that was `order[n]` is n."""
        if order == sorted(order):
            return state
        names = {old: new for new, old in enumerate(order)}
        return State(
            state.pods,
            tuple(self._remember(("site", n, *order), lambda n=n: self._renamed_site(n, names)) for n in state.sites),
            tuple(state.tasks[old] for old in order),
            None if state.lock is None else names[state.lock],
            state.faults,
            tuple(sorted(self._remember(("op t", n, *order), lambda n=n: self._op_task(n, names)) for n in state.ops)),
            tuple(sorted(self._remember(("op t", n, *order), lambda n=n: self._op_task(n, names)) for n in state.late)),
        )

    def _sort_pods(self, state: State) -> State:
        if len(state.pods) == 1:
            return state
        pairs = list(zip(state.sites, state.pods, strict=True))
        ordered = sorted(pairs)
        if len(set(pairs)) == len(pairs):
            if pairs == ordered:
                return state
            order = sorted(range(len(pairs)), key=pairs.__getitem__)
            return self._rename_pods(state, order)
        return min(
            self._rename_pods(state, list(order))
            for order in permutations(range(len(pairs)))
            if [pairs[n] for n in order] == ordered
        )

    def _rename_pods(self, state: State, order: list[int]) -> State:
        if order == sorted(order):
            return state
        names = {old: new for new, old in enumerate(order)}
        return State(
            tuple(state.pods[old] for old in order),
            tuple(state.sites[old] for old in order),
            tuple(self._remember(("task p", n, *order), lambda n=n: self._task_pod(n, names)) for n in state.tasks),
            state.lock,
            state.faults,
            tuple(sorted(self._remember(("op p", n, *order), lambda n=n: self._op_pod(n, names)) for n in state.ops)),
            tuple(sorted(self._remember(("op p", n, *order), lambda n=n: self._op_pod(n, names)) for n in state.late)),
        )

    def _remember(self, key: object, make: Callable[[], int]) -> int:
        try:
            return self._memo[key]  # type: ignore[return-value]
        except KeyError:
            made = self._memo[key] = make()
            return made

    def _renamed_site(self, number: int, names: dict[int, int]) -> int:
        return self.sites[sites.rename(self.sites.of(number), names)]

    def _op_task(self, number: int, names: dict[int, int]) -> int:
        op = self.ops.of(number)
        return number if op.task is None else self.ops[op._replace(task=names[op.task])]

    def _op_pod(self, number: int, names: dict[int, int]) -> int:
        op = self.ops.of(number)
        return number if op.pod is None else self.ops[op._replace(pod=names[op.pod])]

    def _task_pod(self, number: int, names: dict[int, int]) -> int:
        task = self.tasks.of(number)
        return number if task.pod is None else self.tasks[task._replace(pod=names[task.pod])]

    # --- successors -----------------------------------------------------------------------------------------------

    def successors(self, state: State) -> Iterator[Move[State]]:
        """Every step from a state."""
        yield from self._operations_go_on(state)
        yield from self._late_arrive(state)
        yield from self._operations_start(state)
        yield from self._sites_go_on(state)
        yield from self._api_goes_on(state)
        yield from self._people(state)
        yield from self._unlocked(state)
        if state.faults:
            yield from self._leader_changes(state)

    def _operations_go_on(self, state: State) -> Iterator[Move[State]]:
        for place, number in enumerate(state.ops):
            rest = state.ops[:place] + state.ops[place + 1 :]
            yield from self._operation_goes_on(state, number, rest)

    def _operation_goes_on(self, state: State, number: int, rest: tuple[int, ...]) -> Iterator[Move[State]]:
        """The next step of an operation; `rest` are the others in flight."""
        if True:
            op = self.ops.of(number)
            prefix = f"leader, {_name(op)}: "
            is_write = (op.kind, op.at) not in READS
            for change in self._effects(state, number, op):
                text = prefix + change.text
                yield self._apply(state, op, change, rest, state.late, change.op, text, fair=True)
                if not (is_write and state.faults and change.taken):
                    continue
                if change.op is not None:
                    lost = text + "; the answer is lost"
                    yield self._apply(state, op, change, rest, state.late, None, lost, fair=False, cost=1)
                if "stamp" in self.rules.bugs and (op.kind, op.at) in TO_AGENT and len(state.late) < self.config.late:
                    copy = (*state.late, self.ops[op._replace(late=True)])
                    text += "; a copy of the message is still on its way"
                    yield self._apply(state, op, change, rest, copy, change.op, text, fair=False, cost=1)
            if is_write and state.faults and len(state.late) < self.config.late:
                late = tuple(sorted((*state.late, self.ops[_late(op)])))
                text = prefix + f"sends '{op.at}', which is held up on its way; gives up waiting"
                reached = state._replace(ops=rest, late=late, faults=state.faults - 1)
                yield Move(text, False, self._tidy(reached))
                if "another agent" in self.rules.bugs and op.kind == "assign" and op.at == "acquire":
                    for other in range(self.config.pods):
                        if other != op.pod and self.pods.of(state.pods[other]).label is PodState.ACTIVE:
                            moved = self.ops[op._replace(pod=other, at="ask again")]
                            text = prefix + f"gets no answer to 'acquire', and turns to Pod {other}"
                            reached = state._replace(
                                ops=tuple(sorted((*rest, moved))), late=late, faults=state.faults - 1
                            )
                            yield Move(text, False, self._tidy(reached))

    def _effects(self, state: State, number: int, op: Op) -> list[_Change]:
        pod = op.pod if op.pod is not None else 0
        task = op.task if op.task is not None else 0
        place = (op.kind, op.at)
        uses = EVERYTHING if self.rules.bugs else USES.get(place, EVERYTHING)
        free = self._free_drain(state, pod) if op.kind == "drain" and (self.rules.bugs or op.at == "read") else 0
        key = (
            number,
            state.pods[pod] if "pod" in uses else -1,
            state.sites[pod] if "site" in uses else -1,
            state.tasks[task] if "task" in uses else -1,
            state.lock if "lock" in uses else None,
            free,
        )
        try:
            return self._steps[key]
        except KeyError:
            pass
        now = Local(
            self.pods.of(key[1]) if key[1] >= 0 else PodObject(),
            self.sites.of(key[2]) if key[2] >= 0 else DEAD,
            self.tasks.of(key[3]) if key[3] >= 0 else TaskObject(),
            key[4],
        )
        made = []
        for effect in step(op, now, self.rules._replace(free_drain=free)):
            local = effect.local
            news = sum(_BITS[name] for name in set(local.bumped)) | (HEARD if local.heard else 0)
            following = None if effect.op is None else self.ops[_trim(effect.op)]
            changed = _Change(
                effect.text,
                following,
                self.pods[local.pod] if local.pod != now.pod else None,
                self.sites[local.site] if local.site != now.site else None,
                self.tasks[local.task] if local.task != now.task else None,
                local.lock,
                news,
                local.wrong,
                effect.taken,
            )
            made.append(changed)
        self._steps[key] = made
        return made

    def _free_drain(self, state: State, pod: int) -> int:
        agent = self.sites.of(state.sites[pod]).agent
        used = {drain_number(agent.drain_id) if agent else -1, 0}
        for number in (*state.ops, *state.late):
            op = self.ops.of(number)
            if op.pod == pod:
                used.add(op.drain)
        return next(n for n in range(1, 9) if n not in used)

    def _apply(
        self,
        state: State,
        op: Op,
        change: _Change,
        ops: tuple[int, ...],
        late: tuple[int, ...],
        following: int | None,
        text: str,
        *,
        fair: bool,
        cost: int = 0,
    ) -> Move[State]:
        pods, places, objects = state.pods, state.sites, state.tasks
        lock = change.lock if change.news & NEW_LOCK else state.lock
        if op.pod is not None and change.pod is not None:
            pods = _put(pods, op.pod, change.pod)
        if op.pod is not None and change.site is not None:
            places = _put(places, op.pod, change.site)
        if op.task is not None and change.task is not None:
            objects = _put(objects, op.task, change.task)
        if change.news:
            ops = self._react(ops, change.news, op.pod, op.task)
            late = self._react(late, change.news, op.pod, op.task)
        if following is not None:
            ops = tuple(sorted((*ops, following)))
        reached = State(pods, places, objects, lock, state.faults - cost, ops, late)
        return Move(text, fair, self._tidy(reached), change.wrong)

    def _react(self, numbers: tuple[int, ...], news: int, pod: int | None, task: int | None) -> tuple[int, ...]:
        """What operations in flight, and messages on their way, become by what happened."""
        if not numbers:
            return numbers
        left = []
        for number in numbers:
            key = (number, news, pod, task)
            try:
                after = self._reactions[key]
            except KeyError:
                reaction = _reaction(self.ops.of(number), news, pod, task, self.rules)
                after = self._reactions[key] = None if reaction is None else self.ops[reaction]
            if after is not None:
                left.append(after)
        return tuple(sorted(left))

    def _tidy(self, state: State) -> State:
        """Drain ids that nobody else knows are all the same; what only a further fault could bring up is dropped."""
        if not state.faults:
            bare = self._bare
            places = state.sites
            for number in places:
                while number >= len(bare):
                    bare.append(self.sites[sites.bare(self.sites.of(len(bare)))])
            state = State(
                state.pods, tuple([bare[n] for n in places]), state.tasks, state.lock, 0, state.ops, state.late
            )
        drains = self._drains
        for pod, number in enumerate(state.sites):
            while number >= len(drains):
                drains.append(self._drain_of(len(drains)))
            if drains[number] > 0 and all(
                self.ops.of(n).pod != pod or self.ops.of(n).drain < 1 for n in (*state.ops, *state.late)
            ):
                renamed = self._remember(("drain 1", number), lambda n=number: self._first_drain(n))
                state = state._replace(sites=_put(state.sites, pod, renamed))
        return state

    def _drain_of(self, number: int) -> int:
        agent = self.sites.of(number).agent
        return -1 if agent is None else drain_number(agent.drain_id)

    def _first_drain(self, number: int) -> int:
        site = self.sites.of(number)
        if site.agent is None:
            return number
        return self.sites[site._replace(agent=site.agent._replace(drain_id="born"))]

    def _late_arrive(self, state: State) -> Iterator[Move[State]]:
        for place, number in enumerate(state.late):
            op = self.ops.of(number)
            rest = state.late[:place] + state.late[place + 1 :]
            for change in self._effects(state, number, op):
                text = f"late, from {_name(op)}: {change.text}"
                yield self._apply(state, op, change, state.ops, rest, None, text, fair=False)

    def _leader_changes(self, state: State) -> Iterator[Move[State]]:
        """Another replica leads. Of what the old one had in flight, writes that were sent may still arrive."""
        if not state.ops:
            return
        writes = [n for n in state.ops if (self.ops.of(n).kind, self.ops.of(n).at) not in READS]
        room = self.config.late - len(state.late) if self.config.controllers > 1 else 0
        choices: list[tuple[int, ...]] = [()]
        for number in writes:
            choices += [(*chosen, number) for chosen in choices if len(chosen) < room]
        for chosen in choices:
            late = tuple(sorted((*state.late, *(self.ops[_late(self.ops.of(n))] for n in chosen))))
            text = "another replica takes over"
            if chosen:
                told = ", ".join(f"'{self.ops.of(n).at}' of {_name(self.ops.of(n))}" for n in chosen)
                text += f"; of the old leader, {told} is still on its way"
            yield Move(text, False, self._tidy(state._replace(ops=(), late=late, faults=state.faults - 1)))

    # --- what starts ------------------------------------------------------------------------------------------------

    def _operations_start(self, state: State) -> Iterator[Move[State]]:
        if len(state.ops) >= self.config.operations:
            return
        keys = {self.ops.of(n).key for n in state.ops}
        needed = self._needed(state)
        for text, fair, op in self._candidates(state, needed=needed):
            started = self.ops.of(op)
            if started.key in keys:
                continue
            if (started.kind, started.at) in AT_ONCE:
                for move in self._operation_goes_on(state, op, state.ops):
                    if move.state != state:
                        yield move if fair else move._replace(fair=False)
            else:
                yield Move(text, fair, self._tidy(state._replace(ops=tuple(sorted((*state.ops, op))))))

    def _candidates(self, state: State, *, needed: bool) -> Iterator[tuple[str, bool, int]]:
        for pod, (obj, site) in enumerate(zip(state.pods, state.sites, strict=True)):
            key = ("pod ops", pod, obj, site, needed)
            if key not in self._memo:
                self._memo[key] = [
                    (f"leader starts {_name(op)}", fair, self.ops[op])
                    for fair, op in self._pod_operations(pod, self.pods.of(obj), self.sites.of(site), needed=needed)
                ]
            yield from self._memo[key]  # type: ignore[misc]
            key = ("orphans", pod, site, state.tasks)  # type: ignore[assignment]
            if key not in self._memo:
                self._memo[key] = [
                    (f"leader starts {_name(op)}", True, self.ops[op])
                    for op in self._orphans(pod, self.sites.of(site), [self.tasks.of(n) for n in state.tasks])
                ]
            if self.pods.of(obj).there and not self.pods.of(obj).proof:
                yield from self._memo[key]  # type: ignore[misc]
        placed = [self.tasks.of(n).phase not in {TaskPhase.QUEUED, *FINAL} for n in state.tasks]
        for number, task in enumerate(state.tasks):
            where = self.tasks.of(task).pod
            key = (  # type: ignore[assignment]
                "task ops",
                number,
                task,
                state.pods[where] if where is not None else None,
                state.sites[where] if where is not None else None,
                state.lock == number,
            )
            if key not in self._memo:
                self._memo[key] = [
                    (f"leader starts {_name(op)}", fair, self.ops[_trim(op)])
                    for fair, op in self._task_operations(number, state)
                ]
            yield from self._memo[key]  # type: ignore[misc]
            obj = self.tasks.of(task)
            turn = state.lock == number or (state.lock is None and not any(placed))
            if obj.phase is TaskPhase.QUEUED and not obj.cancel and turn:
                for pod in range(self.config.pods):
                    if self._takes_work(state.pods[pod], state.sites[pod]):
                        op = Op("assign", "lock", pod, number, obj.attempt)
                        if "acquire first" in self.rules.bugs:
                            op = op._replace(attempt=max(1, obj.attempt))
                        yield f"leader starts {_name(op)}", True, self.ops[op]

    def _takes_work(self, pod: int, site: int) -> bool:
        obj, agent = self.pods.of(pod), self.sites.of(site).agent
        if agent is None or not obj.there or obj.deleting or obj.proof or obj.label is not PodState.ACTIVE:
            return False
        return agent.phase is Phase.OPEN and any(slot.state is SlotState.IDLE for slot in agent.slots)

    def _pod_operations(self, pod: int, obj: PodObject, site: Site, *, needed: bool) -> Iterator[tuple[bool, Op]]:
        agent = site.agent
        if not obj.there:
            return
        if obj.deleting:
            return
        if obj.proof or (obj.failed and "failed is proof" in self.rules.bugs):
            yield True, Op("delete dead", "read", pod)
            return
        heard = agent is not None
        idle = heard and is_idle(site)
        drained = agent is not None and agent.phase is Phase.DRAINED
        drain = drain_number(agent.drain_id) if agent is not None and drained else -1
        if obj.label is PodState.STARTING:
            if idle or not heard:
                yield not needed, Op("delete starting", "read", pod)
        elif idle or ("silence" in self.rules.bugs and heard):
            known = ("draining",) if obj.label is PodState.DRAINING else ()
            at = "ask" if "version late" in self.rules.bugs else "read"
            yield not needed, Op("drain", at, pod, known=known)
        if obj.label is PodState.DRAINING:
            if heard:
                yield needed or not idle, Op("open", "label", pod, drain=drain)
        elif agent is not None and drained and not agent.recovering:
            yield needed or obj.label is PodState.ACTIVE, Op("open", "label", pod, drain=drain)

    def _task_operations(self, number: int, state: State) -> Iterator[tuple[bool, Op]]:
        task = self.tasks.of(state.tasks[number])
        if task.gone:
            return
        where = task.pod
        pod = self.pods.of(state.pods[where]) if where is not None else None
        site = self.sites.of(state.sites[where]) if where is not None else None
        locked = state.lock == number
        seen = []
        views = [(pod, site, True)]
        if site is not None and site.agent is not None:
            # An older report: nothing held yet. What an operation does about it, it does on live answers.
            views.append((pod, Site(site.agent._replace(slots=fresh_site(1).agent.slots, tasks=())), False))  # type: ignore[union-attr]
        for seen_pod, seen_site, exact in views:
            for buried in {False, bool(pod and pod.buried)}:
                action = next_step(number, task, seen_pod, seen_site, locked=locked, buried=buried)
                op = self._operation(number, task, action.do, action.phase, gone_first=action.if_pod_gone)
                if "lost unlocks" in self.rules.bugs and task.phase is TaskPhase.LOST and locked:
                    op = Op("release lock", "read", task=number)
                if op is not None and op not in seen:
                    seen.append(op)
                    yield exact, op
        if "approval unbound" in self.rules.bugs and task.phase is TaskPhase.AWAITING_APPROVAL and task.approval:
            yield True, Op("approve", "intend", where, number, task.attempt)

    def _operation(
        self, number: int, task: TaskObject, do: Do, phase: TaskPhase | None, *, gone_first: bool
    ) -> Op | None:
        pod, attempt = task.pod, task.attempt
        match do:
            case Do.ACQUIRE:
                at = "acquire" if "ask at once" in self.rules.bugs else "ask again"
                return Op("assign", at, pod, number, attempt)
            case Do.FOLLOW:
                return Op("follow", "read", pod, number, attempt)
            case Do.APPROVE:
                waits = task.phase is TaskPhase.AWAITING_APPROVAL
                at = "intend" if waits else "intend again"
                if "approve first" in self.rules.bugs or (not waits and "approve at once" in self.rules.bugs):
                    at = "approve"
                return Op("approve", at, pod, number, attempt)
            case Do.CANCEL:
                known = ("assigned",) if task.phase is TaskPhase.ASSIGNED else ()
                return Op("cancel", "cancel", pod, number, attempt, known=known)
            case Do.RETRY:
                return Op("retry", "write", pod, number, attempt)
            case Do.FINISH:
                at = "look" if gone_first and pod is not None else "write"
                return Op("finish", at, pod, number, attempt, known=(phase,))
            case Do.ACK:
                return Op("ack", "ack", pod, number, attempt)
            case Do.RELEASE_LOCK:
                return Op("release lock", "read", task=number)
        return None

    def _orphans(self, pod: int, site: Site, objects: list[TaskObject]) -> Iterator[Op]:
        agent = site.agent
        if agent is None:
            return
        for known in agent.tasks:
            number, attempt = parse_task_id(known.task_id)
            task = objects[number]
            mine = not task.gone and task.attempt == attempt and task.pod == pod
            if mine and (not task.final or known.outcome is not None):
                continue
            yield Op("settle orphan", "read", pod, number, attempt)

    # --- what happens besides ---------------------------------------------------------------------------------------

    def _sites_go_on(self, state: State) -> Iterator[Move[State]]:
        for pod, site in enumerate(state.sites):
            if site == self._dead:
                continue
            key = ("site", site, state.tasks)
            if key not in self._memo:
                self._memo[key] = list(self._site_events(self.sites.of(site), [self.tasks.of(n) for n in state.tasks]))
            for text, fair, cost, after, number, task, news, wrong in self._memo[key]:  # type: ignore[attr-defined]
                if cost > state.faults:
                    continue
                objects = state.tasks if number is None else _put(state.tasks, number, task)
                if news:
                    objects = tuple(self._untold(n, pod) for n in objects)
                reached = State(
                    state.pods,
                    _put(state.sites, pod, after),
                    objects,
                    state.lock,
                    state.faults - cost,
                    self._react(state.ops, news, pod, None) if news else state.ops,
                    self._react(state.late, news, pod, None) if news else state.late,
                )
                if not news or reached != state._replace(faults=reached.faults):
                    yield Move(f"Pod {pod}: {text}", fair, self._tidy(reached), wrong)

    def _without(self, site: int, task: int) -> int:
        return self.sites[sites.without(self.sites.of(site), task)]

    def _untold(self, number: int, pod: int) -> int:
        task = self.tasks.of(number)
        return self.tasks[task._replace(told=False)] if task.told and task.pod == pod else number

    def _site_events(
        self, site: Site, objects: list[TaskObject]
    ) -> Iterator[tuple[str, bool, int, int, int | None, int, int, str | None]]:
        """Text, whether it comes by itself, its cost in faults, the site after, a task after, news, what is wrong."""
        bugs = self.rules.bugs
        agent = site.agent
        if agent is None:
            return

        def event(
            text: str, result: sites.Result, *, fair: bool = True, cost: int = 0
        ) -> tuple[str, bool, int, int, int | None, int, int, str | None]:
            wrong = invariants.at_transition(result.slot_events, site)
            return text, fair, cost, self.sites[result.site], None, 0, 0, wrong

        for task in sites.waiting(site):
            number, attempt = parse_task_id(task.task_id)
            if sites.marked(site, task) and "no marker" not in bugs:
                again = sites.offered_again(site, task)
                if again.site != site:
                    yield event(f"the worker is offered {task.task_id} again, and reports how it went", again)
                continue
            if sites.busy(site, task.slot):
                continue
            result = sites.begin(site, task)
            if task.cancel_requested:
                yield event(f"the worker claims the cancelled {task.step} of {task.task_id}", result)
                continue
            obj = objects[number]
            wrong = invariants.at_start(obj, attempt, task.step)
            after = self.tasks[plain(obj._replace(began=obj.began | {(attempt, task.step)}))]
            text = f"the {task.step} of {task.task_id} starts"
            yield text, True, 0, self.sites[result.site], number, after, 0, wrong
        for slot, place in enumerate(site.kept):
            for kept in place:
                if kept.outcome is None:
                    # What an apply ended with, and whether a step failed or was cancelled, makes no difference.
                    outcomes = [Outcome.FAILED]
                    if kept.step is Step.PLAN:
                        outcomes.append(Outcome.SUCCEEDED)
                    for outcome in outcomes:
                        text = f"the {kept.step} of {kept.task_id} ends: {outcome}"
                        result = sites.end(site, slot, outcome)
                        if "reserve late" in bugs and kept.step is Step.PLAN and outcome is Outcome.SUCCEEDED:
                            result = _not_reserved(site, result, slot)
                        yield event(text, result)
                    text = f"the worker of {kept.task_id} is killed; the next one finds that nothing of it runs"
                    if slot not in agent.recovering:
                        yield event(text, sites.end(site, slot, Outcome.LOST), fair=False, cost=1)
        for slot in agent.recovering:
            names = ", ".join(kept.task_id for kept in site.kept[slot]) or "nothing"
            yield event(f"a worker registers, which keeps {names}", sites.register(site, slot))
        for slot in sites.reserved(site):
            yield event(f"the reservation of {agent.slots[slot].task_id} expires", sites.expire(site, slot))
        for name in sorted(sites.forgettable(site)):
            yield event(f"the worker removes the directory of {name}", sites.Result(sites.forgotten(site, {name})))
        here = self.sites[site]
        yield "the agent restarts", False, 1, here, None, 0, RESTARTED, None
        if "born open" in bugs:
            site_after = sites.lose_journal(site)
            if site_after.agent is not None:
                born = site_after.agent._replace(phase=Phase.OPEN, drain_id=None, recovering=())
                text = "the agent restarts, its journal lost, open"
                yield text, False, 1, self.sites[Site(born, site_after.kept)], None, 0, RESTARTED, None
        else:
            lost = self.sites[sites.lose_journal(site)]
            yield "the agent restarts, its journal lost", False, 1, lost, None, 0, RESTARTED, None

    def _api_goes_on(self, state: State) -> Iterator[Move[State]]:
        for pod, (number, site) in enumerate(zip(state.pods, state.sites, strict=True)):
            obj = self.pods.of(number)
            alive = site != self._dead
            if obj.there:
                touched = self._changed(state, pod, number, site, NEW_POD)
                if touched != state:
                    yield Move(f"the kubelet writes the status of Pod {pod}", False, touched)
                if not alive and not obj.proof:
                    proof = self.pods[obj._replace(proof=True)]
                    yield Move(
                        f"the end of Pod {pod} becomes known", True, self._changed(state, pod, proof, site, NEW_POD)
                    )
                if obj.deleting and (alive or obj.proof):
                    gone = self.pods[obj._replace(there=False)]
                    reached = self._changed(state, pod, gone, self._dead, NEW_POD | RESTARTED)
                    yield Move(f"Pod {pod} is ended, and gone", True, reached)
                if alive and state.faults:
                    fewer = state._replace(faults=state.faults - 1)
                    crashed = self._changed(fewer, pod, number, self._dead, RESTARTED)
                    yield Move(f"all of Pod {pod} dies with its node", False, crashed)
                    gone = self.pods[obj._replace(there=False)]
                    vanished = self._changed(fewer, pod, gone, site, NEW_POD)
                    yield Move(f"Pod {pod} vanishes from the API; its processes go on", False, vanished)
                    if "failed is proof" in self.rules.bugs and not obj.failed:
                        failed = self.pods[obj._replace(failed=True)]
                        yield Move(
                            f"the garbage collector writes Failed over Pod {pod}, which runs",
                            False,
                            self._changed(fewer, pod, failed, site, NEW_POD),
                        )
            elif alive:
                yield Move(
                    f"what was left of Pod {pod} ends", True, self._changed(state, pod, number, self._dead, RESTARTED)
                )
            elif self._may_create(state, pod):
                fresh = self._changed(state, pod, self.pods[PodObject()], self._fresh, REPLACED)
                objects = tuple(self._without_pod(n, pod) for n in fresh.tasks)
                yield Move(f"a Pod is created in the place of Pod {pod}", True, fresh._replace(tasks=objects))

    def _may_create(self, state: State, pod: int) -> bool:
        if not self._needed(state):
            return False
        if any(self.ops.of(n).pod == pod for n in state.ops):
            return False
        return all((task := self.tasks.of(n)).pod != pod or task.final for n in state.tasks)

    def _without_pod(self, number: int, pod: int) -> int:
        task = self.tasks.of(number)
        return self.tasks[task._replace(pod=None)] if task.pod == pod else number

    def _changed(self, state: State, pod: int, obj: int, site: int, news: int) -> State:
        objects = state.tasks
        if news & (RESTARTED | REPLACED):
            objects = tuple(self._untold(n, pod) for n in objects)
        return self._tidy(
            State(
                _put(state.pods, pod, obj),
                _put(state.sites, pod, site),
                objects,
                state.lock,
                state.faults,
                self._react(state.ops, news, pod, None),
                self._react(state.late, news, pod, None),
            )
        )

    def _people(self, state: State) -> Iterator[Move[State]]:
        for number, place in enumerate(state.tasks):
            task = self.tasks.of(place)
            if task.gone:
                continue
            for text, fair, after in self._of_people(number, task, locked=state.lock == number):
                objects = _put(state.tasks, number, self.tasks[after])
                places = state.sites
                if after.gone:
                    places = tuple(
                        self._remember(("acked", n, number), lambda n=n: self._without(n, number)) for n in places
                    )
                ops = self._react(state.ops, NEW_TASK, None, number)
                late = self._react(state.late, NEW_TASK, None, number)
                yield Move(text, fair, self._tidy(state._replace(sites=places, tasks=objects, ops=ops, late=late)))

    def _unlocked(self, state: State) -> Iterator[Move[State]]:
        """`podslots unlock`, of a lockKey whose task is gone: see docs/protocol.md."""
        if state.lock is not None and self.tasks.of(state.tasks[state.lock]).gone:
            ops = self._react(state.ops, NEW_LOCK, None, None)
            late = self._react(state.late, NEW_LOCK, None, None)
            yield Move("a person unlocks the key of a task that is gone", True, state._replace(lock=None, ops=ops, late=late))

    def _of_people(self, number: int, task: TaskObject, *, locked: bool) -> Iterator[tuple[str, bool, TaskObject]]:
        if task.final:
            if not locked:
                ended = plain(task._replace(gone=True))
                yield f"task {number} is deleted, its time to live over", True, ended
            return
        if not task.cancel:
            yield f"a person cancels task {number}", False, task._replace(cancel=True)
        for attempt in sorted(task.seen):
            changeable = not (task.planned and task.approval == task.attempt)
            if task.approval != attempt and changeable:
                after = task._replace(approval=attempt, approved=task.approved | {attempt})
                yield f"a person approves the plan of attempt {attempt} of task {number}", False, after


def _not_reserved(before: Site, after: sites.Result, slot: int) -> sites.Result:
    """Planted: the slot falls idle as the plan ends, to be reserved a moment later. So a drain gets between."""
    del slot
    if after.site.agent is None or before.agent is None:
        return after
    agent = after.site.agent
    slots = tuple(
        type(s)(id=s.id, since=s.since) if s.state is SlotState.RESERVED else s for s in agent.slots
    )
    return sites.Result(sites.tidy(after.site._replace(agent=agent._replace(slots=slots, tasks=()))))


def _put(values: tuple[int, ...], place: int, value: int) -> tuple[int, ...]:
    if values[place] == value:
        return values
    return (*values[:place], value, *values[place + 1 :])


def _name(op: Op) -> str:
    subject = op.kind
    if op.kind == "assign" and op.at == "ask again":
        subject = "ask again"
    if op.task is not None:
        subject += f" task {op.task}" + (f" attempt {op.attempt}" if op.kind == "settle orphan" else "")
    if op.pod is not None and (op.task is None or op.kind in {"assign", "settle orphan"}):
        subject += f" Pod {op.pod}" if op.task is None else f" on Pod {op.pod}"
    return subject


def _late(op: Op) -> Op:
    return op._replace(late=True, known=op.known if (op.kind, op.at) in {("finish", "write"), ("follow", "write")} else ())


_NO_GUARD_AHEAD = {("follow", "ack"), ("approve", "approve"), ("ack", "ack"), ("drain", "undo")}


def _trim(op: Op) -> Op:
    """An operation without what it does not need any more."""
    place = (op.kind, op.at)
    if op.kind in {"open", "settle orphan"} or place in _NO_GUARD_AHEAD:
        op = op._replace(fresh=True)
    if place in {("follow", "ack"), ("cancel", "write"), ("cancel", "finish")} and op.known:
        op = op._replace(known=())
    return op


def _reaction(op: Op, news: int, pod: int | None, task: int | None, rules: Rules) -> Op | None:
    """What an operation in flight, or a message on its way, becomes by news about its objects; None: nothing."""
    place = (op.kind, op.at)
    to_agent = place in TO_AGENT
    if pod is not None and op.pod == pod:
        if news & REPLACED and op.late and "pod uid" not in rules:
            return None
        if op.late and to_agent and news & HEARD and "stamp" not in rules:
            return None  # its stamp is below one that was seen
        if news & RESTARTED and "incarnation" not in rules:
            if to_agent and not ("silence" in rules and op.kind == "drain"):
                return None  # it names the incarnation before
            op = op._replace(same_agent=False)
        if news & NEW_POD and op.kind in POD_KINDS and op.kind != "open" and op.at != "undo":
            op = op._replace(fresh=False)
            if op.at in {"label", "delete"}:
                if op.late or op.kind != "drain":
                    return None
                if "no confirm" not in rules:
                    op = op._replace(at="read", fresh=True)
            elif op.at == "read":
                op = op._replace(fresh=True)
    if news & NEW_TASK and task is not None and op.task == task and op.kind not in {"settle orphan", "release lock"}:
        if place in GUARDED or op.at in FIRST_STEP.get(op.kind, ()):
            return None
        op = _trim(op._replace(fresh=False))
    if news & NEW_LOCK and op.kind == "release lock" and op.at == "delete":
        return None
    return op
