"""Operations in flight, and messages on their way: how they go on, and what news of their objects makes of them."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from controller.decide.view import PodState
from tests.model import site as sites
from tests.model.checker import Move
from tests.model.effects import GUARDED, LEADS_TO_A_GUARDED_WRITE, POD_KINDS, READS, TO_AGENT, Local, Op, drain_number
from tests.model.objects import PodObject, TaskObject
from tests.model.operations import step
from tests.model.site import DEAD
from tests.model.tables import State, Tables, put

NEW_POD, NEW_TASK, NEW_LOCK, HEARD, HEARD_NEWER, RESTARTED, REPLACED = 1, 2, 4, 8, 16, 32, 64
"""News: a new version of an object; a stamped message reached the agent, one of the present leader; the agent began
anew; the Pod is another one."""

_BITS = {"pod": NEW_POD, "task": NEW_TASK, "lock": NEW_LOCK}
_EVERYTHING = frozenset({"pod", "site", "task", "lock"})
_USES: dict[tuple[str, str], frozenset[str]] = {
    **dict.fromkeys([("open", "label"), ("drain", "undo"), ("finish", "look")], frozenset({"pod"})),
    **dict.fromkeys([("drain", at) for at in ("read", "label", "delete")], frozenset({"pod"})),
    **dict.fromkeys([("delete starting", at) for at in ("read", "delete")], frozenset({"pod"})),
    **dict.fromkeys([("delete dead", at) for at in ("read", "delete")], frozenset({"pod"})),
    **dict.fromkeys([("open", "open"), ("drain", "ask"), ("drain", "confirm")], frozenset({"site"})),
    **dict.fromkeys([("approve", "approve"), ("follow", "look again")], frozenset({"site"})),
    ("assign", "acquire"): frozenset({"site", "pod"}),
    **dict.fromkeys(GUARDED, frozenset({"task"})),
    ("settle orphan", "judge"): frozenset({"task"}),
    ("settle orphan", "read"): frozenset({"site"}),
    **dict.fromkeys([("release lock", at) for at in ("read", "delete")], frozenset({"lock"})),
    ("assign", "lock"): frozenset({"lock"}),
}
"""What a step reads and writes, where that is not everything. It is worked out once for all that is alike in these."""


class Change(NamedTuple):
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


class Flight:
    """Moves operations."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._config = tables.config
        self._rules = tables.rules
        self._steps: dict[tuple[int, int, int, int, int | None, int], list[Change]] = {}
        self._reactions: dict[tuple[int, int, int | None, int | None], int | None] = {}
        self._drains: list[int] = []
        self._bare: list[int] = []

    # --- how they go on ---------------------------------------------------------------------------------------------

    def go_on(self, state: State) -> Iterator[Move[State]]:
        """The next step of each."""
        for place, number in enumerate(state.ops):
            yield from self.next_step(state, number, state.ops[:place] + state.ops[place + 1 :])

    def next_step(self, state: State, number: int, rest: tuple[int, ...]) -> Iterator[Move[State]]:
        """The next step of an operation, answered or not; `rest` are the others in flight."""
        op = self._tables.ops.of(number)
        prefix = f"{'old leader' if op.old else 'leader'}, {named(op)}: "
        is_write = (op.kind, op.at) not in READS
        for change in self._changes(state, number, op):
            yield self._apply(state, op, change, (rest, state.late, change.op), prefix + change.text)
            if is_write and state.faults and change.taken and change.op is not None and "answer" in self._config.kinds:
                text = prefix + change.text + "; the answer is lost"
                yield self._apply(state, op, change, (rest, state.late, None), text, cost=1)
        if state.faults:
            yield from self._planted(state, op, rest, prefix)
        if is_write and state.faults and len(state.late) < self._config.late and "message" in self._config.kinds:
            late = self._with_late(state, [op])
            text = prefix + f"sends '{op.at}', which is held up on its way; gives up waiting"
            yield Move(text, False, self.tidy(state._replace(ops=rest, late=late, faults=state.faults - 1)))

    def _planted(self, state: State, op: Op, rest: tuple[int, ...], prefix: str) -> Iterator[Move[State]]:
        """What only a mistake in the protocol makes possible."""
        bugs, place = self._rules.bugs, (op.kind, op.at)
        fewer = state._replace(faults=state.faults - 1)
        room = len(state.late) < self._config.late
        if "stamp" in bugs and place in TO_AGENT and room:
            for change in self._changes(state, self._tables.ops[op], op):
                text = prefix + change.text + "; a copy of the message is still on its way"
                copy = self._with_late(state, [op])
                yield self._apply(state, op, change, (rest, copy, change.op), text, cost=1)
        if "silence" in bugs and place == ("drain", "ask"):
            deaf = tuple(sorted((*rest, self._tables.ops[op._replace(at="label")])))
            yield Move(prefix + "gets no answer, and takes that for idleness", False, fewer._replace(ops=deaf))
        if "another agent" in bugs and place == ("assign", "acquire") and room:
            for other, pod in enumerate(state.pods):
                if other != op.pod and self._tables.pods.of(pod).label is PodState.ACTIVE:
                    moved = tuple(sorted((*rest, self._tables.ops[op._replace(pod=other, at="ask again")])))
                    text = prefix + f"gets no answer to 'acquire', and turns to Pod {other}"
                    yield Move(text, False, fewer._replace(ops=moved, late=self._with_late(state, [op])))

    def late_arrive(self, state: State) -> Iterator[Move[State]]:
        """A message that nobody waits for any more takes effect."""
        for place, number in enumerate(state.late):
            op = self._tables.ops.of(number)
            rest = state.late[:place] + state.late[place + 1 :]
            for change in self._changes(state, number, op):
                move = self._apply(state, op, change, (state.ops, rest, None), f"late, {named(op)}: {change.text}")
                yield move._replace(fair=False)

    def leader_changes(self, state: State) -> Iterator[Move[State]]:
        """Another replica leads. Of what the old one had in flight, writes that were sent may still arrive."""
        if not state.ops or not state.faults or "leader" not in self._config.kinds:
            return
        ops = [self._tables.ops.of(n) for n in state.ops]
        fewer = state._replace(faults=state.faults - 1)
        if not self._config.lease and not any(op.old for op in ops):
            old = tuple(sorted(self._tables.ops[op._replace(old=True)] for op in ops))
            yield Move("another replica takes over, and the old leader goes on", False, fewer._replace(ops=old))
        room = self._config.late - len(state.late) if self._config.controllers > 1 else 0
        choices: list[list[Op]] = [[]]
        for op in ops:
            if (op.kind, op.at) not in READS:
                choices += [[*chosen, op] for chosen in choices if len(chosen) < room]
        for chosen in choices:
            text = "another replica takes over"
            if chosen:
                told = ", ".join(f"'{op.at}' of {named(op)}" for op in chosen)
                text += f"; of the old leader, {told} is still on its way"
            yield Move(text, False, self.tidy(fewer._replace(ops=(), late=self._with_late(state, chosen))))

    def _with_late(self, state: State, ops: list[Op]) -> tuple[int, ...]:
        late = [self._tables.ops[_as_message(op)] for op in ops]
        return tuple(sorted((*state.late, *late)))

    def _changes(self, state: State, number: int, op: Op) -> list[Change]:
        """What can come of an operation's next effect, worked out once for all states alike in what it uses."""
        pod, task = op.pod or 0, op.task or 0
        uses = _EVERYTHING if self._rules.bugs else _USES.get((op.kind, op.at), _EVERYTHING)
        needs_id = op.kind == "drain" and (self._rules.bugs or op.at == "read")
        key = (
            number,
            state.pods[pod] if "pod" in uses else -1,
            state.sites[pod] if "site" in uses else -1,
            state.tasks[task] if "task" in uses else -1,
            state.lock if "lock" in uses else None,
            self._free_drain(state, pod) if needs_id else 0,
        )
        try:
            return self._steps[key]
        except KeyError:
            made = self._steps[key] = self._work_out(op, key)
            return made

    def _work_out(self, op: Op, key: tuple[int, int, int, int, int | None, int]) -> list[Change]:
        tables = self._tables
        now = Local(
            tables.pods.of(key[1]) if key[1] >= 0 else PodObject(),
            tables.sites.of(key[2]) if key[2] >= 0 else DEAD,
            tables.tasks.of(key[3]) if key[3] >= 0 else TaskObject(),
            key[4],
        )
        made = []
        for effect in step(op, now, replace(self._rules, free_drain=key[5])):
            local = effect.local
            news = sum(_BITS[name] for name in set(local.bumped))
            if local.heard:
                news |= HEARD if op.old else HEARD | HEARD_NEWER
            made.append(
                Change(
                    effect.text,
                    None if effect.op is None else tables.ops[_trim(effect.op)],
                    tables.pods[local.pod] if local.pod != now.pod else None,
                    tables.sites[local.site] if local.site != now.site else None,
                    tables.tasks[local.task] if local.task != now.task else None,
                    local.lock,
                    news,
                    local.wrong,
                    effect.taken,
                )
            )
        return made

    def _free_drain(self, state: State, pod: int) -> int:
        """A drain id that nobody has."""
        used = {self._drain_of(state.sites[pod]), 0}
        for number in (*state.ops, *state.late):
            op = self._tables.ops.of(number)
            if op.pod == pod:
                used.add(op.drain)
        return next(n for n in range(1, len(used) + 2) if n not in used)

    def _apply(
        self,
        state: State,
        op: Op,
        change: Change,
        left: tuple[tuple[int, ...], tuple[int, ...], int | None],
        text: str,
        *,
        cost: int = 0,
    ) -> Move[State]:
        """The state after a change. `left`: the other operations, the messages, and what the operation becomes."""
        ops, late, following = left
        pods, places, objects = state.pods, state.sites, state.tasks
        lock = change.lock if change.news & NEW_LOCK else state.lock
        if op.pod is not None and change.pod is not None:
            pods = put(pods, op.pod, change.pod)
        if op.pod is not None and change.site is not None:
            places = put(places, op.pod, change.site)
        if op.task is not None and change.task is not None:
            objects = put(objects, op.task, change.task)
        if change.news:
            ops = self._react(ops, change.news, op.pod, op.task)
            late = self._react(late, change.news, op.pod, op.task)
        if following is not None:
            ops = tuple(sorted((*ops, following)))
        reached = State(pods, places, objects, lock, state.faults - cost, ops, late)
        return Move(text, not cost, self.tidy(reached), change.wrong)

    # --- what news make of them -------------------------------------------------------------------------------------

    def heard(self, state: State, news: int, *, pod: int | None = None, task: int | None = None) -> State:
        """The state in which news of an object have reached all that is in flight or on its way."""
        objects = state.tasks
        if news & (RESTARTED | REPLACED) and pod is not None:
            objects = tuple([self._tables.remember(self._untold, n, pod) for n in objects])
        return self.tidy(
            state._replace(
                tasks=objects,
                ops=self._react(state.ops, news, pod, task),
                late=self._react(state.late, news, pod, task),
            )
        )

    def _untold(self, number: int, pod: int) -> int:
        """The condition Cancelling names an incarnation: to another one it says nothing."""
        task = self._tables.tasks.of(number)
        return self._tables.tasks[task._replace(told=False)] if task.told and task.pod == pod else number

    def _react(self, numbers: tuple[int, ...], news: int, pod: int | None, task: int | None) -> tuple[int, ...]:
        if not numbers:
            return numbers
        left = []
        for number in numbers:
            key = (number, news, pod, task)
            try:
                after = self._reactions[key]
            except KeyError:
                op: Op | None = self._tables.ops.of(number)
                if op is not None and pod is not None and op.pod == pod:
                    op = _hears_of_pod(op, news, self._rules.bugs)
                if op is not None and task is not None and op.task == task and news & NEW_TASK:
                    op = _hears_of_task(op)
                if op is not None and news & NEW_LOCK and (op.kind, op.at) == ("release lock", "delete"):
                    op = None
                after = self._reactions[key] = None if op is None else self._tables.ops[op]
            if after is not None:
                left.append(after)
        return tuple(sorted(left))

    # --- the one way to write it down -------------------------------------------------------------------------------

    def tidy(self, state: State) -> State:
        """Drain ids that nobody else knows are all the same; what only a further fault could bring up is dropped."""
        if not state.faults:
            places = tuple([self._bare_site(n) for n in state.sites])
            if places != state.sites:
                state = state._replace(sites=places)
        for pod, number in enumerate(state.sites):
            if self._drain_of(number) > 0:
                flying = [self._tables.ops.of(n) for n in (*state.ops, *state.late)]
                if all(op.pod != pod or op.drain < 0 for op in flying):
                    renamed = self._tables.remember(self._first_drain, number)
                    state = state._replace(sites=put(state.sites, pod, renamed))
        return state

    def _bare_site(self, number: int) -> int:
        bare = self._bare
        while number >= len(bare):
            bare.append(self._tables.sites[sites.bare(self._tables.sites.of(len(bare)))])
        return bare[number]

    def _drain_of(self, number: int) -> int:
        drains = self._drains
        while number >= len(drains):
            agent = self._tables.sites.of(len(drains)).agent
            drains.append(-1 if agent is None else drain_number(agent.drain_id))
        return drains[number]

    def _first_drain(self, number: int) -> int:
        site = self._tables.sites.of(number)
        if site.agent is None:
            return number
        return self._tables.sites[site._replace(agent=site.agent._replace(drain_id="born"))]


def named(op: Op) -> str:
    """An operation, for people."""
    name = "ask again" if (op.kind, op.at) == ("assign", "ask again") else op.kind
    if op.task is not None:
        name += f" task {op.task}" + (f" attempt {op.attempt}" if op.kind == "settle orphan" else "")
        return name + (f" on Pod {op.pod}" if op.kind in {"assign", "settle orphan"} else "")
    return name + (f" Pod {op.pod}" if op.pod is not None else "")


def _as_message(op: Op) -> Op:
    """An operation of which only the next write is left."""
    knows = (op.kind, op.at) in {("finish", "write"), ("follow", "write")}
    return op._replace(late=True, known=op.known if knows else ())


_NO_GUARD_AHEAD = {("follow", "ack"), ("approve", "approve"), ("ack", "ack"), ("drain", "undo")}


def _trim(op: Op) -> Op:
    """An operation without what it does not need any more."""
    place = (op.kind, op.at)
    if op.kind in {"open", "settle orphan"} or place in _NO_GUARD_AHEAD:
        op = op._replace(fresh=True)
    if place in {("follow", "ack"), ("cancel", "write"), ("cancel", "finish")}:
        op = op._replace(known=())
    return op


def _hears_of_pod(op: Op, news: int, bugs: frozenset[str]) -> Op | None:
    to_agent = (op.kind, op.at) in TO_AGENT
    if op.late and (news & REPLACED or (to_agent and news & HEARD and "stamp" not in bugs)):
        return None  # it names another Pod's UID; its stamp is below one that was seen
    older_term = op.old and news & HEARD_NEWER and "stamp" not in bugs
    if older_term or (news & RESTARTED and "incarnation" not in bugs):
        if to_agent:
            return None  # it will be refused
        op = op._replace(same_agent=False)
    if news & NEW_POD and op.kind in POD_KINDS - {"open"} and op.at not in {"undo", "read"}:
        op = op._replace(fresh=False)
        if op.at in {"label", "delete"}:
            if op.late or op.kind != "drain":
                return None  # it names a version that is no longer the newest
            if "no confirm" not in bugs:
                op = op._replace(at="read", fresh=True)
    return op


def _hears_of_task(op: Op) -> Op | None:
    if op.kind in {"settle orphan", "release lock"}:
        return op
    place = (op.kind, op.at)
    if place in GUARDED or place in LEADS_TO_A_GUARDED_WRITE:
        return None
    return _trim(op._replace(fresh=False))
