"""Fixtures for tests with real workers; a test module takes them by importing them."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_agent import FakeAgent
from tests.support.worker_process import WorkerProcess

StartWorker = Callable[..., WorkerProcess]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FakeAgent]:
    with FakeAgent(tmp_path / "credential").running() as running:
        yield running


@pytest.fixture
def start_worker(tmp_path: Path, agent: FakeAgent) -> Iterator[StartWorker]:
    """Starts workers on one folder. At the end whatever they left is killed: they lead their own sessions."""
    started: list[WorkerProcess] = []

    def start(*, work_dir: Path | None = None, **options: Any) -> WorkerProcess:
        worker = WorkerProcess(agent.url, agent.credential_dir, work_dir or tmp_path / "work", **options)
        started.append(worker.start())
        return worker

    yield start
    for worker in started:
        if worker.process and worker.process.poll() is None:
            worker.kill()
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
