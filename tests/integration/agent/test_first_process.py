"""As the first process of its container, agent and worker are stopped by the first SIGTERM, whenever it comes (N2)."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.agent_process import AgentProcess, running_agent, wait_for
from tests.support.binary import built, installed
from tests.support.first_process import FirstProcess, first_process
from tests.support.worker_process import WorkerProcess

PYTHON = (sys.executable, "-m", "agent")

Program = Callable[[Path], tuple[str | Path, ...]]
PROGRAMS = {
    "python": lambda _: PYTHON,
    "one file": lambda _: (built(),),
    "installed": lambda folder: (installed(folder / "bin"),),
}

programs = pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())


def stops(process: FirstProcess, number: int = signal.SIGTERM) -> None:
    wait_for(lambda: process.takes_signals, "the program keeps or takes signals")
    process.send(number)
    assert process.wait() == 0


@programs
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_agent_that_starts_is_stopped(program: Program, number: int, tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path)
    with first_process((*program(tmp_path), "serve"), agent.environ, tmp_path / "agent.log") as process:
        stops(process, number)
    assert agent.log_lines()[-1]["message"] == "stopped"


def test_an_agent_that_serves_is_stopped(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path)
    with first_process((*PYTHON, "serve"), agent.environ, tmp_path / "agent.log") as process:
        wait_for(lambda: any(line["message"] == "serving" for line in agent.log_lines()), "it serves")
        stops(process)


@programs
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_starts_is_stopped(program: Program, number: int, tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent:
        worker = WorkerProcess(agent.url, agent.credentials_dir / "0", tmp_path / "work")
        with first_process((*program(tmp_path), "work"), worker.environ, tmp_path / "log") as process:
            stops(process, number)


@programs
def test_a_worker_whose_agent_is_not_there_is_stopped(program: Program, tmp_path: Path) -> None:
    """As in a Pod whose agent can't start: its workers look for it again and again."""
    agent = AgentProcess(tmp_path)
    worker = WorkerProcess(agent.url, agent.credentials_dir / "0", tmp_path / "work")
    with first_process((*program(tmp_path), "work"), worker.environ, tmp_path / "log") as process:
        stops(process)


def test_a_worker_that_waits_for_its_folder_is_stopped(tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent:
        first = WorkerProcess(agent.url, agent.credentials_dir / "0", tmp_path / "work").start()
        try:
            wait_for(lambda: first.said("registered") or agent.state().slots[0].worker, "the first worker is there")
            with first_process((*PYTHON, "work"), first.environ, tmp_path / "log") as process:
                wait_for(lambda: b"another worker" in (tmp_path / "log").read_bytes(), "the second one waits")
                stops(process)
        finally:
            first.kill()


@programs
def test_close_waits_for_an_agent_that_starts(program: Program, tmp_path: Path) -> None:
    """A preStop hook is run as soon as the container runs: long before anybody listens."""
    agent = AgentProcess(tmp_path)
    command = program(tmp_path)
    with first_process((*command, "close"), agent.environ, tmp_path / "close.log") as closing:
        wait_for(lambda: closing.takes_signals, "it has begun")
        with first_process((*command, "serve"), agent.environ, tmp_path / "agent.log"):
            assert closing.wait() == 0, (tmp_path / "close.log").read_text()
            assert agent.state().phase == "drained"
            wait_for(lambda: any(line["message"] == "closing" for line in agent.log_lines()), "the agent closes")


def test_close_is_stopped_by_a_signal(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path)
    with first_process((*PYTHON, "close"), agent.environ, tmp_path / "close.log") as closing:
        wait_for(lambda: closing.takes_signals, "it has begun")
        closing.send(signal.SIGTERM)
        assert closing.wait() == 128 + signal.SIGTERM
