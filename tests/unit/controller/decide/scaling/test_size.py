"""How many Pods a pool should have: tables of mixes, and one test for each way in which it went wrong elsewhere."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from agent.wire import Phase
from controller.decide.scaling.matching import Matching
from controller.decide.scaling.size import Reason, decide_size
from controller.decide.view import PodOperation, PodState, PodView, PoolView
from controller.objects.behavior import Behavior
from controller.objects.task import Task, TaskPhase
from tests.support.pools import AT_ONCE, LONG_AGO, NOW, pod, pods, pool, task, tasks

MIXES: dict[str, tuple[tuple[str, ...], dict[str, int], int]] = {
    # idle and busy slots of the Pods there are, queued tasks by type, Pods wanted
    "nothing": ((), {}, 0),
    "one plan": ((), {"plan": 1}, 1),
    "one apply": ((), {"apply": 1}, 1),
    "1 plan + 1 apply: one Pod has room (T13)": ((), {"plan": 1, "apply": 1}, 1),
    "2 plans + 1 apply fill one Pod: above the threshold": ((), {"plan": 2, "apply": 1}, 2),
    "2 applies need two slots 0": ((), {"apply": 2}, 2),
    "1 apply + 1 plan_and_apply": ((), {"apply": 1, "plan_and_apply": 1}, 2),
    "5 plans": ((), {"plan": 5}, 3),
    "4 applies + 1 plan": ((), {"apply": 4, "plan": 1}, 4),
    "4 applies + 8 plans: full": ((), {"apply": 4, "plan": 8}, 5),
    "a plan fits beside an apply": (("r..",), {"plan": 1}, 1),
    "an apply does not fit beside a running plan_and_apply": (("r..",), {"apply": 1}, 2),
    "slot 0 reserved: plans still fit": (("R..",), {"plan": 1}, 1),
    "slot 0 reserved: 33 % used, and no capacity for applies": (("R..",), {"apply": 1}, 2),
    "every slot 0 reserved": (("R..", "R..", "R.."), {"plan_and_apply": 1}, 4),
    "a plan does not take the slot an apply needs": (("..r",), {"plan": 1, "apply": 1}, 2),
    "slots 1 and 2 run: an apply still fits": (("..r", ".rr"), {"apply": 1}, 2),
    "a type no slot accepts is no demand": ((), {"render": 3}, 0),
}


@pytest.mark.parametrize(("present", "queue", "wanted"), MIXES.values(), ids=MIXES)
def test_demand_respects_the_layout(present: tuple[str, ...], queue: dict[str, int], wanted: int) -> None:
    """T13, H2."""
    waiting = tuple(item for kind, count in queue.items() for item in tasks(kind, count))
    assert decide_size(pool(pods(*present), waiting)).desired == wanted


def test_every_slot_0_reserved_scales_up_for_applies() -> None:
    """A third of the slots is used, which no threshold minds; yet no apply could start."""
    decision = decide_size(pool(pods(*["R.."] * 5), tasks("apply", 2)))
    assert (decision.current, decision.desired, decision.reason) == (5, 7, Reason.QUEUED_TASKS)
    assert decision.missing_pods == 2
    assert decision.reserved_slots == 5


def test_a_new_pool_with_minimum_0_makes_no_pod() -> None:
    """H4."""
    decision = decide_size(pool())
    assert (decision.desired, decision.limited) == (0, False)


def test_from_zero_it_starts_what_the_queue_needs_at_once() -> None:
    """T4: and no minimum idle time holds that back."""
    decision = decide_size(pool((), tasks("apply", 7), min_idle_seconds=86400))
    assert (decision.desired, decision.reason) == (7, Reason.QUEUED_TASKS)


def test_coming_pods_are_capacity() -> None:
    """T14, A3: creating, starting, or not yet opened; with or without an agent that was heard."""
    coming = (
        pod("a", None, state=PodState.STARTING),
        pod("b", "...", state=PodState.STARTING),
        pod("c", "...", phase=Phase.DRAINED),
        pod("d", "...", state=PodState.DRAINING, in_flight=PodOperation.OPEN),
    )
    assert decide_size(pool(coming, tasks("apply", 5), creating=1)).desired == 5
    assert decide_size(pool(coming, tasks("apply", 6), creating=1)).desired == 6


def test_a_restart_with_free_slots_creates_nothing() -> None:
    """T14: the agents have not been heard yet, but they are about to be."""
    silent = tuple(pod(f"p{n}", None, running=True, contacting=True) for n in range(2))
    assert decide_size(pool(silent, tasks("apply", 2))).desired == 2
    blip = tuple(pod(f"p{n}", "r..", connected=False, contacting=True) for n in range(2))
    assert decide_size(pool(blip, tasks("plan", 2))).desired == 2


UNUSABLE: dict[str, PodView] = {
    "its agent is not heard": pod("p", "...", connected=False),
    "its agent was never heard": pod("p", None, running=True),
    "it is being stopped": pod("p", "...", closing=True),
    "somebody wants it gone": pod("p", "...", drain_requested=True),
    "its node is cordoned": pod("p", "...", node_cordoned=True),
}


@pytest.mark.parametrize("unusable", UNUSABLE.values(), ids=UNUSABLE)
def test_a_pod_that_takes_nothing_is_no_capacity(unusable: PodView) -> None:
    """It counts in the size all the same."""
    decision = decide_size(pool((unusable,), tasks("plan", 1)))
    assert (decision.current, decision.desired) == (1, 2)


GONE: dict[str, PodView] = {
    "dead": pod("p", "...", dead=True),
    "being deleted": pod("p", "...", deleting=True),
    "draining": pod("p", "...", state=PodState.DRAINING),
    "being drained": pod("p", "...", in_flight=PodOperation.REMOVE),
}


@pytest.mark.parametrize("gone", GONE.values(), ids=GONE)
def test_a_pod_on_its_way_out_counts_for_nothing(gone: PodView) -> None:
    """T27: neither against the maximum, nor as capacity."""
    decision = decide_size(pool((gone, gone, gone), tasks("plan", 1), max_replicas=3))
    assert (decision.current, decision.desired, decision.limited) == (0, 1, False)


def test_blocked_and_unwanted_tasks_are_no_demand() -> None:
    """T12."""
    waiting = (task("a"), task("b", cancel=True), task("c", deleting=True), task("d"))
    decision = decide_size(pool((), waiting, blocked=frozenset({"a"})))
    assert (decision.desired, decision.queued_tasks, decision.blocked_tasks) == (1, 1, 1)


def test_demand_is_conserved_from_queue_to_running() -> None:
    """T12: at each step of its way, the task takes up exactly one slot, and the apply behind it needs another Pod."""
    behind = task("behind", "apply")
    queued, assigned = task("t", "apply"), task("t", "apply", phase=TaskPhase.ASSIGNED, on="p0")
    running = task("t", "apply", phase=TaskPhase.RUNNING, on="p0")
    free, held = pod("p0", "..."), pod("p0", "r..", tasks=("t.1",))
    steps: list[PoolView] = [
        pool((free,), (queued, behind)),
        pool((free,), (queued, behind), dispatching={"t": "uid-p0"}),
        pool((held,), (queued, behind), dispatching={"t": "uid-p0"}),
        pool((free,), (assigned, behind)),
        pool((held,), (assigned, behind)),
        pool((held,), (running, behind)),
        pool((free,), (running, behind)),
    ]
    for view in steps:
        decision = decide_size(view)
        assert decision.desired == 2
        used = decision.running_slots + decision.promised_slots + decision.queued_tasks
        assert used == 2


def test_a_task_whose_pod_is_gone_before_it_was_there_is_demand_again() -> None:
    """T12, T20."""
    assigned = task("t", "apply", phase=TaskPhase.ASSIGNED, on="gone")
    assert decide_size(pool((), (assigned,))).desired == 1
    assert decide_size(pool((pod("gone", "...", dead=True),), (assigned,))).desired == 1


def test_a_buffer_counts_reserved_slots_as_used() -> None:
    """A2."""
    decision = decide_size(pool(pods("R..", "R.."), idle_slots={"plan_and_apply": 1}))
    assert (decision.desired, decision.reason) == (3, Reason.IDLE_SLOTS_WANTED)
    assert decide_size(pool(pods("R..", "..."), idle_slots={"plan_and_apply": 1})).desired == 2


def test_a_buffer_comes_on_top_of_what_is_queued() -> None:
    buffer = {"plan_and_apply": 1, "plan": 2}
    assert decide_size(pool((), idle_slots=buffer)).desired == 1
    assert decide_size(pool((), tasks("plan", 1), idle_slots=buffer)).desired == 2
    assert decide_size(pool((), tasks("apply", 1), idle_slots=buffer)).desired == 2
    assert decide_size(pool(pods("...", "..."), tasks("apply", 1), idle_slots=buffer)).desired == 2


def test_the_buffer_is_kept_when_scaling_down() -> None:
    decision = decide_size(pool(pods(*["..."] * 6), idle_slots={"apply": 2}))
    assert (decision.desired, decision.reason) == (2, Reason.UTILIZATION_BELOW)


def test_utilisation_above_its_threshold_adds_headroom() -> None:
    decision = decide_size(pool(pods("rrr", "rr.", "rrr")))
    assert (decision.desired, decision.reason) == (4, Reason.UTILIZATION_ABOVE)
    assert decision.utilization_percent == pytest.approx(800 / 9)
    assert decide_size(pool(pods("rrr", "rr.", "rr."))).desired == 3
    assert decide_size(pool(pods("rr."), scale_up_utilization_percent=50)).desired == 2


def test_reserved_slots_are_used_slots() -> None:
    """The threshold is over running and reserved ones."""
    assert decide_size(pool(pods("RRr"))).desired == 2


def test_reservations_alone_call_for_no_headroom() -> None:
    """G2: a pool whose layout they fill comes down to the Pods that hold them."""
    layout = (("a",),)
    present = (pod("p0", "R", layout=layout), pod("p1", ".", layout=layout))
    assert decide_size(pool(present, layout=layout)).desired == 1


def test_one_reservation_freezes_nothing() -> None:
    """T15: its Pod stays; the idle ones go, and a queue still scales up."""
    present = pods("R..", "...", "...", "...")
    assert decide_size(pool(present)).desired == 1
    assert decide_size(pool(present, tasks("apply", 6))).desired == 7


def test_pods_with_a_reservation_are_left_out_of_the_lower_threshold() -> None:
    """T15: they would make the rest look busy for as long as their approvals take."""
    assert decide_size(pool(pods("Rrr", "Rrr", "Rrr", "...", "..."))).desired == 4
    assert decide_size(pool(pods("Rrr", "Rrr", "Rrr", "r..", "rr."))).desired == 5


def test_idle_pods_go_if_the_rest_is_hardly_used() -> None:
    decision = decide_size(pool(pods("r..", *["..."] * 9)))
    assert (decision.desired, decision.reason) == (1, Reason.UTILIZATION_BELOW)


def test_between_the_thresholds_the_size_is_held() -> None:
    decision = decide_size(pool(pods("rr.", "...", "...")))
    assert (decision.desired, decision.reason) == (3, Reason.WITHIN_THRESHOLDS)


def test_it_does_not_shrink_to_where_it_would_grow_again() -> None:
    """K2: 3 of 30 slots run, in one Pod; that Pod alone would be full."""
    decision = decide_size(pool(pods("rrr", *["..."] * 9)))
    assert decision.desired == 2
    assert decide_size(pool(pods("rrr", "..."))).desired == 2


def test_only_idle_pods_can_go() -> None:
    decision = decide_size(pool(pods(*["..r"] * 3), scale_down_utilization_percent=50))
    assert (decision.desired, decision.reason) == (3, Reason.NO_POD_IDLE)


STAYING: dict[str, dict[str, Any]] = {
    "its agent is not heard (D1)": {"connected": False},
    "its agent was never heard (D1)": {"slots": None},
    "a result waits for its ack": {"ended": ("t.1",)},
    "an operation is under way (R2)": {"in_flight": PodOperation.DISPATCH},
    "it fell idle just now (R2)": {"since": NOW - timedelta(seconds=59)},
    "it was created just now (R2)": {"created": NOW - timedelta(seconds=59)},
    "it was opened just now (R2)": {"opened": NOW - timedelta(seconds=59)},
    "it holds a reservation": {"slots": ".R."},
}


@pytest.mark.parametrize("given", STAYING.values(), ids=STAYING)
def test_a_pod_that_could_lose_something_is_no_candidate(given: dict[str, Any]) -> None:
    kept = pod("p", given.get("slots", "..."), **{key: value for key, value in given.items() if key != "slots"})
    assert decide_size(pool((kept,), min_idle_seconds=60)).desired == 1
    assert decide_size(pool((pod("p", "..."),), min_idle_seconds=60)).desired == 0


def test_a_pod_that_a_task_is_on_its_way_to_is_no_candidate() -> None:
    """R2: assigned, or about to be."""
    assigned = task("t", phase=TaskPhase.ASSIGNED, on="p")
    lenient: dict[str, Any] = {"scale_down_utilization_percent": 50}
    assert decide_size(pool((pod("p", "..."),), (assigned,), **lenient)).desired == 1
    assert decide_size(pool((pod("p", "..."),), (task("t"),), dispatching={"t": "uid-p"}, **lenient)).desired == 1


def test_a_silent_agent_is_taken_for_a_full_pod() -> None:
    """D1, K1: 2 idle Pods beside it are 33 % used with it, so nothing shrinks; 8 are below the threshold."""
    silent = pod("s", "...", connected=False)
    assert decide_size(pool((silent, *pods("...", "...")))).desired == 3
    assert decide_size(pool((silent, *pods(*["..."] * 8)))).desired == 1


def test_all_agents_silent_holds_the_size() -> None:
    """K1, R3: losing a signal never scales down."""
    silent = tuple(replace(item, connected=False) for item in pods(*["..."] * 5))
    assert decide_size(pool(silent)).desired == 5
    assert decide_size(pool(silent, tasks("apply", 1))).desired == 6


def test_what_is_not_known_yet_never_shrinks_and_may_grow() -> None:
    """T4, R3."""
    decision = decide_size(pool(pods("...", "..."), synced=False))
    assert (decision.desired, decision.reason) == (2, Reason.NOT_SYNCED)
    assert decide_size(pool((), tasks("apply", 2), synced=False)).desired == 2


BRANCHES: dict[str, PoolView] = {
    "empty": pool(min_replicas=2, max_replicas=4),
    "queue": pool((), tasks("apply", 50), min_replicas=2, max_replicas=4),
    "buffer": pool((), idle_slots={"apply": 50}, min_replicas=2, max_replicas=4),
    "busy": pool(pods(*["rrr"] * 9), min_replicas=2, max_replicas=4),
    "idle": pool(pods(*["..."] * 9), min_replicas=2, max_replicas=4),
    "idle, unknown": pool(pods(*["..."] * 9), min_replicas=2, max_replicas=4, synced=False),
    "reserved": pool(pods(*["R.."] * 9), min_replicas=2, max_replicas=4),
    "silent": pool((pod("p", None),), min_replicas=2, max_replicas=4),
    "between": pool(pods(*["r.."] * 9), min_replicas=2, max_replicas=4),
}


@pytest.mark.parametrize("view", BRANCHES.values(), ids=BRANCHES)
def test_every_branch_is_clamped(view: PoolView) -> None:
    """T5."""
    assert 2 <= decide_size(view).desired <= 4


def test_what_bounds_it_is_said() -> None:
    above = decide_size(pool((), tasks("apply", 9), max_replicas=4))
    assert (above.desired, above.limited, above.reason, above.missing_pods) == (4, True, Reason.AT_MAXIMUM, 9)
    below = decide_size(pool(pods("...", "..."), min_replicas=2))
    assert (below.desired, below.limited, below.reason) == (2, True, Reason.AT_MINIMUM)
    within = decide_size(pool(pods("r.."), min_replicas=1))
    assert not within.limited


def test_without_autoscaling_or_paused_the_size_is_that_of_the_spec() -> None:
    fixed = decide_size(pool(pods("rrr"), tasks("plan", 9), replicas=3))
    assert (fixed.desired, fixed.reason) == (3, Reason.FIXED_SIZE)
    paused = decide_size(pool(pods("rrr"), tasks("plan", 9), replicas=2, paused=True))
    assert (paused.desired, paused.reason) == (2, Reason.PAUSED)


def test_a_pool_that_is_paused_without_a_size_stays_as_it_is() -> None:
    paused = decide_size(pool(pods("...", "r..", "..."), tasks("plan", 9), paused=True))
    assert (paused.desired, paused.reason) == (3, Reason.PAUSED)
    assert paused.message == "autoscaling is paused; the size stays 3"


def test_a_pool_being_deleted_wants_no_pod() -> None:
    assert decide_size(pool(pods("..."), tasks("plan", 9), deleting=True, min_replicas=3)).desired == 0


def test_pods_that_never_served_go_first() -> None:
    """D2: while one is coming that is not needed, no Pod that serves goes in its place."""
    young = pod("s", None, state=PodState.STARTING, created=NOW)
    assert decide_size(pool((young, pod("p", "..."), pod("q", "..")), idle_slots={"plan": 1})).desired == 1
    assert decide_size(pool((pod("p", "..."),), creating=1, idle_slots={"plan": 1})).desired == 1


def test_layouts_of_older_pods_count_as_they_are() -> None:
    """A change of the layout is not the layout of Pods that are there."""
    old = (("plan",), ("plan",))
    present = tuple(pod(f"p{n}", "..", layout=old) for n in range(3))
    assert decide_size(pool(present, tasks("apply", 1))).desired == 4
    assert decide_size(pool(present, tasks("plan", 2))).desired <= 3


def test_the_least_number_of_pods_is_exact_for_any_layout() -> None:
    layout = (("a", "b"), ("b", "c"), ("c", "a"))
    assert Matching({}).further_pods({"a": 2, "b": 2, "c": 2}, layout) == 2
    assert Matching({}).further_pods({"a": 3}, layout) == 2
    assert Matching({("a", "b"): 1}).further_pods({"a": 2, "b": 2, "c": 0}, layout) == 1
    with pytest.raises(ValueError, match="no slot accepts"):
        Matching({}).further_pods({"d": 1}, layout)


def test_the_message_is_for_people() -> None:
    assert decide_size(pool((), tasks("apply", 2))).message == "2 queued tasks; 2 more Pods are needed for them"
    assert decide_size(pool((), tasks("apply", 1))).message == "1 queued task; 1 more Pod is needed for it"
    assert decide_size(pool(pods("rrr"))).message == "100 % of slots are used, above 80 %"
    assert decide_size(pool((), idle_slots={"plan": 1})).message == "idle slots wanted: 1 for plan"


def test_a_share_beside_its_threshold_is_as_exact_as_it_takes_to_see_the_difference() -> None:
    above = pods(*["rrr"] * 80, "r..", *["..."] * 19)
    assert decide_size(pool(above, max_replicas=200)).message == "80.3 % of slots are used, above 80 %"
    rest = "of the slots of Pods without a reservation are used"
    more = pods(*["rrr"] * 20, "r..", *["..."] * 79)
    assert decide_size(pool(more, max_replicas=200)).message == f"20.3 % {rest}: above 20 %"
    least = pods(*["rrr"] * 20, *["..."] * 80)
    assert decide_size(pool(least, max_replicas=200)).message == f"20 % {rest}: no more than 20 %"


def test_a_tolerance_is_in_the_threshold_that_is_named() -> None:
    behavior = Behavior(
        scale_up=replace(AT_ONCE.scale_up, tolerance=0.1), scale_down=replace(AT_ONCE.scale_down, tolerance=0.1)
    )
    rest = "of the slots of Pods without a reservation are used"
    below = pods(*["rrr"] * 19, *["..."] * 81)
    assert decide_size(pool(below, behavior=behavior, max_replicas=200)).message == f"19 % {rest}: above 18 %"
    above = pods(*["rrr"] * 89, *["..."] * 11)
    assert decide_size(pool(above, behavior=behavior, max_replicas=200)).message == "89 % of slots are used, above 88 %"


def test_tasks_that_ended_on_a_pod_hold_no_slot_of_it() -> None:
    """B1: counts are derived from what the agent says now."""
    ended: tuple[Task, ...] = (task("t", phase=TaskPhase.RUNNING, on="p"),)
    decision = decide_size(pool((pod("p", "...", ended=("t.1",)),), ended))
    assert (decision.promised_slots, decision.free_slots) == (0, 3)


def test_an_old_reservation_is_not_idle_time() -> None:
    recent = pod("p", "...", since=LONG_AGO, opened=NOW)
    assert decide_size(pool((recent,))).desired == 1
