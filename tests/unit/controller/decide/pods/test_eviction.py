"""What is answered to an Eviction: what holds the Pod and until when, not too often, and its end."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from agent.wire import Step
from controller import names
from controller.decide.pods.eviction import (
    HEARTBEAT,
    MAX_MESSAGE,
    MIN_PAUSE,
    Answer,
    Eviction,
    Reply,
    format_seconds,
    reply,
)
from controller.decide.view import PodState, PodView
from controller.objects.task import Task
from tests.support.pools import NOW, pod, task

OTHER = "example.org/backup"
STARTED = NOW - timedelta(seconds=5)
EXPIRES = NOW + timedelta(hours=3)


def eviction(*, state: str = "Active", intents: tuple[str, ...] = ("Eviction",), **ours: Any) -> Eviction:
    """An Eviction of Pod `p`; `ours` is what our entry says besides."""
    found = Eviction.parse(
        {
            "metadata": {"namespace": "ns", "name": "e", "uid": "uid-e", "resourceVersion": "7"},
            "spec": {"target": {"pod": {"name": "p", "uid": "uid-p"}}},
            "status": {
                "requesters": [{"name": f"example.org/r{at}", "intent": text} for at, text in enumerate(intents)],
                "targetResponders": [
                    {"name": OTHER, "priority": 20_000, "state": "Interrupted"},
                    {"name": names.EVICTION_RESPONDER, "priority": 10_000, "state": state},
                ],
                "responders": [
                    {"name": OTHER, "message": "theirs"},
                    {"name": names.EVICTION_RESPONDER, "startTime": format_seconds(STARTED), **ours},
                ],
            },
        }
    )
    assert found is not None
    return found


def answered(answer: Answer | None) -> Eviction:
    """The Eviction after this answer was written."""
    assert answer is not None
    given: dict[str, Any] = {"heartbeatTime": format_seconds(answer.heartbeat), "message": answer.message}
    if answer.expected is not None:
        given["expectedCompletionTime"] = format_seconds(answer.expected)
    return eviction(**given)


def reserved(expires: datetime | None = EXPIRES) -> PodView:
    return holding("R..", expires_at=expires, task_id="vpc.1")


def holding(slots: str, **of_first: Any) -> PodView:
    """A Pod whose first slot is as said."""
    view = pod("p", slots)
    assert view.agent is not None
    first, *rest = view.agent.slots
    return replace(view, agent=replace(view.agent, slots=(replace(first, **of_first), *rest)))


def limited(name: str, seconds: int) -> Task:
    """A task whose plan has a time limit, and 60 s to stop."""
    given = task(name, "plan_and_apply")
    assert given.spec.steps.plan is not None
    steps = replace(given.spec.steps, plan=replace(given.spec.steps.plan, timeout_seconds=seconds))
    return replace(given, spec=replace(given.spec, steps=steps))


def said(view: PodView | None, *tasks: Task, of: Eviction | None = None, now: datetime = NOW) -> Answer:
    answer = reply(of or eviction(), view, {given.uid: given for given in tasks}, now).answer
    assert answer is not None
    return answer


def test_a_reservation_is_named_with_its_expiry() -> None:
    answer = said(reserved(), task("vpc", "plan_and_apply"))
    assert answer == Answer(
        heartbeat=NOW,
        expected=EXPIRES,
        message=(
            "Pod p takes no new task, and is deleted once it holds nothing. slot 0: task vpc is planned and awaits its "
            "approval, until 2026-03-01T15:00:00Z at the latest"
        ),
    )


def test_a_step_is_named_with_its_time_limit_and_grace() -> None:
    view = holding("r..", task_id="vpc.1", step=Step.PLAN, since=NOW - timedelta(seconds=100))
    answer = said(view, limited("vpc", 600))
    assert answer.expected == NOW + timedelta(seconds=560)
    assert "task vpc runs its plan, until 2026-03-01T12:09:20Z at the latest" in answer.message


UNTOLD: dict[str, PodView] = {
    "a step has no limit": holding("r..", task_id="free.1", step=Step.PLAN),
    "one of two has no limit": holding("Rr.", expires_at=EXPIRES, task_id="vpc.1"),
    "the limit is over": reserved(NOW - timedelta(seconds=1)),
    "the agent is not heard": replace(reserved(), connected=False),
    "the journal was lost": holding("R?.", expires_at=EXPIRES, task_id="vpc.1"),
    "nothing is held": pod("p", "..."),
}


@pytest.mark.parametrize("view", UNTOLD.values(), ids=UNTOLD.keys())
def test_no_end_is_told_where_it_is_not_known(view: PodView) -> None:
    assert said(view, task("vpc", "plan_and_apply"), task("free")).expected is None


def test_what_is_not_known_is_said() -> None:
    assert "its agent does not answer" in said(replace(reserved(), connected=False)).message
    assert "after a lost journal it is not known" in said(UNTOLD["the journal was lost"]).message
    assert "2 results are not stored yet" in said(pod("p", "...", ended=("a.1", "b.1"))).message
    assert said(pod("p", "...")).message == "Pod p holds nothing and is being deleted"


def test_the_message_is_never_longer_than_the_api_allows() -> None:
    letters = "R" * 16
    long = [task("x" * 253 + str(at), "plan_and_apply") for at in range(16)]
    tasks = [replace(given, uid=f"u{at}") for at, given in enumerate(long)]
    view = pod("p", letters, layout=(("plan_and_apply",),) * 16, tasks=[f"u{at}.1" for at in range(16)])
    message = said(view, *tasks).message
    assert len(message) == MAX_MESSAGE
    assert message.endswith("…")


def test_times_are_whole_seconds_and_never_before_the_start_or_the_last_heartbeat() -> None:
    late = timedelta(milliseconds=700)
    answer = said(reserved(EXPIRES + late), now=NOW + late)
    assert (answer.heartbeat, answer.expected) == (NOW, EXPIRES + timedelta(seconds=1))
    behind = NOW - timedelta(seconds=20)
    assert said(reserved(), now=behind).heartbeat == STARTED
    known = eviction(heartbeatTime=format_seconds(NOW), message="?")
    assert said(None, of=known, now=behind).completed == NOW


def test_it_is_repeated_every_minute_and_news_come_sooner_but_not_at_once() -> None:
    first = reply(eviction(), reserved(), {}, NOW)
    assert first.again_seconds == HEARTBEAT.total_seconds()
    known, second = answered(first.answer), timedelta(seconds=1)
    assert reply(known, reserved(), {}, NOW + second) == Reply(again_seconds=59.0)
    assert reply(known, reserved(), {}, NOW + HEARTBEAT).answer == replace(said(reserved()), heartbeat=NOW + HEARTBEAT)
    changed = pod("p", "...", ended=("vpc.1",))
    assert reply(known, changed, {}, NOW + second) == Reply(again_seconds=19.0)
    assert reply(known, changed, {}, NOW + MIN_PAUSE).answer is not None


GOING: dict[str, PodView | None] = {
    "gone": None,
    "drained and deleted": pod("p", "...", state=PodState.DRAINING, deleting=True),
    "never opened, and deleted": pod("p", None, state=PodState.STARTING, deleting=True),
}


@pytest.mark.parametrize("view", GOING.values(), ids=GOING.keys())
def test_it_is_completed_at_once_when_the_pod_goes(view: PodView | None) -> None:
    known = eviction(heartbeatTime=format_seconds(NOW), message="holds something")
    answer = said(view, of=known, now=NOW + timedelta(seconds=1))
    assert answer.completed == answer.heartbeat == NOW + timedelta(seconds=1)


def test_a_pod_that_somebody_deletes_while_it_works_is_not_completed() -> None:
    assert said(replace(reserved(), deleting=True)).completed is None


QUIET = {
    "not our turn": eviction(state="Inactive"),
    "canceled": eviction(state="Canceled"),
    "interrupted": eviction(state="Interrupted"),
    "withdrawn by all": eviction(intents=("Withdrawn", "Withdrawn")),
    "completed": eviction(completionTime=format_seconds(NOW), heartbeatTime=format_seconds(NOW)),
}


@pytest.mark.parametrize("given", QUIET.values(), ids=QUIET.keys())
@pytest.mark.parametrize("view", [reserved(), None], ids=["there", "gone"])
def test_nothing_is_asked_or_answered_any_more(given: Eviction, view: PodView | None) -> None:
    assert not given.asks
    assert reply(given, view, {}, NOW) == Reply()


def test_as_long_as_one_requester_wants_it_it_is_asked_for() -> None:
    assert eviction(intents=("Withdrawn", "Eviction")).asks


def test_an_eviction_that_does_not_name_us_is_none_of_ours() -> None:
    metadata = {"namespace": "ns", "name": "e", "uid": "u", "resourceVersion": "1"}
    target = {"target": {"pod": {"name": "p", "uid": "uid-p"}}}
    others = {"targetResponders": [{"name": OTHER, "priority": 1, "state": "Active"}]}
    assert Eviction.parse({"metadata": metadata, "spec": target, "status": others}) is None
    assert Eviction.parse({"metadata": metadata, "spec": target}) is None
