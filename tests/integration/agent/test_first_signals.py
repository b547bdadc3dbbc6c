"""A SIGTERM in the first moments of a container's first process is not lost. In a process namespace of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.agent_process import AgentProcess, wait_for
from tests.support.binary import installed
from tests.support.fake_agent import FakeAgent
from tests.support.repository import ROOT
from tests.support.worker_process import WorkerProcess, until

PYTHON = (sys.executable, "-m", "agent")
TERM_BIT = 1 << (signal.SIGTERM - 1)


def _namespace() -> list[str]:
    own_user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *own_user, "--pid", "--fork", "--mount-proc", "--kill-child"]


@contextmanager
def first_process(
    command: Sequence[str | Path], environ: dict[str, str], log: Path
) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """The command as the first process of a namespace: its id out here, and the process that waits for it."""
    with log.open("ab") as file:
        outer = subprocess.Popen([*_namespace(), *map(str, command)], env=environ, stdout=file, stderr=file)
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    try:
        yield int(wait_for(lambda: children.read_text().split(), "it runs")[0]), outer
    finally:
        outer.kill()
        outer.wait()


def _holds_back(pid: int) -> bool:
    """Whether it is past its very first instants, in which the program is not yet ours, and holds SIGTERM back."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigBlk:"):
            return bool(int(line.split()[1], 16) & TERM_BIT)
    return False


@pytest.fixture(params=["sources", "binary"])
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Sequence[str | Path]:
    return PYTHON if request.param == "sources" else (installed(tmp_path / "bin"),)


@pytest.mark.timeout(300)  # seconds: the first one builds the binary
def test_an_agent_that_is_starting_stops_when_told(tmp_path: Path, program: Sequence[str | Path]) -> None:
    agent = AgentProcess(tmp_path)
    with first_process((*program, "serve"), agent.environ, tmp_path / "agent.log") as (pid, outer):
        wait_for(lambda: _holds_back(pid), "it holds SIGTERM back")
        os.kill(pid, signal.SIGTERM)
        assert outer.wait(20) == 0
    assert "stopped" in (tmp_path / "agent.log").read_text()


@pytest.mark.timeout(300)
def test_a_worker_that_is_starting_stops_when_told(tmp_path: Path, program: Sequence[str | Path]) -> None:
    with FakeAgent(tmp_path / "credential").running() as agent:
        worker = WorkerProcess(agent.url, agent.credential_dir, tmp_path / "work")
        with first_process((*program, "work"), worker.environ, tmp_path / "worker.log") as (pid, outer):
            wait_for(lambda: _holds_back(pid), "it holds SIGTERM back")
            os.kill(pid, signal.SIGTERM)
            assert outer.wait(20) == 0


def test_both_still_stop_once_they_run(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path)
    with first_process((*PYTHON, "serve"), agent.environ, tmp_path / "agent.log") as (pid, outer):
        agent.process = outer
        wait_for(agent._serves, "it serves")
        os.kill(pid, signal.SIGTERM)
        assert outer.wait(20) == 0
    with FakeAgent(tmp_path / "credential").running() as fake:
        worker = WorkerProcess(fake.url, fake.credential_dir, tmp_path / "work")
        with first_process((*PYTHON, "work"), worker.environ, tmp_path / "worker.log") as (pid, outer):
            fake.wait(lambda: fake.registrations)
            os.kill(pid, signal.SIGTERM)
            assert outer.wait(20) == 0


def test_close_waits_for_an_agent_that_is_starting(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path)
    closing = subprocess.Popen([*PYTHON, "close"], env={**agent.environ, "PYTHONPATH": str(ROOT)})
    try:
        until(lambda: b"close" in Path(f"/proc/{closing.pid}/cmdline").read_bytes())
        agent.start()
        assert closing.wait(20) == 0
        assert agent.state().closing
    finally:
        closing.kill()
        agent.stop()


def test_the_other_commands_end_by_a_signal(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path)
    closing = subprocess.Popen(
        [*PYTHON, "close"],
        env={**agent.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,)),  # noqa: PLW1509 - the launcher does
    )
    try:
        until(lambda: not _holds_back(closing.pid))
        closing.send_signal(signal.SIGTERM)
        assert closing.wait(10) == -signal.SIGTERM
    finally:
        closing.kill()
        closing.wait()
