"""What holds when workers are killed, agents restart, answers get lost, and two workers meet."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.wire import Outcome, Step
from tests.support.fake_agent import FakeAgent
from tests.support.worker_fixtures import StartWorker, agent, start_worker
from tests.support.worker_process import WorkerProcess, alive, assignment, shell, until

__all__ = ["agent", "start_worker"]

NEVER_ENDS = shell("echo $$; sleep 1000 & echo $!; wait")


def _pids(log: bytes) -> list[int]:
    return [int(word) for word in log.split()]


def test_a_step_whose_worker_was_killed_is_lost_soon_and_nothing_of_it_survives(
    agent: FakeAgent, start_worker: StartWorker
) -> None:
    """R5: worker container restart: its running steps end as lost within seconds."""
    worker = start_worker()
    agent.offer(assignment(*NEVER_ENDS))
    agent.wait(lambda: len(_pids(agent.log("task.1"))) == 2)
    worker.kill()
    start_worker()
    report = agent.exit_of("task.1", Step.PLAN)
    assert report.outcome is Outcome.LOST
    assert report.start_time == agent.started[0].start_time
    assert not [pid for pid in _pids(agent.log("task.1")) if alive(pid)]
    kept = agent.registrations[-1].tasks[0]
    assert (kept.started, kept.exit) == (True, None)


def test_a_child_that_cleared_its_environment_and_left_its_group_is_found_by_the_lock_and_killed(
    agent: FakeAgent, start_worker: StartWorker
) -> None:
    """Outside a container nobody else ends it. It has the step's lock open, as all that descends from the command."""
    program = (
        "import os,time;os.setsid();open('pid','w').write(str(os.getpid()));os.rename('pid','pid.ok');time.sleep(1000)"
    )
    worker = start_worker()
    agent.offer(assignment(*shell(f'env -i {sys.executable} -c "{program}" & wait')))
    hidden = until((worker.task_dir("task.1") / "dir" / "pid.ok").exists) and int(
        (worker.task_dir("task.1") / "dir" / "pid.ok").read_text()
    )
    try:
        worker.kill()
        start_worker()
        assert agent.exit_of("task.1", Step.PLAN).outcome is Outcome.LOST
        assert not alive(hidden)
    finally:
        if alive(hidden):
            os.kill(hidden, signal.SIGKILL)


def test_a_paused_worker_is_not_taken_for_dead(agent: FakeAgent, start_worker: StartWorker) -> None:
    """Two instances never share a folder: the later one waits for the first one's end, not for its silence."""
    first = start_worker()
    agent.offer(assignment(*NEVER_ENDS))
    agent.wait(lambda: len(_pids(agent.log("task.1"))) == 2)
    os.kill(first.pid, signal.SIGSTOP)
    second = start_worker()
    until(lambda: second.said("another worker has this folder; waiting for its end"))
    assert len(agent.registrations) == 1
    assert all(alive(pid) for pid in _pids(agent.log("task.1")))
    os.kill(first.pid, signal.SIGCONT)
    first.kill()
    assert agent.exit_of("task.1", Step.PLAN).outcome is Outcome.LOST
    assert len(agent.registrations) == 2


def test_a_waiting_second_worker_stops_when_told(agent: FakeAgent, start_worker: StartWorker) -> None:
    start_worker()
    agent.wait(lambda: agent.registrations)
    second = start_worker()
    until(lambda: second.said("another worker has this folder; waiting for its end"))
    second.terminate()
    assert second.wait(5) == 0


def test_a_step_offered_again_and_again_runs_once(agent: FakeAgent, start_worker: StartWorker, tmp_path: Path) -> None:
    """T19: one start under repeated offers, lost answers, agent and worker restarts."""
    agent.offer_running_too = True
    gate = tmp_path / "gate"
    proof = tmp_path / "proof"
    agent.lose["/work/started"] = 2
    agent.drop["/work"] = 2
    worker = start_worker()
    agent.offer(assignment(*shell(f"echo run >> {proof}; while [ ! -e {gate} ]; do sleep 0.02; done")))
    agent.wait(lambda: agent.started and agent.requests["/work"] > 6)
    agent.restart()
    agent.wait(lambda: len(agent.registrations) == 2)
    gate.touch()
    agent.exit_of("task.1", Step.PLAN)
    agent.offer(assignment(*shell(f"echo run >> {proof}")))
    agent.wait(lambda: len(agent.exits) > 1)
    worker.kill()
    start_worker()
    agent.offer(assignment(*shell(f"echo run >> {proof}")))
    agent.wait(lambda: len(agent.exits) > 2)
    assert proof.read_text() == "run\n"
    assert {report.outcome for report in agent.exits} == {Outcome.SUCCEEDED}


def test_an_offer_under_another_fence_is_answered_with_what_happened(
    agent: FakeAgent, start_worker: StartWorker
) -> None:
    """An agent that lost its journal and offers an old step anew gets its end, and the step does not run again."""
    start_worker()
    offer = assignment(*shell("echo run; exit 4"))
    agent.offer(offer)
    agent.exit_of("task.1", Step.PLAN)
    agent.offer_running_too = True
    agent.offer(dataclasses.replace(offer, fence=99))
    report = agent.wait(lambda: next((found for found in agent.exits if found.fence == 99), None))
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 4)
    assert agent.log("task.1") == b"run\n"


def test_the_end_is_reported_until_the_agent_has_taken_it(agent: FakeAgent, start_worker: StartWorker) -> None:
    """T21: lost requests and answers, a full agent disk and an agent restart only delay the report."""
    agent.lose["/work/exit"] = 2
    agent.refuse["/work/exit"] = 2
    agent.drop["/work/exit"] = 2
    agent.refuse["/work/output"] = 2
    agent.drop["/work/output"] = 2
    start_worker()
    agent.offer(assignment(*shell("echo out; exit 1")))
    agent.exit_of("task.1", Step.PLAN)
    agent.restart()
    agent.wait(lambda: agent.drop["/work/exit"] <= 0 and len(agent.registrations) == 2)
    agent.wait(lambda: agent.requests["/work/exit"] >= 3)
    assert agent.log("task.1") == b"out\n"
    assert {report.exit_code for report in agent.exits} == {1}


def test_an_agent_that_was_away_for_the_whole_end_hears_of_it(
    agent: FakeAgent, start_worker: StartWorker, tmp_path: Path
) -> None:
    """T25: a partition of any length heals without a restart; the output comes before the end."""
    gate = tmp_path / "gate"
    worker = start_worker()
    agent.offer(assignment(*shell(f"while [ ! -e {gate} ]; do sleep 0.02; done; echo late")))
    agent.wait(lambda: agent.started)
    agent.away = True
    gate.touch()
    until(lambda: worker.said("step ended"))
    agent.restart()
    agent.away = False
    report = agent.exit_of("task.1", Step.PLAN)
    assert report.outcome is Outcome.SUCCEEDED
    assert agent.log("task.1") == b"late\n"
    assert agent.registrations[-1].tasks[0].exit is None, "held back until the output is there"


def test_an_end_that_was_stored_but_never_told_is_told_by_the_next_worker(
    agent: FakeAgent, start_worker: StartWorker
) -> None:
    agent.final["/work/exit"] = (503, "storage")
    worker = start_worker()
    agent.offer(assignment(*shell("echo out; exit 6")))
    agent.wait(lambda: agent.requests["/work/exit"])
    worker.kill()
    agent.output.clear()
    del agent.final["/work/exit"]
    start_worker()
    report = agent.exit_of("task.1", Step.PLAN)
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 6)
    assert report.instance == agent.registrations[-1].instance
    assert agent.log("task.1") == b"out\n"


def test_a_worker_that_starts_before_its_credential_waits_for_it(agent: FakeAgent, start_worker: StartWorker) -> None:
    token = agent.credential_dir / "token"
    secret = token.read_text()
    token.unlink()
    worker = start_worker()
    until((worker.work_dir / "trash").exists)
    token.write_text("wrong")
    until(lambda: worker.said("the agent refused"))
    token.write_text(secret)
    agent.wait(lambda: agent.registrations)


def test_a_superseded_worker_leaves_with_its_step(agent: FakeAgent, start_worker: StartWorker) -> None:
    worker = start_worker()
    agent.offer(assignment(*NEVER_ENDS))
    agent.wait(lambda: len(_pids(agent.log("task.1"))) == 2)
    agent.supersede()
    assert worker.wait() == 3
    assert not [pid for pid in _pids(agent.log("task.1")) if alive(pid)]


def test_an_agent_that_takes_no_output_still_hears_of_the_end(agent: FakeAgent, start_worker: StartWorker) -> None:
    agent.final["/work/output"] = (404, "not_found")
    start_worker()
    agent.offer(assignment(*shell("echo out")))
    assert agent.exit_of("task.1", Step.PLAN).log_bytes == 4


def test_a_report_that_the_agent_will_never_take_is_not_repeated_for_ever(
    agent: FakeAgent, start_worker: StartWorker
) -> None:
    agent.final["/work/exit"] = (404, "not_found")
    worker = start_worker(environ={"PODSLOTS_GRACE_SECONDS": "60"})
    agent.offer(assignment("true"))
    agent.wait(lambda: agent.requests["/work/exit"])
    worker.terminate()
    assert worker.wait(5) == 0
    assert agent.requests["/work/exit"] == 1


def test_misconfiguration_is_said_and_ends_with_status_2() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "agent.worker"], env={"PODSLOTS_URL": "ftp://x"}, capture_output=True, check=False
    )
    assert ended.returncode == 2
    assert "PODSLOTS_URL" in json.loads(ended.stderr)["error"]


def test_a_full_disk_starts_nothing_and_loses_nothing(agent: FakeAgent, start_worker: StartWorker) -> None:
    """With no room for the marker the step is not begun; once there is room it runs, once."""
    worker = start_worker()
    agent.wait(lambda: agent.registrations)
    tasks = worker.work_dir / "tasks"
    tasks.rename(tasks.with_name("away"))
    agent.offer(assignment(*shell("echo ran")))
    tasks.touch()  # a file where the folder was: nothing can be made beneath it
    until(lambda: worker.said("a step can't be started"))
    tasks.unlink()
    tasks.with_name("away").rename(tasks)
    assert agent.exit_of("task.1", Step.PLAN).outcome is Outcome.SUCCEEDED
    assert agent.log("task.1") == b"ran\n"


GROUPS = 4


@pytest.mark.parametrize("group", range(GROUPS))
def test_a_worker_killed_at_any_touch_of_the_disk_runs_a_step_at_most_once(
    agent: FakeAgent, start_worker: StartWorker, tmp_path: Path, group: int
) -> None:
    """The step runs at most once, its end is told, and true: succeeded only if the command ended well.

    The first worker is killed at its Nth touch of the disk or of processes, for every N until it lives to the end.
    """
    outcomes = set()
    for deadly in range(1 + group, 400, GROUPS):
        task_id, proof, work_dir = f"task.{deadly}", tmp_path / f"proof-{deadly}", tmp_path / f"work-{deadly}"
        seen = len(agent.registrations)
        worker = start_worker(work_dir=work_dir, command=("-m", "tests.support.worker_crash", str(deadly)))
        agent.wait(partial(_more_than, agent.registrations, seen))
        agent.offer(assignment(*shell(f"echo run >> {proof}"), task_id=task_id, apply=("true",), files={"a/b": "c"}))
        agent.wait(partial(_told_or_dead, agent, task_id, worker))
        survived = not worker.dead
        if not survived:
            worker = start_worker(work_dir=work_dir)
        report = agent.exit_of(task_id, Step.PLAN)
        runs = proof.read_text().count("run") if proof.exists() else 0
        assert runs <= 1
        assert report.outcome in {Outcome.SUCCEEDED, Outcome.LOST}
        if report.outcome is Outcome.SUCCEEDED:
            assert runs == 1
            assert report.plan_digest
        outcomes.add(report.outcome)
        worker.kill()
        if survived:
            break
    else:
        pytest.fail("the worker never lived to the end")
    assert outcomes == {Outcome.SUCCEEDED, Outcome.LOST}


def _more_than(things: list[Any], number: int) -> bool:
    return len(things) > number


def _told_or_dead(agent: FakeAgent, task_id: str, worker: WorkerProcess) -> bool:
    return worker.dead or any(report.task_id == task_id for report in agent.exits)
