"""A real worker in a process of its own, for tests."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent.wire import Assignment, Command, EnvFrom, EnvVar, ExitCodes, File, Step, Steps, StepSpec, Work
from tests.support.repository import ROOT


class WorkerProcess:
    """`slot-agent work` on a folder. Its stdout and stderr go to files beside the folder."""

    def __init__(
        self,
        url: str,
        credential_dir: Path,
        work_dir: Path,
        *,
        environ: Mapping[str, str] | None = None,
        command: tuple[str, ...] = ("-m", "agent.worker"),
        stdout: int | None = None,
    ) -> None:
        self._stdout_fd = stdout
        self.work_dir = work_dir
        self.environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "PODSLOTS_URL": url,
            "PODSLOTS_SLOT": "0",
            "PODSLOTS_CREDENTIAL_DIR": str(credential_dir),
            "PODSLOTS_WORK_DIR": str(work_dir),
            **(environ or {}),
        }
        self._command = (sys.executable, *command)
        self._stdout = work_dir.with_suffix(".stdout")
        self._stderr = work_dir.with_suffix(".stderr")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "WorkerProcess":
        with self._stdout.open("ab") as stdout, self._stderr.open("ab") as stderr:
            self.process = subprocess.Popen(
                self._command,
                env=self.environ,
                stdout=stdout if self._stdout_fd is None else self._stdout_fd,
                stderr=stderr,
                start_new_session=True,
            )
        return self

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    @property
    def dead(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def kill(self) -> None:
        """SIGKILL, as the kernel does when memory runs out."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float = 60.0) -> int:
        assert self.process
        return self.process.wait(seconds)

    @property
    def stdout(self) -> bytes:
        return self._stdout.read_bytes()

    @property
    def events(self) -> list[dict[str, Any]]:
        """The log's lines, and what was no line of log."""
        lines = self._stderr.read_text().splitlines()
        return [json.loads(line) if line.startswith("{") else {"event": "?", "text": line} for line in lines]

    def said(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.events if line["event"] == event]

    def task_dir(self, task_id: str) -> Path:
        return self.work_dir / "tasks" / task_id


def assignment(
    *command: str,
    task_id: str = "task.1",
    step: Step = Step.PLAN,
    apply: tuple[str, ...] | None = None,
    plan: tuple[str, ...] | None = None,
    plan_file: str | None = None,
    plan_digest: str | None = None,
    timeout_seconds: int | None = None,
    grace_seconds: int = 10,
    files: dict[str, str | File] | None = None,
    env: tuple[EnvVar, ...] = (),
    env_from: tuple[EnvFrom, ...] = (),
    attempt: int = 1,
    mask_secrets: bool | None = None,
    outputs_path: str | None = None,
    stop_signal: str = "SIGINT",
    before: tuple[Command, ...] = (),
    working_dir: str | None = None,
    exit_codes: ExitCodes | None = None,
    nonce: str | None = None,
) -> Assignment:
    """A step that runs `command`. With `apply` (of a plan) or `plan` (of an apply) the task has both steps."""
    spec = StepSpec(
        command=command,
        plan_file=plan_file if step is Step.PLAN else None,
        timeout_seconds=timeout_seconds,
        cancel_grace_seconds=grace_seconds,
        stop_signal=stop_signal,
        before=before,
        working_dir=working_dir,
        exit_codes=exit_codes,
    )
    if step is Step.PLAN:
        steps = Steps(plan=spec, apply=StepSpec(command=apply, cancel_grace_seconds=grace_seconds) if apply else None)
    else:
        steps = Steps(plan=StepSpec(command=plan, plan_file=plan_file) if plan else None, apply=spec)
    work = Work(
        name="team/task",
        attempt=attempt,
        steps=steps,
        files=files or {},
        env=env,
        env_from=env_from,
        mask_secrets=mask_secrets,
        outputs_path=outputs_path,
    )
    return Assignment(
        task_id=task_id, task_type="plan", step=step, fence=7, work=work, plan_digest=plan_digest, nonce=nonce
    )


def shell(script: str) -> tuple[str, str, str]:
    return "/bin/sh", "-c", script


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The condition's result, once it is true."""
    limit = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > limit:
            raise AssertionError(f"did not come true in {seconds} s")
        time.sleep(0.01)
    return result


def alive(pid: int) -> bool:
    """Whether a process runs: zombies don't."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in {"Z", "X"}
