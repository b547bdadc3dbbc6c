"""What Prometheus says: joined with the Pods there are, believed only if it is whole, and never against an agent."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from controller.crds import folder
from controller.decide.pools.pool_status import Before, pool_status, signal_problem
from controller.decide.problem import Problems
from controller.decide.reading import Answer, Reading, Sample, parse_answer
from controller.decide.scaling.signal import SignalWord
from controller.decide.scaling.size import Reason, SizeDecision, decide_size
from controller.decide.view import PodView, PoolView
from controller.errors import SignalError
from controller.local.apiserver.schema.structural import CustomSchema
from controller.local.apiserver.schema.validation import validate
from controller.objects.scaling_history import ScalingHistory
from controller.objects.signal import Fallback, Signal
from tests.support.pools import LONG_AGO, NOW, pod, pool, tasks

SIGNAL = Signal(url="http://prometheus:9090", window_seconds=120)


def answer(
    values: Mapping[str, float], *, label: str = "pod", at: datetime = NOW, partial: str | None = None
) -> Answer:
    return Answer(at, tuple(Sample({label: name}, value) for name, value in values.items()), partial)


def reading(used: Mapping[str, float], waiting: Mapping[str, float] | None = None, **given: Any) -> Reading:
    queue = Answer(
        NOW, tuple(Sample({"type": kind} if kind else {}, count) for kind, count in (waiting or {"": 0}).items())
    )
    return replace(Reading(taken=NOW, utilization=answer(used), queue=queue), **given)


def served(*slots: str) -> tuple[PodView, ...]:
    """Pods that have been open for long."""
    return tuple(pod(f"p{index}", letters, opened=LONG_AGO) for index, letters in enumerate(slots))


def asking(present: tuple[PodView, ...], said: Reading | None, waiting: Any = (), **given: Any) -> PoolView:
    return pool(present, waiting, **{"signal": SIGNAL, **given, "reading": said})


def decide(present: tuple[PodView, ...], said: Reading | None, waiting: Any = (), **given: Any) -> SizeDecision:
    return decide_size(asking(present, said, waiting, **given))


def word(decision: SizeDecision) -> str | None:
    found = signal_problem(decision)
    return None if found is None else found.reason


# --- what it does -----------------------------------------------------------------------------------------------------


def test_it_makes_a_pool_larger_than_the_agents_alone_would() -> None:
    decision = decide(served("r..", "r.."), reading({"p0": 1.0, "p1": 1.0}))
    assert (decision.desired, decision.reason) == (3, Reason.UTILIZATION_ABOVE)
    assert decision.utilization_percent == pytest.approx(100)


def test_it_keeps_a_pool_from_shrinking_for_a_moment_s_idleness() -> None:
    """On average over the window more was used than the lower threshold."""
    present = served("...", "...", "...")
    assert decide(present, reading({"p0": 0.5, "p1": 0.5, "p2": 0.5})).desired == 3
    assert decide(present, reading({"p0": 0.1, "p1": 0.0, "p2": 0.0})).desired == 1


def test_it_lets_a_pool_shrink_if_agents_are_idle_too() -> None:
    assert decide(served("...", "..."), reading({"p0": 0.0, "p1": 0.0})).desired == 0


def test_what_agents_hold_outranks_it() -> None:
    """A moment ago all was idle, says the average; now a task runs in each."""
    present = tuple(pod(f"p{n}", "rrr", opened=LONG_AGO, since=NOW - timedelta(seconds=5)) for n in range(2))
    decision = decide(present, reading({"p0": 0.0, "p1": 0.0}))
    assert (decision.desired, word(decision)) == (3, None)


def test_a_queue_that_only_it_knows_is_demand() -> None:
    assert decide((), reading({}, {"apply": 3})).desired == 3
    assert decide((), reading({}, {"apply": 3}), tasks("apply", 2)).desired == 3
    assert decide((), reading({}, {"apply": 1}), tasks("apply", 2)).desired == 2


def test_a_queue_without_types_counts_beyond_what_is_known_and_where_it_fits_best() -> None:
    """12 wait, 2 of them are known: the other 10 are taken for plans, which any slot takes."""
    decision = decide((), reading({}, {"": 12}), tasks("apply", 2), scale_up_utilization_percent=100)
    assert decision.desired == 4
    assert decide((), reading({}, {"": 2}), tasks("apply", 2)).desired == 2


def test_a_type_that_no_slot_takes_is_no_demand() -> None:
    assert decide((), reading({}, {"render": 5})).desired == 0


def test_the_queue_that_is_exposed_is_the_controller_s_own() -> None:
    """Else the default query would find its own answer again, for ever."""
    assert decide((), reading({}, {"": 9})).queued_tasks == 0


def test_series_of_pods_that_are_gone_count_for_nothing() -> None:
    """K3."""
    decision = decide(served("r.."), reading({"p0": 0.3, "gone": 1.0, "gone-too": float("nan")}))
    assert (decision.desired, word(decision)) == (1, None)


def test_series_of_other_namespaces_count_for_nothing() -> None:
    foreign = Sample({"pod": "p0", "namespace": "other"}, 1.0)
    own = Sample({"pod": "p0", "namespace": "ns"}, 0.4)
    said = reading({}, utilization=Answer(NOW, (foreign, own)))
    decision = decide(served("r.."), said)
    assert (decision.desired, word(decision)) == (1, None)


def test_a_pod_that_no_scrape_can_have_found_yet_counts_as_its_agent_says() -> None:
    young = pod("young", "rrr", opened=NOW - timedelta(seconds=100))
    decision = decide((*served("rr."), young), reading({"p0": 0.7}))
    assert (decision.desired, word(decision)) == (3, None)


def test_until_the_first_scrape_has_found_a_pod_the_size_is_held_and_nobody_is_warned() -> None:
    """A Prometheus that was restarted empty looks the same."""
    young = pod("young", "...", opened=NOW - timedelta(seconds=20))
    view = asking((young,), reading({}))
    decision = decide_size(view)
    assert (decision.desired, decision.reason, word(decision)) == (1, Reason.SIGNAL_LOST, None)
    status = pool_status(view, decision, before=Before(generation=1), problems=Problems())
    active = next(entry for entry in status["conditions"] if entry["type"] == "ScalingActive")
    assert (active["status"], active["reason"]) == ("False", "SignalAwaited")


def test_until_the_first_answer_the_size_is_held_and_nobody_is_warned() -> None:
    """As each time that another one leads."""
    decision = decide(served("...", "..."), None)
    assert (decision.desired, decision.reason, word(decision)) == (2, Reason.SIGNAL_LOST, None)
    assert decision.basis.signal.held


def test_a_pod_that_was_found_is_found_whatever_the_others_do() -> None:
    young = tuple(pod(f"young-{n}", "...", opened=NOW - timedelta(seconds=20)) for n in range(3))
    decision = decide((*young, *served("r..")), reading({"p0": 0.33}))
    assert (decision.reason, word(decision)) != (Reason.SIGNAL_LOST, None)
    assert decision.basis.signal.problem is None


# --- what is no answer ------------------------------------------------------------------------------------------------

IDLE = {"p0": 0.0, "p1": 0.0, "p2": 0.0}
UNUSABLE: dict[str, tuple[Reading | None, SignalWord]] = {
    "nobody there (K1)": (Reading(error="connection refused"), SignalWord.UNAVAILABLE),
    "nobody there any more (K1)": (
        reading(IDLE, taken=NOW - timedelta(seconds=46), error="connection refused"),
        SignalWord.UNAVAILABLE,
    ),
    "an old answer": (reading(IDLE, taken=NOW - timedelta(seconds=46)), SignalWord.STALE),
    "an answer from a cache": (
        reading(IDLE, utilization=answer(IDLE, at=NOW - timedelta(seconds=181))),
        SignalWord.STALE,
    ),
    "no utilization": (reading({}), SignalWord.EMPTY),
    "only Pods that are gone (K3)": (reading({"gone": 0.0}), SignalWord.EMPTY),
    "no queue": (reading(IDLE, queue=Answer(NOW, ())), SignalWord.EMPTY),
    "utilization is no number": (reading({**IDLE, "p1": float("nan")}), SignalWord.INVALID),
    "utilization below 0": (reading({**IDLE, "p1": -0.1}), SignalWord.INVALID),
    "utilization in percent": (reading({**IDLE, "p1": 80.0}), SignalWord.INVALID),
    "queue is no number": (reading(IDLE, {"": float("nan")}), SignalWord.INVALID),
    "queue without end": (reading(IDLE, {"": float("inf")}), SignalWord.INVALID),
    "queue below 0": (reading(IDLE, {"plan": -1}), SignalWord.INVALID),
    "no label pod": (reading(IDLE, utilization=answer(IDLE, label="instance")), SignalWord.INVALID),
    "a Pod is missing": (reading({"p0": 0.0, "p2": 0.0}), SignalWord.PARTIAL),
    "a part did not answer": (reading(IDLE, utilization=answer(IDLE, partial="store down")), SignalWord.PARTIAL),
    "one Pod twice": (
        reading(IDLE, utilization=Answer(NOW, tuple(Sample({"pod": name}, 0.0) for name in ("p0", "p1", "p2", "p1")))),
        SignalWord.CONTRADICTORY,
    ),
}


@pytest.mark.parametrize(("said", "why"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_is_no_answer_holds_the_size_and_says_so(said: Reading | None, why: SignalWord) -> None:
    """R3, K1, K3: nothing shrinks, although every Pod is idle."""
    view = asking(served("...", "...", "..."), said)
    decision = decide_size(view)
    assert (decision.desired, decision.reason, word(decision)) == (3, Reason.SIGNAL_LOST, why)
    status = pool_status(view, decision, before=Before(generation=1), problems=Problems())
    active = next(entry for entry in status["conditions"] if entry["type"] == "ScalingActive")
    assert (active["status"], active["reason"]) == ("False", why)


@pytest.mark.parametrize(("said", "why"), UNUSABLE.values(), ids=UNUSABLE)
def test_with_agents_as_the_fallback_they_count_alone_and_it_is_said_all_the_same(
    said: Reading | None, why: SignalWord
) -> None:
    view = asking(served("...", "...", "..."), said, signal=replace(SIGNAL, fallback=Fallback.AGENTS))
    decision = decide_size(view)
    assert (decision.desired, word(decision)) == (0, why)
    status = pool_status(view, decision, before=Before(generation=1), problems=Problems())
    active = next(entry for entry in status["conditions"] if entry["type"] == "ScalingActive")
    assert (active["status"], active["reason"]) == ("True", "ByAgents")


def test_idle_says_the_signal_and_held_all_the_while_says_the_agent() -> None:
    """R3: statistics read 0 while jobs were assigned, and the pool was scaled to 0."""
    decision = decide(served("r..", "...", "..."), reading(IDLE))
    assert (decision.desired, word(decision)) == (3, SignalWord.CONTRADICTORY)
    lately = pod("p0", "r..", opened=LONG_AGO, since=NOW - timedelta(seconds=179))
    assert word(decide((lately, *served("...", "...", "...")[1:]), reading(IDLE))) is None


def test_a_lost_signal_never_shrinks_and_what_waits_is_met_all_the_same() -> None:
    """T4: rule 5. Scaling up on what is known stays allowed."""
    lost = Reading(error="connection refused")
    assert decide(served("...", "..."), lost).desired == 2
    assert decide(served("..."), lost, tasks("apply", 4)).desired == 4
    assert decide((), lost, tasks("apply", 4)).desired == 4
    assert decide((), lost, idle_slots={"apply": 2}).desired == 2
    assert decide(served("rrr"), lost).desired == 1, "no threshold is looked at"


def test_a_held_size_is_the_one_that_was_decided_on() -> None:
    """A Pod that dies meanwhile is replaced."""
    assert decide(served("..."), Reading(error="gone"), history=ScalingHistory(desired=2)).desired == 2


def test_a_held_size_is_within_bounds() -> None:
    """T5."""
    lost = Reading(error="connection refused")
    assert decide(served("..."), lost, min_replicas=3).desired == 3
    assert decide(served("...", "...", "..."), lost, max_replicas=2).desired == 2


def test_a_pool_without_pods_needs_no_utilization() -> None:
    decision = decide((), reading({}))
    assert (decision.desired, word(decision)) == (0, None)


def test_a_pool_that_is_paused_or_deleted_has_no_signal() -> None:
    assert word(decide(served("..."), None, paused=True)) is None
    assert word(decide(served("..."), None, deleting=True)) is None


values = st.one_of(st.floats(), st.floats(0, 1), st.just(0.0))
samples = st.lists(
    st.builds(
        Sample,
        st.dictionaries(
            st.sampled_from(["pod", "namespace", "type"]), st.sampled_from(["p0", "p1", "ns", "plan", "x"])
        ),
        values,
    ),
    max_size=4,
).map(tuple)
answers = st.builds(Answer, st.sampled_from([NOW, LONG_AGO]), samples, st.sampled_from([None, None, "warning"]))
readings = st.none() | st.builds(
    Reading,
    st.sampled_from([None, NOW, LONG_AGO]),
    st.none() | answers,
    st.none() | answers,
    st.none() | st.just("error"),
)


@given(st.lists(st.text(".rR", min_size=3, max_size=3), max_size=3), readings)
def test_whatever_it_says_no_pool_gets_smaller_than_by_its_agents_alone(slots: list[str], said: Reading | None) -> None:
    """It can make a pool larger, and lets go only what agents have granted."""
    present = served(*slots)
    alone = decide_size(pool(present))
    decision = decide(present, said)
    assert decision.desired >= min(alone.desired, len(present))
    if decision.basis.signal.held:
        assert decision.desired >= len(present)


# --- its words --------------------------------------------------------------------------------------------------------


def test_an_answer_of_prometheus_is_understood() -> None:
    document = {
        "status": "success",
        "data": {"resultType": "vector", "result": [{"metric": {"pod": "p0"}, "value": [1772366400, "0.5"]}]},
    }
    assert parse_answer(document) == Answer(NOW, (Sample({"pod": "p0"}, 0.5),))
    scalar = {"status": "success", "data": {"resultType": "scalar", "result": [1772366400, "7"]}, "warnings": ["late"]}
    assert parse_answer(scalar) == Answer(NOW, (Sample({}, 7.0),), "late")


NO_ANSWERS: list[Any] = [
    None,
    [],
    {},
    "x",
    {"status": "success"},
    {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": ["x", "y"]}]}},
    {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}}]}},
    {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1e30, "1"]}]}},
    {"status": "success", "data": {"resultType": "vector", "result": None}},
    {"status": "success", "data": {"resultType": "vector", "result": [{"metric": "pod", "value": [1, "1"]}]}},
    {"status": "success", "data": {"resultType": "matrix", "result": []}},
    {"status": "error", "errorType": "bad_data", "error": "parse error"},
]


@pytest.mark.parametrize("document", NO_ANSWERS)
def test_what_is_none_is_refused(document: Any) -> None:
    with pytest.raises(SignalError):
        parse_answer(document)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3),
    lambda part: (
        st.lists(part, max_size=3)
        | st.dictionaries(
            st.sampled_from(["status", "data", "resultType", "result", "metric", "value", "warnings"]), part
        )
    ),
)


@given(json_values)
def test_no_document_breaks_it(document: Any) -> None:
    try:
        parse_answer(document)
    except SignalError:
        return


# --- answers that mean harm -------------------------------------------------------------------------------------------

POOLS = CustomSchema.compile(yaml.safe_load((folder() / "slotpools.yaml").read_text())["spec"]["versions"][0])
ODD_COUNTS = st.sampled_from([0.0, 1.0, 1e9, 1e10, 1e308, 1.7e308, float("inf"), float("nan"), -1.0, 1e-320])


@given(st.lists(st.tuples(st.sampled_from(["", "plan", "apply", "render"]), ODD_COUNTS), min_size=1, max_size=4))
def test_no_count_breaks_a_decision(counts: list[tuple[str, float]]) -> None:
    """The sum of two may be more than a float can be, or the status can hold."""
    said = Answer(NOW, tuple(Sample({"type": kind} if kind else {}, count) for kind, count in counts))
    for present, used in ((served("r..", "R.."), {"p0": 1.0, "p1": 1.0}), ((), {})):
        check_decision(asking(present, Reading(taken=NOW, utilization=answer(used), queue=said), tasks("plan", 1)))


def check_decision(view: PoolView) -> None:
    """The size is within bounds, and the status can be written."""
    decision = decide_size(view)
    assert len([pod for pod in view.pods if pod.held]) <= decision.desired <= 20
    status = pool_status(view, decision, before=Before(generation=1), problems=Problems())
    stored = {"metadata": {"name": "n", "namespace": "ns"}, "spec": {"template": {}}, "status": status}
    assert not [cause for cause in validate(POOLS, POOLS.default(stored), None) if "status" in cause.field]


def test_words_without_end_are_cut() -> None:
    with pytest.raises(SignalError) as error:
        parse_answer({"status": "error", "errorType": "bad_data", "error": "x" * 1_000_000})
    assert len(str(error.value)) <= 1000
    found = {"status": "success", "data": {"resultType": "vector", "result": []}, "warnings": ["w" * 1_000_000]}
    assert len(parse_answer(found).partial or "") == 1000
