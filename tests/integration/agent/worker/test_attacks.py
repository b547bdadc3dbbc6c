"""What a task's code can do to the worker's folder and to the worker, and what comes of it."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agent.wire import Outcome, Step, WorkAnswer
from tests.support.fake_agent import FakeAgent
from tests.support.worker_fixtures import StartWorker, agent, start_worker
from tests.support.worker_process import WorkerProcess, assignment, shell, until

__all__ = ["agent", "start_worker"]

FORGED_EXIT = (
    '{"instance": "1-w", "task_id": "task.1", "step": "apply", "fence": 7, "outcome": "succeeded",'
    ' "end_time": "2026-01-01T00:00:00Z", "exit_code": 0, "nonce": "plan-nonce"}'
)
FORGE = f"""
echo plan > tfplan
sed -e 's/"step": "plan"/"step": "apply"/' ../plan.assignment.json > ../apply.assignment.json
cp ../plan.started ../apply.started
echo '{FORGED_EXIT}' > ../apply.exit.json
"""


@pytest.mark.parametrize("restart", [False, True])
def test_a_plan_that_writes_its_applys_end_keeps_the_apply_from_nothing(
    agent: FakeAgent, start_worker: StartWorker, restart: bool
) -> None:
    worker = start_worker()
    plan = assignment(*shell(FORGE), plan_file="tfplan", apply=("echo", "applied"), nonce="plan-nonce")
    agent.offer(plan)
    digest = agent.exit_of("task.1", Step.PLAN).plan_digest
    if restart:
        worker.kill()
        start_worker()
        agent.wait(lambda: len(agent.registrations) == 2)
    agent.offer(replace(plan, step=Step.APPLY, plan_digest=digest, nonce="apply-nonce"))
    agent.wait(lambda: any(report.nonce == "apply-nonce" for report in agent.exits))
    report = next(report for report in agent.exits if report.nonce == "apply-nonce")
    assert report.outcome is Outcome.SUCCEEDED
    assert agent.log("task.1", Step.APPLY) == b"applied\n", "it ran"


@pytest.mark.parametrize("thing", ["mkdir", "mkfifo", "ln -s /etc/passwd", "echo 5 >", "echo '[]' >", "truncate -s 1G"])
@pytest.mark.parametrize(
    "name", ["apply.started", "apply.lock", "apply.assignment.json", "apply.log", "apply.exit.json"]
)
def test_nothing_that_is_put_into_the_place_of_a_file_hangs_or_ends_the_worker(
    agent: FakeAgent, start_worker: StartWorker, thing: str, name: str
) -> None:
    worker = start_worker()
    plan = assignment(*shell(f"{thing} ../{name}; echo plan"), apply=("echo", "applied"), nonce="1")
    agent.offer(plan)
    digest = agent.exit_of("task.1", Step.PLAN).plan_digest
    worker.kill()
    later = start_worker()
    agent.wait(lambda: len(agent.registrations) == 2)
    agent.offer(replace(plan, step=Step.APPLY, plan_digest=digest, nonce="2"))
    agent.wait(lambda: any(report.step is Step.APPLY for report in agent.exits))
    assert agent.log("task.1", Step.APPLY) == b"applied\n"
    assert not later.dead


@pytest.mark.parametrize("name", ["plan.started", "plan.assignment.json", "plan.exit.json.space", "plan.exit.json"])
@pytest.mark.parametrize("thing", ["mkdir", "mkfifo", "echo 5 >", "chmod 0"])
def test_a_step_that_spoils_its_own_files_ends_all_the_same(
    agent: FakeAgent, start_worker: StartWorker, thing: str, name: str
) -> None:
    worker = start_worker()
    spoil = f"{thing} ../{name}" if thing == "chmod 0" else f"rm -rf ../{name}; {thing} ../{name}"
    agent.offer(assignment(*shell(f"{spoil}; exit 7"), nonce="1"))
    assert agent.exit_of("task.1", Step.PLAN).exit_code == 7
    worker.kill()
    later = start_worker()
    agent.wait(lambda: len(agent.registrations) == 2)
    agent.offer(assignment("true", task_id="task.2"))
    assert agent.exit_of("task.2", Step.PLAN).outcome is Outcome.SUCCEEDED
    assert not later.dead


@pytest.mark.parametrize("make", ["mkfifo tfplan", "mkdir tfplan", "ln -s /dev/zero tfplan"])
def test_a_plan_file_that_is_no_file_fails_the_plan(agent: FakeAgent, start_worker: StartWorker, make: str) -> None:
    start_worker()
    agent.offer(assignment(*shell(make), plan_file="tfplan", apply=("true",)))
    report = agent.exit_of("task.1", Step.PLAN)
    assert report.outcome is Outcome.FAILED
    assert (report.reason or "").startswith("'tfplan' is not a plain file")


@pytest.mark.parametrize("how", ["cancel", "time limit", "SIGTERM"])
def test_a_plan_file_without_end_holds_up_neither_cancel_nor_limit_nor_stop(
    agent: FakeAgent, start_worker: StartWorker, how: str
) -> None:
    worker = start_worker(environ={"PODSLOTS_GRACE_SECONDS": "16"})
    limit = 2 if how == "time limit" else None
    agent.offer(assignment(*shell("truncate -s 4T tfplan"), apply=("true",), timeout_seconds=limit))
    until(lambda: worker.pid and Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split())
    agent.wait(lambda: agent.started)
    if how == "cancel":
        agent.cancel("task.1")
    elif how == "SIGTERM":
        worker.terminate()
    report = agent.exit_of("task.1", Step.PLAN)
    assert report.outcome is (Outcome.CANCELLED if how == "cancel" else Outcome.FAILED)
    assert report.plan_digest is None
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
    until(lambda: worker.dead or not children.read_text().split())


# --- output -----------------------------------------------------------------------------------------------------------


def test_a_worker_whose_standard_files_are_closed_works(agent: FakeAgent, tmp_path: Path) -> None:
    worker = WorkerProcess(agent.url, agent.credential_dir, tmp_path / "work")
    script = 'exec "$@" <&- >&- 2>&-'
    process = subprocess.Popen(["sh", "-c", script, "sh", sys.executable, "-m", "agent.worker"], env=worker.environ)
    try:
        agent.offer(assignment("echo", "out"))
        assert agent.exit_of("task.1", Step.PLAN).outcome is Outcome.SUCCEEDED
        assert agent.log("task.1") == b"out\n"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_empty_lines_under_a_long_name_take_no_memory(agent: FakeAgent, start_worker: StartWorker) -> None:
    worker = start_worker()
    offered = assignment(*shell("head -c 5000000 /dev/zero | tr '\\\\0' '\\\\n'; cat /proc/$PPID/status"))
    agent.offer(replace(offered, work=replace(offered.work, name="n" * 311)))
    agent.exit_of("task.1", Step.PLAN)
    peak = int(agent.log("task.1").split(b"VmHWM:")[1].split()[0])
    assert peak < 32 * 1024, "KiB"
    until(lambda: b"VmHWM" in worker.stdout)


def test_the_last_words_of_a_command_that_filled_its_disk_are_kept(agent: FakeAgent, start_worker: StartWorker) -> None:
    """On a disk of its own, of 20 MB; the command fills it and says why it gives up."""
    disk = agent.credential_dir.parent / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(disk)], check=True)
    try:
        worker = start_worker(work_dir=disk / "work")
        fill = "echo first; dd if=/dev/zero of=fill bs=64k 2>/dev/null; echo last words: the disk is full; exit 9"
        agent.offer(assignment(*shell(fill)))
        report = agent.exit_of("task.1", Step.PLAN)
        assert report.exit_code == 9
        assert agent.log("task.1").startswith(b"first\n")
        assert agent.log("task.1").endswith(b"last words: the disk is full\n")
        worker.kill()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_what_an_agent_has_lost_of_an_ended_steps_output_is_sent_again(
    agent: FakeAgent, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = start_worker()
    agent.offer(assignment("echo", "a plan", apply=("true",)))
    agent.exit_of("task.1", Step.PLAN)
    until((worker.task_dir("task.1") / "plan.told").exists)
    agent.output.clear()
    monkeypatch.setattr(agent, "_now", lambda _named: WorkAnswer(output={"task.1/plan": 0}))
    agent.restart()
    agent.wait(lambda: len(agent.registrations) == 2)
    monkeypatch.undo()
    agent.wait(lambda: agent.log("task.1") == b"a plan\n")
