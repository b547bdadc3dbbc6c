"""A step that is stopped has its whole grace: nothing of it is cut short by the end of its first process."""

import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.wire import Command, ExitCodes, Outcome, Step
from tests.support import stopped_pair
from tests.support.fake_agent import FakeAgent
from tests.support.worker_fixtures import StartWorker, agent, start_worker
from tests.support.worker_process import alive, assignment, shell, until

__all__ = ["agent", "start_worker"]

PAIR = f"{sys.executable} {stopped_pair.__file__}"


def _step(where: str, folder: Path, **options: Any) -> Any:
    words = (*PAIR.split(), str(folder))
    commands: dict[str, Any] = {
        "direct": {"command": words},
        "sh": {"command": ("/bin/sh", "-c", f"true && {PAIR} {folder} && echo applied")},
        "bash": {"command": ("bash", "-c", f"{PAIR} {folder}; echo done")},
        "before": {"command": ("touch", str(folder / "applied")), "before": (Command(command=words),)},
    }
    chosen = commands[where]
    return assignment(*chosen.pop("command"), step=Step.APPLY, **chosen, **options)


@pytest.mark.parametrize("cause", ["cancel", "time limit", "the Pod's end"])
@pytest.mark.parametrize("where", ["direct", "sh", "bash", "before"])
def test_what_is_stopped_tidies_up_whatever_stands_before_it(
    agent: FakeAgent, start_worker: StartWorker, tmp_path: Path, where: str, cause: str
) -> None:
    if where == "bash" and shutil.which("bash") is None:
        where = "sh"
    folder = tmp_path / "made"
    folder.mkdir()
    worker = start_worker(environ={"PODSLOTS_GRACE_SECONDS": "75"})
    agent.offer(_step(where, folder, grace_seconds=60, timeout_seconds=2 if cause == "time limit" else None))
    until((folder / "ready").exists)
    if cause == "cancel":
        agent.cancel("task.1")
    elif cause == "the Pod's end":
        worker.terminate()
    report = agent.exit_of("task.1", Step.APPLY)
    expected = {"cancel": Outcome.CANCELLED}.get(cause, Outcome.FAILED)
    assert report.outcome is expected
    assert (folder / "state").read_text() == "complete"
    assert not (folder / "lock").exists()
    assert not (folder / "applied").exists(), "nothing starts after the stop"


def test_late_in_the_grace_what_still_runs_gets_sigterm(agent: FakeAgent, start_worker: StartWorker) -> None:
    start_worker()
    script = "trap '' INT; trap 'echo terminated; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    agent.offer(assignment(*shell(script), grace_seconds=2))
    agent.wait(lambda: agent.log("task.1") == b"ready\n")
    agent.cancel("task.1")
    report = agent.exit_of("task.1", Step.PLAN)
    assert (report.outcome, report.exit_code) == (Outcome.CANCELLED, 3)
    assert agent.log("task.1").endswith(b"terminated\n")


def test_another_stop_signal_is_sent_instead(agent: FakeAgent, start_worker: StartWorker) -> None:
    start_worker()
    script = "trap 'echo up; exit 4' HUP; trap 'echo no' INT; echo ready; while :; do sleep 0.05; done"
    agent.offer(assignment(*shell(script), stop_signal="SIGHUP"))
    agent.wait(lambda: agent.log("task.1") == b"ready\n")
    agent.cancel("task.1")
    assert agent.exit_of("task.1", Step.PLAN).exit_code == 4
    words = agent.log("task.1").split()
    assert b"up" in words
    assert b"no" not in words


def test_a_step_gets_the_signal_though_the_worker_was_started_with_it_ignored(
    agent: FakeAgent, start_worker: StartWorker
) -> None:
    """As `nohup` does: what is ignored is inherited over exec, and a shell can't trap it any more."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        start_worker()
    finally:
        signal.signal(signal.SIGHUP, before)
    agent.offer(assignment(*shell("trap 'exit 4' HUP; echo ready; while :; do sleep 0.05; done"), stop_signal="SIGHUP"))
    agent.wait(lambda: agent.log("task.1") == b"ready\n")
    agent.cancel("task.1")
    assert agent.exit_of("task.1", Step.PLAN).exit_code == 4


@pytest.mark.parametrize("where", ["its group", "a group of its own"])
def test_a_process_that_stands_still_goes_on_so_that_it_can_tidy_up(
    agent: FakeAgent, start_worker: StartWorker, where: str
) -> None:
    """Somebody stopped it (SIGSTOP) to look at it: a signal that it can handle would wait for SIGKILL to end it."""
    start_worker()
    tool = "trap 'echo tidied; exit 4' INT TERM; echo ready; kill -STOP $$; while :; do sleep 0.05; done"
    command = ("setsid", "--fork", *shell(tool)) if where == "a group of its own" else shell(tool)
    wait = shell('"$@"; sleep 1000')
    agent.offer(assignment(*wait, "sh", *command, grace_seconds=4))
    agent.wait(lambda: agent.log("task.1") == b"ready\n")
    agent.cancel("task.1")
    assert agent.exit_of("task.1", Step.PLAN).outcome is Outcome.CANCELLED
    assert agent.log("task.1").split()[-1] == b"tidied"


def test_a_step_that_is_not_stopped_ends_with_its_first_process(agent: FakeAgent, start_worker: StartWorker) -> None:
    start_worker()
    agent.offer(assignment(*shell("sleep 1000 & echo $!")))
    assert agent.exit_of("task.1", Step.PLAN).outcome is Outcome.SUCCEEDED
    assert not alive(int(agent.log("task.1")))


# --- preparing --------------------------------------------------------------------------------------------------------


def test_commands_run_one_after_the_other_each_in_its_folder_and_group(
    agent: FakeAgent, start_worker: StartWorker
) -> None:
    worker = start_worker()
    say = "pwd; echo $PWD; ps -o pgid= -p $$"
    agent.offer(
        assignment(
            *shell(say),
            before=(
                Command(command=shell("mkdir -p clone/sub; echo cloned"), working_dir="."),
                Command(command=shell(say)),
            ),
            working_dir="clone/sub",
        )
    )
    report = agent.exit_of("task.1", Step.PLAN)
    assert report.outcome is Outcome.SUCCEEDED, report
    said = agent.log("task.1").decode().split()
    folder = str(worker.task_dir("task.1") / "dir" / "clone" / "sub")
    assert said[:3] == ["cloned", folder, folder]
    assert said[4:6] == [folder, folder]
    assert said[3] != said[6]
    assert report.log_bytes == len(agent.log("task.1"))


def test_a_command_that_lets_its_output_not_wait_leaves_that_to_none_after_it(
    agent: FakeAgent, start_worker: StartWorker
) -> None:
    """As `node` does with a pipe, and so `npm`: the next command would lose what finds the pipe full."""
    start_worker()
    size = 8 << 20
    not_to_wait = (sys.executable, "-c", "import os; os.set_blocking(1, False)")
    write_all = (sys.executable, "-c", f"import os; assert os.write(1, bytes({size})) == {size}")
    agent.offer(assignment(*write_all, before=(Command(command=not_to_wait),)))
    report = agent.exit_of("task.1", Step.PLAN)
    assert (report.outcome, report.log_bytes) == (Outcome.SUCCEEDED, size), agent.log("task.1")[-1000:]


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        (shell("exit 3"), "/bin/sh -c exit 3 ended with 3"),
        (shell(f"exit 3 # {'x' * 90}"), f"/bin/sh -c exit 3 # {'x' * 59}… ended with 3"),
        (("no-such-program",), "command 'no-such-program': it can't be run: No such file or directory"),
    ],
)
def test_a_failing_command_before_the_steps_own_is_named_and_the_last(
    agent: FakeAgent, start_worker: StartWorker, before: tuple[str, ...], reason: str
) -> None:
    start_worker()
    agent.offer(assignment("echo", "never", before=(Command(command=("true",)), Command(command=before))))
    report = agent.exit_of("task.1", Step.PLAN)
    assert (report.outcome, report.reason) == (Outcome.FAILED, reason)
    assert agent.log("task.1") == b""


@pytest.mark.parametrize("folder", ["out", "missing"])
def test_a_working_dir_that_leads_out_or_is_none_fails_the_step(
    agent: FakeAgent, start_worker: StartWorker, folder: str
) -> None:
    start_worker()
    agent.offer(
        assignment("pwd", before=(Command(command=("ln", "-s", "../..", "out"), working_dir="."),), working_dir=folder)
    )
    report = agent.exit_of("task.1", Step.PLAN)
    assert report.outcome is Outcome.FAILED
    assert "workingDir" in (report.reason or "")
    assert agent.log("task.1") == b""


def test_the_plan_file_is_in_the_steps_folder_and_its_apply_runs_there_too(
    agent: FakeAgent, start_worker: StartWorker
) -> None:
    start_worker()
    plan = shell("echo plan > tfplan")
    before = (Command(command=("mkdir", "stack"), working_dir="."),)
    offered = assignment(*plan, before=before, working_dir="stack", plan_file="tfplan", apply=("cat", "tfplan"))
    agent.offer(offered)
    digest = agent.exit_of("task.1", Step.PLAN).plan_digest
    assert digest

    agent.offer(replace(offered, step=Step.APPLY, plan_digest=digest))
    assert agent.exit_of("task.1", Step.APPLY).outcome is Outcome.SUCCEEDED
    assert agent.log("task.1", Step.APPLY) == b"plan\n"


def test_exit_codes_say_whether_a_plan_changes_anything(agent: FakeAgent, start_worker: StartWorker) -> None:
    start_worker()
    codes = ExitCodes(changed=(2,), unchanged=(0,))
    for number, (code, changed) in enumerate([(2, True), (0, False)]):
        name = f"task.{number}"
        agent.offer(assignment(*shell(f"exit {code}"), task_id=name, exit_codes=codes))
        report = agent.exit_of(name, Step.PLAN)
        assert (report.outcome, report.changed, report.exit_code) == (Outcome.SUCCEEDED, changed, code)
