"""The demo as a person or CI starts it: it holds, says so on its last line, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.repository import ROOT
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until

DEMO = (sys.executable, "-m", "controller.demo")


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*DEMO, *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def processes_of(folder: Path) -> list[str]:
    """Every process that names the folder on its command line or in its environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in text:
            found.append(text[:200].decode(errors="replace"))
    return found


@pytest.fixture
def leaves_nothing(tmp_path: Path) -> Callable[[], None]:
    def check() -> None:
        assert list(tmp_path.iterdir()) == []
        wait_until(lambda: not processes_of(tmp_path), 60, "processes are left")

    return check


@pytest.mark.parametrize(
    "kind", [pytest.param(["--shell"], id="shell"), pytest.param([], id="terraform-if-there", marks=pytest.mark.long)]
)
def test_the_demo_holds_and_says_so(tmp_path: Path, leaves_nothing: Callable[[], None], kind: list[str]) -> None:
    """T1, T2, T3, T8, T10 end to end: what agents, tasks and the audit log recorded agrees with what was promised."""
    demo = start(tmp_path, "--unattended", "--plan-seconds", "5", *kind)
    output, _ = demo.communicate(timeout=250)
    verdict = json.loads(output.splitlines()[-1])
    assert verdict["ok"], output
    assert demo.returncode == 0
    assert verdict["tasks"] == {"Succeeded": 15}
    assert (verdict["pods_max"], verdict["pods_end"], verdict["pods_deleted"]) == (5, 0, 5)
    assert verdict["applies_on_plan_pod"] == 3
    assert (verdict["checker"]["ok"], verdict["checker"]["pods_deleted"]) == (True, 5)
    leaves_nothing()


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_cleans_up(tmp_path: Path, leaves_nothing: Callable[[], None], number: int) -> None:
    demo = start(tmp_path, "--unattended", "--plan-seconds", "60")
    wait_until(lambda: any(tmp_path.glob("*/records/*")), 120, "no step was started")
    demo.send_signal(number)
    output, _ = demo.communicate(timeout=120)
    assert demo.returncode == 130, output
    leaves_nothing()


@pytest.mark.long
def test_a_demo_whose_terminal_is_closed_cleans_up(tmp_path: Path, leaves_nothing: Callable[[], None]) -> None:
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    with Terminal([*DEMO, "--unattended", "--plan-seconds", "60"], environ, ROOT) as terminal:
        terminal.until_seen(b"Running", 120)
        terminal.hang_up(120)
    leaves_nothing()


@pytest.mark.long
def test_answers_may_come_from_a_program(tmp_path: Path, leaves_nothing: Callable[[], None]) -> None:
    """`yes | make demo`: it approves all, and says how it went on."""
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as yes:
        demo = subprocess.run(
            [*DEMO, "--shell", "--plan-seconds", "5"],
            check=False,
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(tmp_path), "TERM": "dumb"},
            stdin=yes.stdout,
            capture_output=True,
            text=True,
            timeout=250,
        )
        yes.kill()
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert demo.stdout.count("Apply network-") == 3
    assert "Go on by hand:" in demo.stdout
    leaves_nothing()


def test_without_a_terminal_there_is_nobody_to_ask(tmp_path: Path, leaves_nothing: Callable[[], None]) -> None:
    demo = start(tmp_path)
    output, _ = demo.communicate(timeout=120)
    assert demo.returncode == 1
    assert "make demo DEMO_ARGS=--unattended" in output
    leaves_nothing()
