"""A real worker and a real agent, each in its process, over real HTTP."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.wire import ExitCodes, Outcome, Phase, SlotState, Step, Steps, StepSpec, TaskState, Work
from tests.support.agent_process import AgentProcess, running_agent
from tests.support.worker_process import WorkerProcess, shell, until

Start = Callable[[], WorkerProcess]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    with running_agent(tmp_path / "agent", layout=[["plan", "plan_and_apply"]]) as running:
        running.open()
        yield running


@pytest.fixture
def start_worker(agent: AgentProcess, tmp_path: Path) -> Iterator[Start]:
    started: list[WorkerProcess] = []

    def start() -> WorkerProcess:
        worker = WorkerProcess(
            agent.url, agent.credentials_dir / "0", tmp_path / "work", command=("-m", "agent", "work")
        )
        started.append(worker.start())
        return worker

    yield start
    for worker in started:
        if not worker.dead:
            worker.kill()


def _work(plan: str, apply: str | None = None, *, cancel_grace_seconds: int = 60) -> Work:
    steps = Steps(
        plan=StepSpec(
            command=shell(plan), plan_file="tfplan" if apply else None, cancel_grace_seconds=cancel_grace_seconds
        ),
        apply=StepSpec(command=shell(apply)) if apply else None,
    )
    return Work(name="team/task", attempt=1, steps=steps, files={"main.tf": "resource"})


def _ended(agent: AgentProcess, task_id: str) -> bool:
    return agent.task(task_id).state is TaskState.ENDED


def _slot(agent: AgentProcess) -> SlotState:
    return agent.state().slots[0].state


def test_plan_wait_approve_apply_ack_over_restarts_of_both(agent: AgentProcess, start_worker: Start) -> None:
    """Rule 4, T2, T11: a reservation survives both, its apply starts in its own slot and directory."""
    worker = start_worker()
    agent.acquire("t.1", "plan_and_apply", _work("cat main.tf; echo v1 > tfplan", "cat tfplan; echo applied"))
    until(lambda: _slot(agent) is SlotState.RESERVED)
    agent.restart()
    worker.kill()
    worker = start_worker()
    until(lambda: agent.state().slots[0].worker)
    task = agent.task("t.1")
    assert _slot(agent) is SlotState.RESERVED
    assert task.plan
    assert (task.plan.exit_code, task.plan.log_tail) == (0, "resource")
    agent.post("/tasks/t.1/approve", {"plan_digest": task.plan_digest, "attempt": 1})
    until(lambda: _ended(agent, "t.1"))
    task = agent.task("t.1")
    assert task.outcome is Outcome.SUCCEEDED
    assert task.apply
    assert task.apply.log_tail == "v1\napplied\n"
    assert agent.call("GET", "/tasks/t.1/log?step=apply")[1] == b"v1\napplied\n"
    assert worker.task_dir("t.1").exists()
    agent.post("/tasks/t.1/ack")
    until(lambda: not worker.task_dir("t.1").exists())
    assert agent.post("/drain", {"drain_id": "d"})["phase"] == Phase.DRAINED


def test_output_and_end_reach_an_agent_that_was_killed_meanwhile(
    agent: AgentProcess, start_worker: Start, tmp_path: Path
) -> None:
    """T21, T25."""
    gate = tmp_path / "gate"
    worker = start_worker()
    agent.acquire("t.1", "plan", _work(f"echo before; while [ ! -e {gate} ]; do sleep 0.02; done; echo after; exit 9"))
    until(lambda: agent.call("GET", "/tasks/t.1/log")[1] == b"before\n")
    agent.kill()
    gate.touch()
    until(lambda: worker.said("step ended"))
    agent.start()
    until(lambda: _ended(agent, "t.1"))
    task = agent.task("t.1")
    assert task.plan
    assert (task.outcome, task.plan.exit_code, task.plan.log_tail) == (Outcome.FAILED, 9, "before\nafter\n")
    assert task.plan.log_bytes == len("before\nafter\n")


def test_a_killed_workers_step_ends_as_lost_and_its_slot_works_on(agent: AgentProcess, start_worker: Start) -> None:
    """R5."""
    worker = start_worker()
    agent.acquire("t.1", "plan", _work("echo on its way; sleep 1000"))
    until(lambda: agent.task("t.1").state is TaskState.RUNNING)
    worker.kill()
    start_worker()
    until(lambda: _ended(agent, "t.1"))
    assert agent.task("t.1").outcome is Outcome.LOST
    agent.acquire("t.2", "plan", _work("true"))
    until(lambda: _ended(agent, "t.2"))
    assert agent.task("t.2").outcome is Outcome.SUCCEEDED


def test_cancel_ends_the_processes_and_frees_the_slot(agent: AgentProcess, start_worker: Start) -> None:
    """T24."""
    start_worker()
    agent.acquire("t.1", "plan", _work("trap '' TERM; while :; do sleep 1; done", cancel_grace_seconds=1))
    until(lambda: agent.task("t.1").state is TaskState.RUNNING)
    agent.post("/tasks/t.1/cancel")
    until(lambda: _ended(agent, "t.1"))
    assert agent.task("t.1").outcome is Outcome.CANCELLED
    assert _slot(agent) is SlotState.IDLE


def test_a_task_cancelled_before_its_worker_came_never_runs(
    agent: AgentProcess, start_worker: Start, tmp_path: Path
) -> None:
    agent.acquire("t.1", "plan", _work(f"touch {tmp_path}/ran"))
    agent.post("/tasks/t.1/cancel")
    start_worker()
    until(lambda: _ended(agent, "t.1"))
    assert agent.task("t.1").outcome is Outcome.CANCELLED
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("reserved", [True, False])
def test_a_lost_journal_is_rebuilt_from_what_the_worker_keeps(
    agent: AgentProcess, start_worker: Start, reserved: bool
) -> None:
    """T3, rule 4: a reservation, and a running step, survive the loss of the agent's journal."""
    worker = start_worker()
    agent.acquire("t.1", "plan_and_apply", _work("echo v1 > tfplan" if reserved else "sleep 1000", "cat tfplan"))
    until(lambda: agent.task("t.1").state is (TaskState.RESERVED if reserved else TaskState.RUNNING))
    agent.kill()
    journal = max(agent.state_dir.iterdir(), key=lambda path: path.name.startswith("journal"))
    journal.write_bytes(b"not a journal" * 100)
    agent.start()
    until(lambda: agent.state().slots[0].state is not SlotState.IDLE)
    assert agent.state().warnings, "the journal was set aside"
    task = agent.task("t.1")
    if not reserved:
        assert (task.state, task.step) == (TaskState.RUNNING, Step.PLAN)
        agent.post("/tasks/t.1/cancel")
        until(lambda: _ended(agent, "t.1"))
        assert len(worker.said("step started")) == 1
        return
    assert task.state is TaskState.RESERVED
    agent.post("/tasks/t.1/approve", {"plan_digest": task.plan_digest, "attempt": 1})
    until(lambda: _ended(agent, "t.1"))
    assert agent.task("t.1").outcome is Outcome.SUCCEEDED


def test_a_plan_without_changes_ends_its_task(agent: AgentProcess, start_worker: Start) -> None:
    start_worker()
    codes = ExitCodes(changed=(2,), unchanged=(0,))
    steps = Steps(plan=StepSpec(command=shell("exit 0"), exit_codes=codes), apply=StepSpec(command=("true",)))
    agent.acquire("t.1", "plan_and_apply", Work(name="team/task", attempt=1, steps=steps))
    until(lambda: _ended(agent, "t.1"))
    task = agent.task("t.1")
    assert (task.outcome, task.reason, task.plan and task.plan.changed) == (Outcome.SUCCEEDED, "NoChanges", False)


def test_a_forged_apply_counts_for_nothing_and_the_real_one_runs(agent: AgentProcess, start_worker: Start) -> None:
    """The plan copies its own records into the place of its apply's, with what it may guess of them."""
    forge = """
    echo plan > tfplan
    for kind in assignment.json started; do
      sed -e 's/"step": "plan"/"step": "apply"/' ../plan.$kind > ../apply.$kind
    done
    printf '{"instance": "1-w", "task_id": "t.1", "step": "apply", "fence": 3, "outcome": "succeeded",
      "end_time": "2026-01-01T00:00:00Z", "exit_code": 0}' > ../apply.exit.json
    """
    worker = start_worker()
    agent.acquire("t.1", "plan_and_apply", _work(forge, "echo applied"))
    until(lambda: agent.task("t.1").state is TaskState.RESERVED)
    worker.kill()
    start_worker()
    task = agent.task("t.1")
    agent.post("/tasks/t.1/approve", {"plan_digest": task.plan_digest, "attempt": 1})
    until(lambda: _ended(agent, "t.1"))
    task = agent.task("t.1")
    assert (task.outcome, task.apply and task.apply.log_tail) == (Outcome.SUCCEEDED, "applied\n")
