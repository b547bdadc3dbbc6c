"""One line for each slot transition, from which one can tell what was held at any time; and no other such line."""

from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from agent.rules.slots import TRANSITIONS
from agent.rules.state import Event
from agent.wire import SlotState
from tests.support.agent_process import AgentProcess, running_agent, wait_for
from tests.support.fake_worker import DIGEST, FakeWorker, one_step, two_steps

IDLE, RUNNING, RESERVED = SlotState
Way = Callable[[AgentProcess], None]
WAYS: dict[tuple[SlotState, Event], Way] = {}
"""How to bring each transition about, as the last one."""

FIELDS = {"slot", "task", "from", "to", "cause", "fence"}
ABOUT = {"time", "message", "pod", "pool"}
STATES = {state.value for state in SlotState}


def leads_to(state: SlotState, event: Event) -> Callable[[Way], Way]:
    def add(way: Way) -> Way:
        WAYS[state, event] = way
        return way

    return add


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    with running_agent(tmp_path, layout=[["plan_and_apply", "plan"], ["plan"]]) as agent:
        agent.open()
        yield agent


@pytest.mark.parametrize(("state", "event"), TRANSITIONS, ids=str)
def test_a_transition_is_one_line(state: SlotState, event: Event, agent: AgentProcess) -> None:
    assert (state, event) in WAYS, "nobody has shown its line"
    WAYS[state, event](agent)
    lines = until_all_are_written(agent)
    last = lines[-1]
    assert (last["from"], last["cause"], last["to"]) == (state, event, TRANSITIONS[state, event])
    assert last["task"] == "t.1"
    assert last["slot"] in {0, 1}
    check(agent, lines)


def until_all_are_written(agent: AgentProcess) -> list[dict[str, Any]]:
    """The lines of transitions. How many there were this start of the agent counted, and the journal knows the last."""

    def lines() -> list[dict[str, Any]]:
        return [line for line in agent.log_lines() if line["message"] == "slot"]

    def counted() -> float:
        figures = agent.metrics()
        return sum(value for name, value in figures.items() if name.startswith("podslots_slot_transitions_total"))

    def of_this_start() -> int:
        found, incarnation = agent.log_lines(), agent.state().incarnation
        begun = [number for number, line in enumerate(found) if line.get("incarnation") == incarnation]
        return sum(line["message"] == "slot" for line in found[begun[0] :]) if begun else -1

    wait_for(lambda: of_this_start() == counted() > 0, "each has its line, and no more")
    return lines()


def check(agent: AgentProcess, lines: list[dict[str, Any]]) -> None:
    """That they hang together, and that nobody else says such a thing."""
    for line in lines:
        assert line.keys() == FIELDS | ABOUT
        assert TRANSITIONS[SlotState(line["from"]), Event(line["cause"])] == line["to"]
    fences = [line["fence"] for line in lines]
    assert fences == sorted(set(fences))
    for _, of_slot in groupby(sorted(lines, key=lambda line: int(line["slot"])), lambda line: line["slot"]):
        before = None
        for line in of_slot:
            # A lost journal is the one thing that makes a slot idle without a transition.
            assert line["from"] == before or line["from"] == IDLE
            before = line["to"]
    for slot in agent.state().slots:
        mine = [line for line in lines if line["slot"] == slot.id]
        if mine:
            assert (slot.state, slot.fence) == (mine[-1]["to"], mine[-1]["fence"])
    for line in agent.log_lines():
        if line["message"] != "slot":
            assert not {"from", "to", "cause"} & line.keys(), line
            # What a restart found is no change of it.
            assert line["message"] == "slot restored" or not STATES & {str(value) for value in line.values()}, line


def test_what_is_repeated_or_refused_is_no_line(agent: AgentProcess) -> None:
    """Nor is what a restart reads in its journal."""
    slot = agent.acquire("t.1", "plan")
    lines = until_all_are_written(agent)
    agent.acquire("t.1", "plan")
    for body in ({"task_id": "t.1", "fence": 99}, {"task_id": "t.2", "fence": slot["fence"]}):
        assert agent.call("POST", f"/slots/{slot['slot']}/release", body, token=agent.credential("0"))[0] >= 400
        assert agent.call("POST", f"/slots/{slot['slot']}/reserve", body)[0] >= 400
    agent.restart()
    agent.post(f"/slots/{slot['slot']}/release", {"task_id": "t.1", "fence": slot["fence"]})
    agent.post(f"/slots/{slot['slot']}/release", {"task_id": "t.1", "fence": slot["fence"]})
    assert len(until_all_are_written(agent)) == len(lines) + 1
    check(agent, until_all_are_written(agent))


def test_a_transition_that_was_not_stored_is_no_line(agent: AgentProcess) -> None:
    """With a full disk nothing has happened."""
    agent.acquire("t.1", "plan")
    before = until_all_are_written(agent)
    agent.limit_file_size((agent.state_dir / "journal").stat().st_size)
    assert agent.call("POST", "/slots/1/release", {"task_id": "t.1", "fence": 1}, token=agent.close_token)[0] == 403
    with pytest.raises(Exception, match="storage"):
        agent.post("/slots/1/release", {"task_id": "t.1", "fence": 1})
    wait_for(lambda: any(line["message"] == "journal write failed" for line in agent.log_lines()), "that it failed")
    assert until_all_are_written(agent) == before
    agent.limit_file_size(None)
    wait_for(lambda: not agent.state().warnings, "the disk is well again")
    agent.post("/slots/1/release", {"task_id": "t.1", "fence": 1})
    assert len(until_all_are_written(agent)) == len(before) + 1


# --- ways -------------------------------------------------------------------------------------------------------------


def hold(agent: AgentProcess, *calls: str) -> None:
    fence = agent.acquire("t.1", "plan_and_apply")["fence"]
    for call in calls:
        fence = agent.post(f"/slots/0/{call}", {"task_id": "t.1", "fence": fence})["fence"]


for _state, _event, _calls in (
    (IDLE, Event.ACQUIRE, ()),
    (RUNNING, Event.RESERVE, ("reserve",)),
    (RUNNING, Event.RELEASE, ("release",)),
    (RESERVED, Event.RESUME, ("reserve", "resume")),
    (RESERVED, Event.RELEASE, ("reserve", "release")),
):
    leads_to(_state, _event)(lambda agent, calls=_calls: hold(agent, *calls))  # type: ignore[misc]


def planned(agent: AgentProcess, ttl_seconds: int = 3600) -> FakeWorker:
    worker = FakeWorker(agent, 0)
    worker.register()
    agent.acquire("t.1", "plan_and_apply", two_steps(ttl_seconds=ttl_seconds))
    worker.run()
    return worker


def started(agent: AgentProcess) -> FakeWorker:
    worker = FakeWorker(agent, 1)
    worker.register()
    agent.acquire("t.1", "plan", one_step())
    worker.start(worker.take())
    return worker


@leads_to(RUNNING, Event.PLANNED)
def plan(agent: AgentProcess) -> None:
    planned(agent)


@leads_to(RUNNING, Event.FINISH)
def finish(agent: AgentProcess) -> None:
    worker = FakeWorker(agent, 1)
    worker.register()
    agent.acquire("t.1", "plan", one_step())
    worker.run()


@leads_to(RUNNING, Event.LOSE)
def lose_what_runs(agent: AgentProcess) -> None:
    started(agent).successor(forget=True).register()


@leads_to(RESERVED, Event.LOSE)
def lose_what_waits(agent: AgentProcess) -> None:
    planned(agent).successor(forget=True).register()


@leads_to(RESERVED, Event.APPROVE)
def approve(agent: AgentProcess) -> None:
    planned(agent)
    agent.post("/tasks/t.1/approve", {"plan_digest": DIGEST, "attempt": 1})


@leads_to(RESERVED, Event.CANCEL)
def cancel(agent: AgentProcess) -> None:
    planned(agent)
    agent.post("/tasks/t.1/cancel")


@leads_to(RESERVED, Event.EXPIRE)
def expire(agent: AgentProcess) -> None:
    planned(agent, ttl_seconds=1)
    wait_for(lambda: agent.state().slots[0].state is IDLE, "nobody approved it in time")


@leads_to(IDLE, Event.ADOPT_RUNNING)
def adopt_what_runs(agent: AgentProcess) -> None:
    forget_and_ask(agent, started(agent))


@leads_to(IDLE, Event.ADOPT_RESERVED)
def adopt_what_waits(agent: AgentProcess) -> None:
    forget_and_ask(agent, planned(agent))


def forget_and_ask(agent: AgentProcess, worker: FakeWorker) -> None:
    """The journal is lost. What was decided before has its lines, and is in no way undone by one."""
    until_all_are_written(agent)
    agent.kill()
    (agent.state_dir / "journal").unlink()
    agent.start()
    worker.successor().register()
