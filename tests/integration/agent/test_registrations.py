"""What a bad record does, and a task with its slot's credential: the agent takes the rest, and stays small."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from agent.codec import encode
from agent.http.calls import MAX_REGISTER_BYTES
from agent.wire import Assignment, KeptTask, RegisterRequest, Step, TaskState
from tests.support.agent_process import AgentProcess, Refused, running_agent
from tests.support.fake_worker import FakeWorker, two_steps

pytestmark = pytest.mark.long

FLOOD_MIB = 100
"""Of memory that a flood may cost. It was 954 MiB where a registration was taken as it came."""


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    with running_agent(tmp_path) as running:
        running.open()
        yield running


def kept(task_id: str, fence: int = 1, command: str = "x", **changes: Any) -> dict[str, Any]:
    work = two_steps()
    given = Assignment(task_id=task_id, task_type="plan_and_apply", step=Step.PLAN, fence=fence, work=work)
    document: dict[str, Any] = encode(KeptTask(assignment=given, started=True))
    document["assignment"]["work"]["steps"]["plan"]["command"] = [command]
    return {**document, **changes}


def register(agent: AgentProcess, slot: int, instance: str, tasks: list[Any]) -> Any:
    body = {**encode(RegisterRequest(instance=instance)), "tasks": tasks}
    return agent.post("/work/register", body, token=agent.credential(str(slot)))


def test_one_bad_record_keeps_no_worker_out(agent: AgentProcess) -> None:
    worker = FakeWorker(agent, 0)
    worker.register()
    agent.acquire("t.1", "plan_and_apply", two_steps())
    assignment = worker.take()
    worker.start(assignment)
    true = encode(worker.kept["t.1"])
    bad: list[Any] = [
        kept("far.1", fence=2**52),
        kept("farther.1", fence=2**60),
        kept("no/id"),
        kept("new.1", color="red"),
        {"assignment": {"task_id": "half.1"}},
        7,
    ]
    many = [kept(f"many-{number}.1") for number in range(600)]
    for tasks in (bad, bad, many, many):
        register(agent, 0, worker.instance + "9", [*tasks, true])
    assert agent.state().slots[0].worker is not None
    assert agent.task("t.1").state is TaskState.RUNNING
    agent.post("/slots/acquire", {"task_id": "u.1", "task_type": "plan"})
    said = [line["task"] for line in agent.log_lines() if line["message"] == "kept task ignored"]
    assert {"far.1", "farther.1", "no/id", "new.1", "half.1"} <= set(said)
    assert len(said) == len(set(said)) <= 64, "each is named once, and of very many only the first"


def test_a_record_that_is_none_proves_nothing_of_its_task(agent: AgentProcess) -> None:
    worker = FakeWorker(agent, 0)
    worker.register()
    agent.acquire("t.1", "plan_and_apply", two_steps())
    worker.start(worker.take())
    register(agent, 0, worker.instance + "9", [{"assignment": {"task_id": "t.1"}}])
    assert agent.task("t.1").state is TaskState.RUNNING


@pytest.mark.parametrize("lost", [False, True], ids=["known", "lost journal"])
def test_a_flood_of_made_up_tasks_costs_little_memory(agent: AgentProcess, lost: bool) -> None:
    """As many registrations as fit, of the largest size, from every slot at once, each with ids of its own."""
    FakeWorker(agent, 0).register()
    if lost:
        agent.kill()
        (agent.state_dir / "journal").write_bytes(b"not a journal")
        agent.start()
    before = agent.memory_mib("VmRSS")
    numbers = count()

    def flood(slot: int, size_bytes: int) -> None:
        tasks: list[Any] = []
        one = len(json.dumps(kept("t-123456.1", fence=999, command="x" * size_bytes))) + 2
        while (len(tasks) + 1) * one < MAX_REGISTER_BYTES - 4096:
            tasks.append(kept(f"t-{next(numbers)}.1", fence=1 + next(numbers) % 999, command="x" * size_bytes))
        with suppress(Refused):  # whatever it says to it
            register(agent, slot, f"flood-{slot}", tasks)

    with ThreadPoolExecutor(6) as pool:
        for round_ in range(2):
            list(pool.map(flood, (0, 1, 2, 0, 1, 2), (1, 100, 1000, 10000, 100_000, 1) if round_ else (1,) * 6))
    peak = agent.memory_mib("VmHWM")

    began = time.monotonic()
    agent.state()
    assert time.monotonic() - began < 5
    assert peak - before < FLOOD_MIB, f"{before} MiB before, {peak} MiB at most"
