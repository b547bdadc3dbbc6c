"""Requests that race, repeat, come late or out of order."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.wire import Phase, SlotState
from tests.support.agent_process import POOL_TOKEN, AgentProcess, running_agent
from tests.support.fake_worker import DIGEST, FakeWorker, one_step, two_steps

HEADERS = {"Authorization": f"Bearer {POOL_TOKEN}"}
RACES = 1000

Answer = tuple[int, dict[str, Any]]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    with running_agent(tmp_path) as agent:
        agent.open()
        yield agent


class Caller:
    """Concurrent calls to one agent."""

    def __init__(self, agent: AgentProcess, session: aiohttp.ClientSession) -> None:
        self._url = agent.url
        self._session = session

    async def post(self, path: str, **body: Any) -> Answer:
        async with self._session.post(self._url + path, json=body) as response:
            return response.status, json.loads(await response.read())


@pytest.fixture
async def caller(agent: AgentProcess) -> AsyncIterator[Caller]:
    # A connection a call: none is kept that an agent's restart would cut.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(headers=HEADERS, connector=connector) as session:
        yield Caller(agent, session)


@pytest.mark.long
async def test_acquire_and_drain_race_and_exactly_one_wins(caller: Caller, agent: AgentProcess) -> None:
    """A1: a thousand times; the loser gets 409 and changes nothing."""
    rng = random.Random(1)
    won = {"acquire": 0, "drain": 0}
    for number in range(RACES):
        acquire = caller.post("/slots/acquire", task_id=f"t.{number}", task_type="plan")
        drain = caller.post("/drain", drain_id=f"d-{number}")
        pair = [("acquire", acquire), ("drain", drain)]
        rng.shuffle(pair)
        answers = await asyncio.gather(*(call for _, call in pair))
        outcome = dict(zip((name for name, _ in pair), answers, strict=True))
        assert sorted(status for status, _ in answers) == [200, 409], outcome
        if outcome["acquire"][0] == 200:
            won["acquire"] += 1
            hold = outcome["acquire"][1]
            assert outcome["drain"][1]["error"] == "busy"
            path = f"/slots/{hold['slot']}/release"
            assert (await caller.post(path, task_id=f"t.{number}", fence=hold["fence"]))[0] == 200
        else:
            won["drain"] += 1
            assert outcome["acquire"][1]["error"] == "drained"
            assert (await caller.post("/open", drain_id=f"d-{number}"))[0] == 200
    assert min(won.values()) > 0, won
    assert agent.state().phase is Phase.OPEN


async def test_many_acquires_at_once_get_each_slot_once(caller: Caller, agent: AgentProcess) -> None:
    """T19: finding and taking a slot is one step; the same task never gets two."""
    for number in range(100):
        names = [f"t.{number}.{index // 2}" for index in range(12)]
        answers = await asyncio.gather(
            *(caller.post("/slots/acquire", task_id=name, task_type="plan") for name in names)
        )
        granted = {
            (name, answer["slot"], answer["fence"])
            for name, (status, answer) in zip(names, answers, strict=True)
            if status == 200
        }
        assert sorted(slot for _, slot, _ in granted) == [0, 1, 2]
        refused = {answer["error"] for status, answer in answers if status != 200}
        assert refused == {"no_free_slot"}
        for name, slot, fence in granted:
            assert (await caller.post(f"/slots/{slot}/release", task_id=name, fence=fence))[0] == 200
    assert all(slot.state is SlotState.IDLE for slot in agent.state().slots)


async def test_duplicated_delayed_and_reordered_writes_take_effect_in_stamp_order(
    caller: Caller, agent: AgentProcess
) -> None:
    """T19, T22: an older stamp is refused whatever it says, a copy of any write too; wrong Pod, old incarnation too."""
    state = agent.state()
    mark = {"pod_uid": state.pod_uid, "incarnation": state.incarnation}

    async def send(path: str, term: int, counter: int, **body: Any) -> str:
        stamp = {"term": term, "counter": counter}
        status, answer = await caller.post(path, **mark, stamp=stamp, **body)
        return "ok" if status == 200 else answer["error"]

    assert await send("/slots/acquire", 1, 1, task_id="a", task_type="plan") == "ok"
    assert await send("/slots/acquire", 1, 1, task_id="a", task_type="plan") == "stale"
    assert await send("/drain", 1, 9, drain_id="d") == "busy"
    assert await send("/slots/acquire", 1, 8, task_id="b", task_type="plan") == "stale", (
        "a refused write counts as seen"
    )
    assert await send("/slots/acquire", 2, 0, task_id="b", task_type="plan") == "ok", "a new term is above any counter"
    assert await send("/slots/acquire", 1, 99, task_id="c", task_type="plan") == "stale"
    status, answer = await caller.post("/drain", **{**mark, "pod_uid": "other"}, drain_id="d")
    assert (status, answer["error"]) == (421, "wrong_pod")
    foreign = {"pod_uid": "other", "stamp": {"term": 9, "counter": 0}}
    assert (await caller.post("/drain", **foreign, drain_id="d"))[0] == 421
    assert await send("/drain", 2, 1, drain_id="d") == "busy", "a stamp for another Pod does not count as seen"
    held = {slot.task_id for slot in agent.state().slots if slot.task_id}
    assert held == {"a", "b"}
    agent.restart()
    assert await send("/slots/acquire", 3, 0, task_id="c", task_type="plan") == "restarted"
    mark["incarnation"] = agent.state().incarnation
    assert await send("/slots/acquire", 2, 2, task_id="c", task_type="plan") == "ok"


async def test_a_shuffled_storm_of_copies_leaves_one_slot_for_each_task(caller: Caller, agent: AgentProcess) -> None:
    """T19: every write sent three times, in any order: no task in two slots, fences rise, the rest is refused."""
    rng = random.Random(2)
    mark = {"pod_uid": agent.state().pod_uid}
    for round_number in range(50):
        tasks = [f"t.{round_number}.{index}" for index in range(3)]
        sends = [
            caller.post(
                "/slots/acquire",
                **mark,
                stamp={"term": round_number + 1, "counter": counter},
                task_id=task,
                task_type="plan",
            )
            for counter, task in enumerate(tasks)
            for _ in range(3)
        ]
        rng.shuffle(sends)
        answers = await asyncio.gather(*sends)
        assert {answer.get("error") for status, answer in answers if status != 200} <= {"stale"}
        slots = [slot for slot in agent.state().slots if slot.task_id]
        assert len({slot.task_id for slot in slots}) == len(slots) > 0
        for slot in slots:
            body = {"task_id": slot.task_id, "fence": slot.fence}
            assert (await caller.post(f"/slots/{slot.id}/release", **body))[0] == 200


async def test_approve_races_cancel_and_expiry(caller: Caller, agent: AgentProcess) -> None:
    """T10: whatever wins, the apply is offered only if its approval did, and then once."""
    worker = FakeWorker(agent, 0)
    worker.register()
    for number in range(30):
        task_id = f"t.{number}"
        agent.acquire(task_id, "plan_and_apply", two_steps())
        worker.run()
        approve = caller.post(f"/tasks/{task_id}/approve", plan_digest=DIGEST, attempt=1)
        cancel = caller.post(f"/tasks/{task_id}/cancel")
        pair = [approve, cancel] if number % 2 else [cancel, approve]
        answers = await asyncio.gather(*pair)
        approved = (answers[0] if number % 2 else answers[1])[0] == 200
        task = agent.task(task_id)
        if approved:
            assert (task.step, task.state) == ("apply", "waiting")
            assignment = worker.take()
            assert assignment.plan_digest == DIGEST
            worker.end(assignment)
        else:
            assert task.outcome == "cancelled"
        agent.post(f"/tasks/{task_id}/ack")


async def test_reads_do_not_wait_for_writes(caller: Caller, agent: AgentProcess) -> None:
    """GET /slots answers while a flood of writes is under way, and always a published state."""
    stop = False
    fences: list[int] = []

    async def read() -> None:
        async with aiohttp.ClientSession() as session:
            while not stop:
                async with session.get(agent.url + "/slots") as response:
                    data = json.loads(await response.read())
                fences.append(max(slot["fence"] for slot in data["slots"]))

    reader = asyncio.create_task(read())
    for number in range(200):
        _, hold = await caller.post("/slots/acquire", task_id=f"t.{number}", task_type="plan")
        await caller.post(f"/slots/{hold['slot']}/release", task_id=f"t.{number}", fence=hold["fence"])
    stop = True
    await reader
    assert fences == sorted(fences)
    assert len(set(fences)) > 10


async def test_an_acquire_after_its_tasks_end_never_runs_it_again(caller: Caller, agent: AgentProcess) -> None:
    """T19, T28: a delayed acquire, before the ack, after it, and after a restart."""
    worker = FakeWorker(agent, 1)
    worker.register()
    agent.acquire("t.1", "plan", one_step())
    worker.run()

    async def again() -> str:
        status, answer = await caller.post("/slots/acquire", task_id="t.1", task_type="plan")
        assert status == 409
        error: str = answer["error"]
        return error

    assert await again() == "illegal_transition"
    agent.post("/tasks/t.1/ack")
    assert await again() == "illegal_transition"
    agent.restart()
    assert await again() == "illegal_transition"
