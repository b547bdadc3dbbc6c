"""Which task goes to which Pod, and which wait for a lockKey."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire import Phase
from controller.decide.scaling.basis import Basis
from controller.decide.scaling.matching import agents_choice
from controller.decide.tasks import assignment
from controller.decide.tasks.assignment import assign, blocked
from controller.decide.view import PodOperation, PodState, PodView, PoolView
from controller.objects.task import Task, TaskPhase
from tests.support.pools import pod, pods, pool, task, tasks


def chosen(view: PoolView, excluded: frozenset[str] = frozenset()) -> dict[str, str]:
    return {item.task.name: item.pod.name for item in assign(Basis.of(view), excluded)}


def test_the_fullest_pod_that_has_a_slot_is_chosen() -> None:
    """So that idle Pods stay idle and can go."""
    view = pool(pods("...", "..r", "...", "rrr"), tasks("plan", 3))
    assert chosen(view) == {"plan-0": "p1", "plan-1": "p0", "plan-2": "p0"}


def test_a_plan_leaves_slot_0_to_those_that_need_it() -> None:
    """Even when it is the only free slot of a fuller Pod."""
    view = pool(pods(".rr", "..."), tasks("plan", 1))
    assert chosen(view) == {"plan-0": "p1"}
    both = pool(pods(".rr", "r.."), (task("a"), task("b"), task("z", "apply")))
    assert chosen(both) == {"a": "p1", "b": "p1", "z": "p0"}


def test_a_plan_takes_slot_0_if_nothing_else_is_free() -> None:
    assert chosen(pool(pods(".rr"), tasks("plan", 2))) == {"plan-0": "p0"}


def test_reserved_slots_are_not_free() -> None:
    assert chosen(pool(pods("Rrr"), tasks("plan", 1))) == {}


def test_tasks_are_served_by_priority_then_age_then_name() -> None:
    waiting = (
        task("late", age_seconds=1),
        task("early", age_seconds=5),
        task("urgent", priority=1),
        task("b", age_seconds=3),
        task("a", age_seconds=3),
    )
    order = [item.task.name for item in assign(Basis.of(pool(pods("...", "..."), waiting)))]
    assert order == ["urgent", "early", "a", "b", "late"]
    assert set(chosen(pool(pods("r.."), waiting))) == {"urgent", "early"}


UNUSABLE: dict[str, PodView] = {
    "starting (T6)": pod("p", "...", state=PodState.STARTING),
    "starting, its agent open": pod("p", "...", state=PodState.STARTING, phase=Phase.OPEN),
    "not opened (T6)": pod("p", "...", phase=Phase.DRAINED),
    "draining": pod("p", "...", state=PodState.DRAINING),
    "draining, its agent open": pod("p", "...", state=PodState.DRAINING, phase=Phase.OPEN),
    "being drained (A1)": pod("p", "...", in_flight=PodOperation.REMOVE),
    "being opened": pod("p", "...", in_flight=PodOperation.OPEN),
    "being stopped (A1)": pod("p", "...", closing=True),
    "deleting (A1)": pod("p", "...", deleting=True),
    "dead": pod("p", "...", dead=True),
    "its agent not heard": pod("p", "...", connected=False),
    "its agent hardly gone": pod("p", "...", connected=False, contacting=True),
    "its agent never heard": pod("p", None, running=True),
    "somebody wants it gone": pod("p", "...", drain_requested=True),
    "on a cordoned node": pod("p", "...", node_cordoned=True),
}


@pytest.mark.parametrize("unusable", UNUSABLE.values(), ids=UNUSABLE)
def test_a_pod_that_does_not_serve_gets_nothing(unusable: PodView) -> None:
    assert chosen(pool((unusable,), tasks("plan", 1))) == {}


def test_a_pod_about_to_be_taken_away_gets_nothing() -> None:
    assert chosen(pool(pods("...", "..."), tasks("plan", 1)), frozenset({"uid-p0"})) == {"plan-0": "p1"}


def test_a_pool_being_deleted_starts_nothing() -> None:
    assert chosen(pool(pods("..."), tasks("plan", 1), deleting=True)) == {}


def test_a_slot_promised_to_a_task_is_not_promised_again() -> None:
    """T19: between the intent and the agent's report."""
    assigned = task("t", "apply", phase=TaskPhase.ASSIGNED, on="p0")
    assert chosen(pool(pods("..."), (assigned, task("u", "apply")))) == {}
    view = pool(pods("..."), (task("t", "apply"), task("u", "apply")), dispatching={"t": "uid-p0"})
    assert chosen(view) == {}
    reported = pod("p0", "r..", tasks=("t.1",))
    assert chosen(pool((reported,), (assigned, task("u", "plan"), task("v", "plan")))) == {"u": "p0", "v": "p0"}


def test_blocked_and_unwanted_tasks_stay() -> None:
    waiting = (task("a"), task("b", cancel=True), task("c", deleting=True), task("d", "render"), task("e"))
    assert chosen(pool(pods("..."), waiting, blocked=frozenset({"a"}))) == {"e": "p0"}


TYPES = "abc"
slots = st.lists(st.sampled_from(TYPES), min_size=1, max_size=3, unique=True).map(lambda names: tuple(sorted(names)))


def largest(kinds: list[str], free: list[tuple[str, ...]]) -> int:
    """The size of a maximum matching, by augmenting paths over single slots."""
    owner: dict[int, int] = {}

    def place(index: int, tried: set[int]) -> bool:
        for slot, accepts in enumerate(free):
            if kinds[index] in accepts and slot not in tried:
                tried.add(slot)
                if slot not in owner or place(owner[slot], tried):
                    owner[slot] = index
                    return True
        return False

    return sum(place(index, set()) for index in range(len(kinds)))


@given(
    layout=st.lists(slots, min_size=1, max_size=4).map(tuple),
    letters=st.lists(st.lists(st.sampled_from("..rR"), min_size=4, max_size=4), max_size=4),
    kinds=st.lists(st.sampled_from(TYPES), max_size=10),
)
def test_agents_can_take_all_they_are_given(
    layout: tuple[tuple[str, ...], ...], letters: list[list[str]], kinds: list[str]
) -> None:
    """T19, T20: each task once, in an order and to Pods whose agents, choosing for themselves, have a slot for it."""
    present = pods_of(layout, letters)
    waiting = tuple(task(f"t{index}", kind) for index, kind in enumerate(kinds))
    free = {
        item.name: [slot.accepts for slot in item.agent.slots if slot.state == "idle"] for item in present if item.agent
    }
    given_out = assign(Basis.of(pool(present, waiting, layout=layout)))
    assert max(Counter(item.task.uid for item in given_out).values(), default=1) == 1
    for item in given_out:
        taken = agents_choice(free[item.pod.name], item.task.spec.type)
        assert taken is not None
        free[item.pod.name].remove(taken)


@given(
    letters=st.lists(st.lists(st.sampled_from("..rR"), min_size=3, max_size=3), max_size=4),
    kinds=st.lists(st.sampled_from(["plan", "apply", "plan_and_apply"]), max_size=10),
)
def test_as_many_as_fit_are_placed(letters: list[list[str]], kinds: list[str]) -> None:
    """Over the whole pool, wherever each slot's types are among those of the next wider one."""
    present = pods(*("".join(row) for row in letters))
    waiting = tuple(task(f"t{index}", kind) for index, kind in enumerate(kinds))
    free = [slot.accepts for item in present if item.agent for slot in item.agent.slots if slot.state == "idle"]
    assert len(assign(Basis.of(pool(present, waiting)))) == largest(kinds, free)


@given(
    layout=st.lists(slots, min_size=1, max_size=4).map(tuple),
    letters=st.lists(st.lists(st.sampled_from("...rR"), min_size=4, max_size=4), max_size=12),
    kinds=st.lists(st.sampled_from(TYPES), max_size=4),
)
def test_looking_at_the_first_few_pods_chooses_as_looking_at_all_of_them(
    layout: tuple[tuple[str, ...], ...], letters: list[list[str]], kinds: list[str]
) -> None:
    waiting = tuple(task(f"t{index}", kind) for index, kind in enumerate(kinds))
    view = pool(pods_of(layout, letters), waiting, layout=layout)
    few = chosen(view)
    with pytest.MonkeyPatch.context() as patch:
        first = assignment._Rooms.first
        patch.setattr(assignment._Rooms, "first", lambda rooms, count: first(rooms, count + len(letters)))
        assert chosen(view) == few


def pods_of(layout: tuple[tuple[str, ...], ...], letters: list[list[str]]) -> tuple[PodView, ...]:
    return tuple(pod(f"p{n}", "".join(row[: len(layout)]), layout=layout) for n, row in enumerate(letters))


def locked(name: str, kind: str = "plan_and_apply", *, key: str = "k", **given: object) -> Task:
    placed = given.pop("phase", TaskPhase.QUEUED)
    assert isinstance(placed, TaskPhase)
    made = task(name, kind, phase=placed, lock_key=key)
    return replace(made, **given)  # type: ignore[arg-type]  # fields of Task, by name


def test_tasks_of_one_key_take_turns_in_order() -> None:
    waiting = (locked("b"), locked("a"), locked("c"), locked("x", key="other"))
    assert blocked(waiting, {}) == {"b", "c"}
    assert blocked((*waiting, task("first", "apply", lock_key="k", priority=1)), {}) == {"a", "b", "c"}


def test_who_holds_the_lock_goes_first() -> None:
    waiting = (locked("a"), locked("b"))
    assert blocked(waiting, {"k": "b"}) == {"a"}
    assert blocked(waiting, {"k": "somebody else"}) == {"a", "b"}
    assert blocked(waiting, {"unrelated": "z"}) == {"b"}


def test_a_task_that_is_under_way_keeps_its_turn() -> None:
    for phase in (TaskPhase.ASSIGNED, TaskPhase.RUNNING, TaskPhase.AWAITING_APPROVAL):
        assert blocked((locked("a"), locked("z", phase=phase)), {}) == {"a"}


def test_a_task_that_changes_nothing_never_waits() -> None:
    assert blocked((locked("a"), locked("p", "plan"), locked("q", "plan")), {"k": "a"}) == frozenset()


def test_an_ended_or_unwanted_task_takes_no_turn() -> None:
    ended = locked("a", phase=TaskPhase.SUCCEEDED)
    assert blocked((ended, locked("b")), {}) == frozenset()
    assert blocked((locked("a", deleting=True), locked("b")), {}) == {"a"}
