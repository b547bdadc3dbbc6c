"""Deciding again and again: over any layout and load, the size settles, at the right place, and loses nothing."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.wire import SlotState
from controller.decide.reading import Answer, Reading, Sample
from controller.decide.view import PodState
from controller.objects.behavior import Behavior, PolicyType, ScalingPolicy, ScalingRules, SelectPolicy
from controller.objects.freeze import FreezeWindow
from controller.objects.pool import Layout
from controller.objects.signal import Fallback, Signal
from tests.support.pool_model import PoolModel
from tests.support.pools import LONG_AGO, task

TYPES = "abcd"

slots = st.lists(st.sampled_from(TYPES), min_size=1, max_size=3, unique=True).map(lambda names: tuple(sorted(names)))
layouts = st.lists(slots, min_size=1, max_size=4).map(tuple)


@st.composite
def settings(draw: st.DrawFn) -> dict[str, Any]:
    least = draw(st.integers(0, 4))
    down = draw(st.integers(0, 70))
    return {
        "min_replicas": least,
        "max_replicas": least + draw(st.integers(1, 12)),
        "scale_down_utilization_percent": down,
        "scale_up_utilization_percent": draw(st.integers(down + 1, 100)),
        "target_utilization_percent": draw(st.none() | st.integers(1, 100)),
        "min_idle_seconds": draw(st.sampled_from([0, 60, 600])),
    }


rules = st.builds(
    ScalingRules,
    policies=st.lists(
        st.builds(
            ScalingPolicy,
            type=st.sampled_from(PolicyType),
            value=st.integers(1, 100),
            period_seconds=st.sampled_from([1, 15, 60, 90]),
        ),
        min_size=1,
        max_size=2,
    ).map(tuple),
    select=st.sampled_from([SelectPolicy.MAX, SelectPolicy.MIN]),
    stabilization_window_seconds=st.sampled_from([0, 45, 300]),
    tolerance=st.sampled_from([0.0, 0.2]),
)
behaviors = st.builds(Behavior, scale_up=rules, scale_down=rules, limits_queue=st.booleans())
noon = FreezeWindow(start="0 12 * * *", duration_seconds=600)
"""Histories begin at noon."""


@st.composite
def models(draw: st.DrawFn, letters: str) -> PoolModel:
    layout: Layout = draw(layouts)
    chosen = draw(settings())
    accepted = sorted({name for accepts in layout for name in accepts})
    chosen["idle_slots"] = draw(st.dictionaries(st.sampled_from(accepted), st.integers(0, 3), max_size=2))
    model = PoolModel(settings=chosen, layout=layout)
    for _ in range(draw(st.integers(0, 6))):
        model.add("".join(draw(st.sampled_from(letters)) for _ in layout), since=LONG_AGO)
    for _ in range(draw(st.integers(0, 2))):
        model.add("." * len(layout), state=PodState.STARTING)
    return model


@given(models("..R"))
def test_with_all_else_done_it_comes_down_to_the_pods_that_hold_reservations(model: PoolModel) -> None:
    """G2: to those, and to no fewer than the minimum."""
    model.settings["idle_slots"] = {}
    holding = {name for name, pod in model.pods.items() if pod.load.reserved}
    model.sizes(30)
    assert holding <= model.pods.keys()
    assert len(model.pods) == max(len(holding), model.settings["min_replicas"])


@given(models("..rR"), st.lists(st.sampled_from(TYPES), max_size=12))
def test_under_a_constant_load_the_size_changes_at_most_once_after_settling(model: PoolModel, kinds: list[str]) -> None:
    """K2: neither a queue that nothing can take, nor a buffer, nor the thresholds make it go up and down."""
    for index, kind in enumerate(kinds):
        model.queue[f"t{index}"] = task(f"t{index}", kind)
    model.settle()
    sizes = [len(model.pods), *model.sizes(40)]
    # Pods grow old enough to go one after the other; whatever happens, it is in one direction, and it ends.
    assert sizes in (sorted(sizes), sorted(sizes, reverse=True)), sizes
    assert len(set(sizes)) <= 2, sizes
    assert len(set(sizes[-10:])) == 1, sizes


@given(models("..rR"), st.lists(st.sampled_from(TYPES), max_size=12))
def test_every_task_that_fits_below_the_maximum_is_placed_and_none_is_lost(model: PoolModel, kinds: list[str]) -> None:
    """T1, T4, T11: the model itself fails when a Pod goes that holds anything."""
    model.settings["max_replicas"] = 1000
    for index, kind in enumerate(kinds):
        model.queue[f"t{index}"] = task(f"t{index}", kind)
    before = _held(model)
    accepted = {name for accepts in model.layout for name in accepts}
    runnable = sum(kind in accepted for kind in kinds)
    model.sizes(12)
    assert {item.spec.type for item in model.queue.values()}.isdisjoint(accepted)
    assert _held(model) == before + runnable


ONE_BY_ONE_ROUNDS = 200
"""Of half a minute. A pool has at most 8 Pods here, and the slowest rules take one in a minute and a half."""


@given(models("..R"), behaviors, st.sampled_from([(), (noon,)]))
def test_however_slowly_it_comes_down_to_the_pods_that_hold_reservations(
    model: PoolModel, behavior: Behavior, freeze: tuple[FreezeWindow, ...]
) -> None:
    """G2: windows, policies and freezes only say when. What only a tolerance keeps is kept for good."""
    down = replace(behavior.scale_down, tolerance=0.0)
    model.settings |= {"idle_slots": {}, "behavior": replace(behavior, scale_down=down), "freeze": freeze}
    holding = {name for name, pod in model.pods.items() if pod.load.reserved}
    model.sizes(ONE_BY_ONE_ROUNDS)
    assert holding <= model.pods.keys()
    assert len(model.pods) == max(len(holding), model.settings["min_replicas"])


@given(models("..rR"), behaviors, st.lists(st.sampled_from(TYPES), max_size=12))
def test_however_slowly_a_constant_load_settles_and_stays(
    model: PoolModel, behavior: Behavior, kinds: list[str]
) -> None:
    """K2: the size comes to a rest, and no passing of time alone moves it again."""
    model.settings["behavior"] = behavior
    for index, kind in enumerate(kinds):
        model.queue[f"t{index}"] = task(f"t{index}", kind)
    sizes = model.sizes(ONE_BY_ONE_ROUNDS)
    assert len(set(sizes[-40:])) == 1, sizes


@given(models("..rR"), behaviors, st.lists(st.sampled_from(TYPES), max_size=12))
def test_a_frozen_size_stays_whatever_comes(model: PoolModel, behavior: Behavior, kinds: list[str]) -> None:
    """T29: but within its bounds it is always (T5)."""
    model.settings |= {"behavior": behavior, "freeze": (noon,)}
    size = len(model.pods)
    for index, kind in enumerate(kinds):
        model.queue[f"t{index}"] = task(f"t{index}", kind)
    held = min(max(size, model.settings["min_replicas"]), model.settings["max_replicas"])
    assert {decision.desired for decision in (model.round() for _ in range(20))} == {held}


@given(models("..rR"), behaviors, st.lists(st.sampled_from(TYPES), max_size=12))
def test_however_fast_the_decision_is_always_within_bounds(
    model: PoolModel, behavior: Behavior, kinds: list[str]
) -> None:
    """T5: and with every other Pod lost in between."""
    model.settings["behavior"] = behavior
    for index, kind in enumerate(kinds):
        model.queue[f"t{index}"] = task(f"t{index}", kind)
    for _ in range(6):
        decision = model.round()
        assert model.settings["min_replicas"] <= decision.desired <= model.settings["max_replicas"]
        for name in list(model.pods)[::2]:
            del model.pods[name]


@given(models("..rR"), st.lists(st.sampled_from(TYPES), max_size=12), st.sampled_from(Fallback), st.data())
def test_a_signal_that_comes_and_goes_moves_no_size_under_a_constant_load(
    model: PoolModel, kinds: list[str], fallback: Fallback, data: st.DataObject
) -> None:
    """K2: neither the loss of it, nor the fallback and back."""
    model.settings["signal"] = Signal(url="http://p", fallback=fallback)
    for index, kind in enumerate(kinds):
        model.queue[f"t{index}"] = task(f"t{index}", kind)
    sizes = []
    for number in range(60):
        known = number < 20 or data.draw(st.booleans())
        model.settings["reading"] = _reading_of(model) if known else None
        model.round()
        sizes.append(len(model.pods))
    assert len(set(sizes[20:])) <= 2, sizes
    assert sizes[20:] in (sorted(sizes[20:]), sorted(sizes[20:], reverse=True)), sizes


def _reading_of(model: PoolModel) -> Reading:
    """What an exact Prometheus would say."""
    shares = {name: (pod.load.running + pod.load.reserved) / len(model.layout) for name, pod in model.pods.items()}
    utilization = tuple(Sample({"pod": name}, share) for name, share in shares.items())
    return Reading(model.now, Answer(model.now, utilization), Answer(model.now, (Sample({}, 0.0),)))


@given(models("..rR"), st.lists(st.sampled_from(TYPES), max_size=12))
def test_the_decision_is_always_within_bounds(model: PoolModel, kinds: list[str]) -> None:
    """T5."""
    for index, kind in enumerate(kinds):
        model.queue[f"t{index}"] = task(f"t{index}", kind)
    for _ in range(6):
        decision = model.round()
        assert model.settings["min_replicas"] <= decision.desired <= model.settings["max_replicas"]


@given(models("..rR"), st.lists(st.sampled_from(TYPES), max_size=12))
def test_nothing_shrinks_while_not_everything_is_known(model: PoolModel, kinds: list[str]) -> None:
    """T4, R3."""
    model.settings["synced"] = False
    for index, kind in enumerate(kinds):
        model.queue[f"t{index}"] = task(f"t{index}", kind)
    present = set(model.pods)
    model.sizes(6)
    assert present <= model.pods.keys()


def _held(model: PoolModel) -> int:
    return sum(slot.state is not SlotState.IDLE for pod in model.pods.values() for slot in pod.held)
