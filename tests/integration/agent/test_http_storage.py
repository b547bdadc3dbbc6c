"""A full disk refuses new work, keeps what is held, and is no reason to restart."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.wire import Outcome, Phase, SlotState, TaskState
from tests.support.agent_process import AgentProcess, Refused, running_agent, wait_for
from tests.support.fake_worker import FakeWorker, two_steps


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    with running_agent(tmp_path) as agent:
        agent.open()
        yield agent


def refusal(call: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(Refused) as refused:
        call()
    return refused.value.status, refused.value.code


def test_full_disk_refuses_with_503_and_recovers_by_itself(agent: AgentProcess) -> None:
    worker = FakeWorker(agent, 0)
    worker.register()
    agent.acquire("t.1", "plan_and_apply", two_steps())
    assignment = worker.take()
    worker.start(assignment)
    held = agent.state().slots
    size = (agent.state_dir / "journal").stat().st_size

    agent.limit_file_size(64)
    for _ in range(3):
        assert refusal(lambda: agent.acquire("t.2")) == (503, "storage")
    assert refusal(lambda: agent.post("/drain", {"drain_id": "d"})) == (409, "busy")
    assert refusal(lambda: worker.end(assignment)) == (503, "storage")
    state = agent.state()
    assert [slot.task_id for slot in state.slots] == [slot.task_id for slot in held]
    assert any("journal" in warning for warning in state.warnings)
    assert agent.acquire("t.1", "plan_and_apply")["slot"] == 0, "what needs no writing is answered"
    assert agent.metrics()["podslots_agent_journal_failing"] == 1
    assert (agent.state_dir / "journal").stat().st_size <= size, "nothing of the refused writes is left"

    agent.limit_file_size(None)
    worker.end(assignment)
    assert agent.state().slots[0].state is SlotState.RESERVED
    wait_for(lambda: not agent.state().warnings, "the reserve is there again")
    agent.acquire("t.2")
    agent.restart()
    assert [slot.task_id for slot in agent.state().slots] == ["t.1", "t.2", None]


def test_killed_while_the_disk_is_full_it_knows_what_was_acknowledged(agent: AgentProcess) -> None:
    agent.acquire("t.1")
    agent.limit_file_size(64)
    for number in range(5):
        assert refusal(lambda number=number: agent.acquire(f"x.{number}")) == (503, "storage")  # type: ignore[misc]
    agent.restart()
    state = agent.state()
    assert [slot.task_id for slot in state.slots] == [None, "t.1", None]
    assert state.phase is Phase.OPEN


def test_recovers_without_being_asked(agent: AgentProcess) -> None:
    agent.limit_file_size(64)
    assert refusal(lambda: agent.acquire("t.1")) == (503, "storage")
    agent.limit_file_size(None)
    wait_for(lambda: agent.metrics()["podslots_agent_journal_failing"] == 0, "the probe finds the disk well")
    assert not agent.state().warnings


def test_reads_go_on_while_the_disk_is_full(agent: AgentProcess) -> None:
    agent.limit_file_size(64)
    refusal(lambda: agent.acquire("t.1"))
    for _ in range(50):
        assert agent.state().warnings


def test_output_on_a_full_disk_waits_and_does_not_stop_the_step(agent: AgentProcess) -> None:
    worker = FakeWorker(agent, 0)
    worker.register()
    for task_id in ("t.1", "t.2"):
        agent.acquire(task_id, "plan_and_apply", two_steps())
        assignment = worker.take()
        worker.start(assignment)
        agent.limit_file_size(100_000)
        piece = b"x" * 60_000
        assert worker.output(assignment, 0, piece) == 60_000
        assert worker.output(assignment, 60_000, piece) == 60_000, "it is to be sent again"
        if task_id == "t.1":
            agent.limit_file_size(None)
            assert worker.output(assignment, 60_000, piece) == 120_000, "one failed write does not end the copy"
        worker.send_exit(replace(worker.exit_report(assignment, Outcome.FAILED), log_bytes=120_000))
        assert agent.task(task_id).state is TaskState.ENDED
        log = agent.call("GET", f"/tasks/{task_id}/log")[1]
        assert (b"was not kept" in log[-100:]) == (task_id == "t.2")
        agent.limit_file_size(None)
        agent.post(f"/tasks/{task_id}/ack")
