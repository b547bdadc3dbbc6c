"""Ctrl-C while `podslots local up` starts: it ends what it has started, and says so. Nothing then seems killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from controller.cli.local.processes import start_ticks
from tests.support.repository import ROOT
from tests.support.terminal import Terminal

PODSLOTS = str(Path(sys.executable).with_name("podslots"))
DEADLINE_SECONDS = 60.0


def up(folder: Path, *options: str) -> subprocess.Popen[str]:
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [PODSLOTS, "local", "up", "--state-dir", str(folder), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ)


def records(folder: Path, count: int) -> list[dict[str, int]]:
    """The processes that were started, once there are so many."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    found: list[dict[str, int]] = []
    while len(found) < count and time.monotonic() < deadline:
        if (folder / "processes.json").exists():
            found = json.loads((folder / "processes.json").read_text())
        time.sleep(0.01)
    assert len(found) == count
    return found


def status(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [PODSLOTS, "local", "status", "--state-dir", str(folder)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("number", "count", "options"),
    [(signal.SIGINT, 1, ()), (signal.SIGTERM, 1, ("--detach",)), (signal.SIGINT, 2, ("--detach",))],
)
def test_a_start_that_is_interrupted_is_undone(
    tmp_path: Path, number: int, count: int, options: tuple[str, ...]
) -> None:
    with up(tmp_path, *options) as process:
        started = records(tmp_path, count)
        process.send_signal(number)
        said, _ = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 130
    assert f"\nInterrupted. Stopped again: {', '.join(('cluster', 'controller')[:count])}\n" in said
    assert all(start_ticks(record["pid"]) != record["start_ticks"] for record in started)
    after = status(tmp_path)
    assert after.returncode == 3
    assert "killed" not in after.stdout


def test_closing_the_terminal_ends_it_as_ctrl_c_does(tmp_path: Path) -> None:
    """Nobody is left to read what it says; it has to stop what it started all the same."""
    with Terminal([PODSLOTS, "local", "up", "--state-dir", str(tmp_path)], dict(os.environ), ROOT) as terminal:
        terminal.until_seen(b"Ctrl-C stops it", DEADLINE_SECONDS)
        started = records(tmp_path, 2)
        terminal.hang_up()
    assert all(start_ticks(record["pid"]) != record["start_ticks"] for record in started)
    assert "is stopped; its objects are kept" in status(tmp_path).stdout


def test_under_nohup_it_stays_when_the_terminal_goes(tmp_path: Path) -> None:
    with subprocess.Popen(
        ["nohup", PODSLOTS, "local", "up", "--state-dir", str(tmp_path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        while "Ctrl-C stops it" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGHUP)
        assert status(tmp_path).returncode == 0
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0


def test_what_was_there_before_is_said_to_be_kept(tmp_path: Path) -> None:
    """The file that says that the cluster is ready is gone by then: it is not what tells of a cluster."""
    with up(tmp_path, "--detach") as process:
        process.communicate(timeout=DEADLINE_SECONDS)
    down = [PODSLOTS, "local", "down", "--state-dir", str(tmp_path)]
    subprocess.run(down, check=True, timeout=60)
    with up(tmp_path) as process:
        records(tmp_path, 1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=DEADLINE_SECONDS)
    assert "is stopped; its objects are kept" in status(tmp_path).stdout
