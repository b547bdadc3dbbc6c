"""`slot-agent` on the command line: install, close, slots, version, and what a bad environment is told."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agent import __version__
from tests.support.agent_process import AgentProcess, running_agent
from tests.support.repository import ROOT


def run(*command: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], **(environ or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def slot_agent(*words: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "agent", *words, environ={"PYTHONPATH": str(ROOT), **(environ or {})})


def test_version_and_usage() -> None:
    assert slot_agent("--version").stdout == f"slot-agent {__version__}\n"
    assert slot_agent().returncode == 2
    assert slot_agent("nonsense").returncode == 2
    text = slot_agent("--help").stdout
    assert all(word in text for word in ("serve", "work", "close", "slots", "install"))


def test_install_makes_a_program_that_needs_nothing_of_its_surroundings(tmp_path: Path) -> None:
    """Twice, over an old one, from anywhere, whatever PYTHONPATH says."""
    folder = tmp_path / "shared" / "bin"
    for _ in range(2):
        done = slot_agent("install", str(folder))
        assert (done.returncode, done.stderr) == (0, "")
    program = folder / "slot-agent"
    assert stat.S_IMODE(program.stat().st_mode) == 0o755
    assert [path.name for path in folder.iterdir()] == ["slot-agent"], "nothing is left beside it"
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "agent.py").write_text("raise SystemExit('the wrong one')")
    found = run(str(program), "--version", environ={"PYTHONPATH": str(trap)})
    assert found.stdout == f"slot-agent {__version__}\n"
    served = run(str(program), "serve")
    assert served.returncode == 2
    assert "PODSLOTS_POD_UID is required" in served.stderr
    worked = run(str(program), "work")
    assert worked.returncode != 0
    assert "PODSLOTS_" in worked.stderr
    assert "Traceback" not in worked.stderr


def test_install_into_a_place_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = slot_agent("install", str(tmp_path / "file"))
    assert done.returncode == 1
    assert "can't install" in done.stderr


def test_a_worker_needs_no_third_party_package(tmp_path: Path) -> None:
    """Its start and its memory have bars; one import would break both."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from agent.__main__ import main;"
        "main(['work'], {});"
        "heavy = {'asyncio', 'aiohttp', 'orjson', 'argparse', 'uvloop'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = run(sys.executable, "-I", "-S", "-c", code, str(ROOT), environ={"TMPDIR": str(tmp_path)})
    assert "AssertionError" not in done.stderr


def test_slots_prints_the_local_agents_table(tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent:
        agent.open()
        agent.acquire("t.1")
        done = slot_agent("slots", environ={"PODSLOTS_URL": agent.url})
        assert done.returncode == 0
        assert "t.1" in done.stdout
    done = slot_agent("slots", environ={"PODSLOTS_URL": agent.url})
    assert (done.returncode, done.stdout) == (1, "")
    assert "can't reach" in done.stderr


def test_close_by_the_agents_own_container(tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent:
        assert slot_agent("close").returncode == 1
        done = slot_agent("close", environ=agent.environ)
        assert (done.returncode, done.stderr) == (0, "")
        assert agent.state().closing
        (agent.state_dir / "close-token").write_text("x" * 43)
        done = slot_agent("close", environ=agent.environ)
        assert done.returncode == 1
        assert "unauthorized" in done.stderr


def test_a_bad_environment_is_said_in_full(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path)
    done = slot_agent("serve", environ={**agent.environ, "PODSLOTS_LAYOUT": "x", "PODSLOTS_POD_IP": "nowhere"})
    assert done.returncode == 2
    assert "PODSLOTS_LAYOUT" in done.stderr
    assert "PODSLOTS_POD_IP" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "given",
    [
        {"PODSLOTS_URL": "http://["},
        {"PODSLOTS_URL": "http://a..b:1"},
        {"PODSLOTS_PORT": "99999"},
    ],
    ids=str,
)
def test_an_address_that_is_none_is_said_at_once(tmp_path: Path, given: dict[str, str]) -> None:
    (tmp_path / "close-token").write_text("t")
    for command in ("slots", "health", "close"):
        done = slot_agent(command, environ={"PODSLOTS_STATE_DIR": str(tmp_path), **given})
        assert done.returncode == 1
        assert done.stderr.startswith("slot-agent: can't ask the agent, by PODSLOTS_URL or ")
        assert done.stderr.count("\n") == 1


def test_an_address_that_is_taken_ends_it(tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent:
        other = {**agent.environ, "PODSLOTS_STATE_DIR": str(tmp_path / "other")}
        done = slot_agent("serve", environ=other)
        assert done.returncode == 1
        assert "can't run" in done.stderr
