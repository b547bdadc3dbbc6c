"""What the agent measures: every figure moves, and no figure is named after what people choose."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.wire import Outcome
from tests.support.agent_process import AgentProcess, Refused, running_agent
from tests.support.fake_worker import DIGEST, FakeWorker, one_step, two_steps


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    with running_agent(tmp_path) as agent:
        agent.open()
        yield agent


def test_every_figure_moves(agent: AgentProcess) -> None:
    """T31, B1: what exists is read off the state; what happens is counted."""
    figures = agent.metrics()
    assert figures['podslots_slots{state="idle"}'] == 3
    assert figures["podslots_agent_open"] == 1
    assert figures["podslots_agent_pool_tokens"] == 1
    assert figures["podslots_agent_workers_connected"] == 0

    worker = FakeWorker(agent, 0)
    worker.register()
    agent.acquire("t.1", "plan_and_apply", two_steps())
    assignment = worker.take()
    worker.start(assignment)
    worker.output(assignment, 0, b"12345")
    figures = agent.metrics()
    assert figures['podslots_slots{state="running"}'] == 1
    assert figures["podslots_agent_workers_connected"] == 1
    assert figures["podslots_agent_output_bytes_total"] == 5

    worker.end(assignment)
    figures = agent.metrics()
    assert figures['podslots_slots{state="reserved"}'] == 1
    assert figures['podslots_slots{state="running"}'] == 0
    assert figures['podslots_slot_transitions_total{cause="planned"}'] == 1
    assert figures['podslots_agent_step_duration_seconds_count{step="plan"}'] == 1

    agent.post("/tasks/t.1/approve", {"plan_digest": DIGEST, "attempt": 1})
    worker.run(Outcome.FAILED)
    with pytest.raises(Refused):
        agent.post("/drain", {"drain_id": "d"})
    figures = agent.metrics()
    assert figures["podslots_agent_unacknowledged_tasks"] == 1
    assert figures['podslots_agent_tasks_ended_total{outcome="failed"}'] == 1
    assert figures['podslots_agent_step_duration_seconds_count{step="plan"}'] == 1
    assert figures['podslots_agent_step_duration_seconds_count{step="apply"}'] == 1
    assert figures['podslots_agent_refusals_total{error="busy"}'] == 1
    assert figures['podslots_agent_requests_total{call="acquire"}'] == 1
    assert figures['podslots_agent_journal_records_total{kind="slot"}'] > 3
    assert figures["podslots_agent_journal_commit_duration_seconds_count"] > 3
    assert figures["podslots_agent_journal_bytes"] == (agent.state_dir / "journal").stat().st_size
    assert figures["process_resident_memory_bytes"] > 1e7

    agent.post("/tasks/t.1/ack")
    agent.post("/drain", {"drain_id": "d"})
    figures = agent.metrics()
    assert figures["podslots_agent_open"] == 0
    assert figures["podslots_agent_unacknowledged_tasks"] == 0


def test_the_number_of_series_does_not_depend_on_what_is_asked(agent: AgentProcess) -> None:
    """R9: task ids, types, paths and tokens that people choose make no series."""
    before = agent.metrics().keys()
    worker = FakeWorker(agent, 1)
    worker.register()
    for number in range(20):
        agent.acquire(f"task-{number}", "plan", one_step(f"team/{number}"))
        worker.run()
        agent.post(f"/tasks/task-{number}/ack")
        for path in (f"/nowhere/{number}", f"/tasks/nope-{number}", f"/slots/{number}"):
            agent.call("GET", path, token=f"token-{number}")
        with pytest.raises(Refused):
            agent.acquire(f"x{number}", f"type-{number}")
    after = agent.metrics().keys()
    assert after == before
    ours = [name for name in after if name.startswith("podslots")]
    assert len(ours) < 150
    assert not any(name.endswith("_created") for name in after)
    labels = {label for name in ours for label in re.findall(r'(\w+)="', name)}
    assert labels == {"state", "slot", "cause", "outcome", "step", "call", "error", "kind", "le", "version", "python"}


def test_both_formats_are_spoken(agent: AgentProcess) -> None:
    _, text = agent.call("GET", "/metrics")
    _, openmetrics = agent.call("GET", "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert not text.endswith(b"# EOF\n")
    assert openmetrics.endswith(b"# EOF\n")
