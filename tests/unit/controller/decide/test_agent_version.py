"""Agents of other versions: what a later one may say, and what becomes of one that is too old."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from agent import __version__
from agent.wire import AgentState, ErrorCode, Phase, encode
from controller.act.pools import Pools
from controller.agents.answers import misunderstood, refusal
from controller.agents.client import AgentClient, Stamps
from controller.decide.agent_version import MINIMUM, is_too_old
from controller.decide.pods.pod_actions import CreatePods, OpenPod, pod_actions
from controller.decide.pools.pool_status import Before, pool_status, too_old_agents
from controller.decide.problem import Problems
from controller.decide.scaling.size import decide_size
from controller.decide.view import Offer, PodState, PodView
from controller.errors import AgentRefused, AgentUnreachable
from tests.support.pools import agent, pod, pool, tasks


@pytest.mark.parametrize(
    ("version", "old"),
    [
        ("0.0.9", True),
        ("0.0.99-rc.1", True),
        ("0", True),
        (MINIMUM, False),
        (f"{MINIMUM}-rc.1", False),
        (f"{MINIMUM}+build.7", False),
        ("0.1", False),
        ("0.10.0", False),
        ("1", False),
        ("12.0.1.4", False),
        ("main", False),
        ("", False),
    ],
)
def test_versions_are_compared_as_numbers_and_what_is_none_is_not_judged(version: str, old: bool) -> None:
    assert is_too_old(version) is old


def test_the_agent_of_this_tree_is_new_enough() -> None:
    assert not is_too_old(__version__)


def aged(view: PodView, version: str = "0.0.9") -> PodView:
    assert view.agent is not None
    return replace(view, agent=replace(view.agent, version=version))


def test_a_pod_whose_agent_is_too_old_is_not_opened() -> None:
    fresh = replace(pod("a", "...", state=PodState.STARTING), agent=agent("a", phase=Phase.DRAINED))
    assert [type(action) for action in plan_of(fresh)] == [OpenPod]
    assert plan_of(aged(fresh)) == ()


def plan_of(*pods: PodView) -> tuple[Any, ...]:
    view = pool(list(pods), replicas=len(pods))
    return pod_actions(view, decide_size(view))


def test_new_pods_with_old_agents_bring_no_more_of_them() -> None:
    """They count as coming, however long: the same image would not be newer in another Pod."""
    fresh = aged(replace(pod("a", "...", state=PodState.STARTING), agent=agent("a", phase=Phase.DRAINED)))
    view = pool([fresh], tasks("plan", 2))
    assert fresh.offer is Offer.COMING
    assert not [action for action in pod_actions(view, decide_size(view)) if isinstance(action, CreatePods)]


def test_a_pod_in_use_keeps_what_it_holds_and_gets_nothing_new() -> None:
    """Rule 2: what it reports is believed; the new work goes to a new Pod."""
    old = aged(pod("a", "rR."))
    assert old.offer is Offer.NOTHING
    assert len(old.held) == 2
    view = pool([old], tasks("plan", 1))
    actions = pod_actions(view, decide_size(view))
    assert [action for action in actions if isinstance(action, CreatePods)] == [CreatePods(1)]
    assert len(actions) == 1


def test_the_pool_says_which_agents_are_too_old() -> None:
    view = pool([aged(pod("b", "...")), pod("a", "...")], replicas=2)
    status = pool_status(view, decide_size(view), before=Before(generation=1), problems=Problems())
    degraded = next(entry for entry in status["conditions"] if entry["type"] == "Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "AgentTooOld")
    assert degraded["message"] == f"Older than {MINIMUM}, and given nothing new: b (0.0.9)."


def test_an_event_says_it_once_and_again_when_it_is_others() -> None:
    told: list[tuple[str, str]] = []
    pools: Any = object.__new__(Pools)
    pools._told = {}
    pools._events = SimpleNamespace(event=lambda _, reason, message, **__: told.append((reason, message)))
    document = {"metadata": {"namespace": "n", "name": "p", "uid": "u"}}
    one, two = (too_old_agents(pool([aged(pod(name, "..."))], replicas=1)) for name in ("a", "b"))
    for problem in (one, one, two, two, None, two):
        pools.tell(document, () if problem is None else (problem,))
    assert [reason for reason, _ in told] == ["AgentTooOld"] * 3
    assert [message[-9:] for _, message in told] == ["a (0.0.9)", "b (0.0.9)", "b (0.0.9)"]


class Answers:
    """A transport with one answer."""

    def __init__(self, status: int, body: bytes) -> None:
        self.answer = status, body

    async def request(self, *_: Any, **__: Any) -> tuple[int, bytes]:
        return self.answer

    def stream(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


def client(status: int, body: bytes) -> AgentClient:
    return AgentClient(Answers(status, body), "http://a", "uid-a", token=lambda: None, stamps=Stamps(lambda: 1))


def body_of(state: AgentState, **more: Any) -> bytes:
    import orjson  # noqa: PLC0415 - for this one helper

    return orjson.dumps({**encode(state), **more})


async def test_what_a_later_agent_says_besides_is_ignored() -> None:
    state = agent("a", "r..")
    said = body_of(state, weather={"wind": [1, 2]}, version="99.1.0-next")
    assert await client(200, said).state() == replace(state, version="99.1.0-next")


async def test_an_error_code_that_is_not_known_is_still_a_refusal() -> None:
    error = refusal(409, b'{"error":"too_windy","message":"no","until":"noon"}')
    assert isinstance(error, AgentRefused)
    assert error.code not in set(ErrorCode)


async def test_an_answer_too_old_to_be_understood_is_called_that() -> None:
    olds: tuple[Any, ...] = ({"version": "0.0.3", "slots": 3}, {"type": "STATE", "state": {"version": "0.0.3"}})
    for document in olds:
        assert "0.0.3 is older than" in str(misunderstood(ValueError("x"), document))
    with pytest.raises(AgentUnreachable, match=r"0\.0\.3 is older than"):
        await client(200, b'{"version":"0.0.3"}').state()
    others: tuple[Any, ...] = ({"version": 3}, {"state": None}, [], None, {"version": MINIMUM})
    for document in others:
        assert "not an agent's answer" in str(misunderstood(ValueError("x"), document))
