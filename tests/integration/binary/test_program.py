"""dist/slot-agent: one file that runs as it is, and leaves alone what it starts."""

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent import __version__
from agent.wire import Outcome, Steps, StepSpec, TaskState, Work
from tests.support.binary import BinaryAgent, BinaryWorker, build, built, installed
from tests.support.repository import ROOT
from tests.support.worker_process import shell, until

VERSION = f"slot-agent {__version__}\n"


@pytest.fixture(scope="module")
def binary() -> Path:
    return built()


@pytest.fixture
def agent(binary: Path, tmp_path: Path) -> Iterator[BinaryAgent]:
    running = BinaryAgent(tmp_path / "agent", environ={"TMPDIR": str(tmp_path)})
    running.command = (binary, "serve")
    try:
        yield running.start()
    finally:
        running.stop()


def run(*command: str | Path, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environ or {}, capture_output=True, text=True, timeout=120, check=False)


def unpacked(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(".slot-agent-")]


# --- what is in it --------------------------------------------------------------------------------------------------


def test_the_agent_and_its_libraries_are_in_it_the_controller_and_kubernetes_are_not(binary: Path) -> None:
    content = binary.read_bytes()
    for name in (b"agent.app", b"agent.worker.loop", b"aiohttp.web", b"uvloop"):
        assert b"\0%s\0" % name in content, name
    assert not re.search(rb"\0(controller|tests|binary)\.[a-z_.]+\0", content)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources in another place, with the binary built there."""
    folder = _copy(ROOT, tmp_path_factory.mktemp("elsewhere"))
    build(folder / "dist" / "slot-agent", sources=folder)
    return folder


def _copy(sources: Path, folder: Path) -> Path:
    for part in ("agent", "binary", "metrics"):
        shutil.copytree(sources / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(sources / "LICENSE", folder)
    return folder


@pytest.mark.long
def test_it_tells_nothing_of_where_it_was_built(elsewhere: Path) -> None:
    content = (elsewhere / "dist" / "slot-agent").read_bytes()
    assert str(elsewhere).encode() not in content
    assert str(ROOT).encode() not in content


@pytest.mark.long
def test_the_same_sources_give_the_same_file(elsewhere: Path, tmp_path: Path) -> None:
    again = build(tmp_path / "dist" / "slot-agent", sources=_copy(elsewhere, tmp_path))
    assert again.read_bytes() == (elsewhere / "dist" / "slot-agent").read_bytes()


# --- unpacking ------------------------------------------------------------------------------------------------------


def test_starts_at_the_same_time_share_what_the_first_unpacks(binary: Path, tmp_path: Path) -> None:
    def version(_: int) -> str:
        return run(binary, "--version", environ={"TMPDIR": str(tmp_path)}).stdout

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(version, range(8))) == {VERSION}
    (folder,) = unpacked(tmp_path)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert all(not path.name.startswith(".") and path.suffix != ".XXXXXX" for path in files), (
        "no temporary file is left"
    )
    manifest = (folder / "manifest.json").read_text()
    assert len(files) == manifest.count('",') + 1, "each file of the bundle, and no other"


def test_what_somebody_cleaned_away_or_cut_short_is_unpacked_again(binary: Path, tmp_path: Path) -> None:
    environ = {"TMPDIR": str(tmp_path)}
    assert run(binary, "--version", environ=environ).stdout == VERSION
    (folder,) = unpacked(tmp_path)
    (folder / "lib" / "loader").unlink()
    library = next(folder.glob("lib/libpython*"))
    library.chmod(0o644)
    os.truncate(library, 1000)
    assert run(binary, "--version", environ=environ).stdout == VERSION


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make folders of other users")
def test_a_folder_that_others_can_write_to_is_not_trusted(binary: Path, tmp_path: Path) -> None:
    """Whoever may write to /tmp can guess the name, and have a library ready there."""
    environ = {"TMPDIR": str(tmp_path)}
    assert run(binary, "--version", environ=environ).stdout == VERSION
    (folder,) = unpacked(tmp_path)
    (folder / "program").unlink()
    (folder / "program").write_text("#!/bin/sh\necho caught\n")
    for user, mode in ((4711, 0o700), (0, 0o777)):
        os.chown(folder, user, user)
        folder.chmod(mode)
        assert run(binary, "--version", environ=environ).stdout == VERSION
        assert (folder / "program").read_text().endswith("caught\n"), "it was not even repaired"
        assert len(unpacked(tmp_path)) > 1, "another folder was made"


def test_without_a_folder_to_unpack_into_it_says_what_to_set(binary: Path, tmp_path: Path) -> None:
    done = run(binary, "--version", environ={"TMPDIR": str(tmp_path / "missing")})
    assert done.returncode == 127
    assert "set TMPDIR" in done.stderr


# --- installing -----------------------------------------------------------------------------------------------------


def test_install_needs_no_temporary_folder_afterwards_and_suits_every_user(binary: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    for _ in range(2):
        done = run("/bin/sh", "-c", f"umask 077; {binary} install {folder}", environ={"TMPDIR": str(tmp_path)})
        assert (done.returncode, done.stderr) == (0, "")
    assert run(folder / "slot-agent", "--version", environ={"TMPDIR": "/nowhere"}).stdout == VERSION
    (bundle,) = unpacked(folder)
    assert {path.name for path in folder.iterdir()} == {"slot-agent", bundle.name}
    for path in (folder / "slot-agent", bundle, *bundle.rglob("*")):
        others = stat.S_IMODE(path.stat().st_mode) & 0o007
        assert others == (0o5 if path.is_dir() or os.access(path, os.X_OK) else 0o4), path


def test_an_installed_slot_agent_installs_itself_elsewhere(tmp_path: Path) -> None:
    first = installed(tmp_path / "first")
    assert run(first, "install", tmp_path / "second").returncode == 0
    (tmp_path / "first" / "slot-agent").unlink()
    assert run(tmp_path / "second" / "slot-agent", "--version").stdout == VERSION


def test_a_full_or_missing_place_is_an_error_in_words(binary: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run(binary, "install", tmp_path / "file", environ={"TMPDIR": str(tmp_path)})
    assert done.returncode == 1
    assert "can't install into" in done.stderr


# --- running --------------------------------------------------------------------------------------------------------


def test_the_sub_commands_reach_the_agent(agent: BinaryAgent, binary: Path) -> None:
    agent.open()
    table = run(binary, "slots", environ=agent.environ)
    assert (table.returncode, table.stderr) == (0, "")
    assert "idle" in table.stdout
    healthy = run(binary, "health", environ=agent.environ)
    assert (healthy.returncode, healthy.stdout, healthy.stderr) == (0, "", "")
    assert run(binary, "close", environ=agent.environ).returncode == 0
    assert agent.get("/slots")["closing"]
    agent.terminate()
    assert agent.process
    assert agent.process.wait(20) == 0
    refused = run(binary, "health", environ=agent.environ)
    assert refused.returncode == 1
    assert "can't reach the agent" in refused.stderr


def test_variables_of_python_and_of_the_loader_reach_commands_and_nothing_else(
    agent: BinaryAgent, tmp_path: Path
) -> None:
    """They are meant for the image's own programs: our loader must not heed them, and they must not be lost."""
    theirs = {
        "LD_LIBRARY_PATH": "/opt/theirs/lib",
        "LD_DEBUG": "nothing",
        "GLIBC_TUNABLES": "glibc.malloc.check=1",
        "PYTHONHOME": "/nonexistent",
        "PYTHONPATH": "/nonexistent",
        "LANG": "xx_YY",
    }
    agent.open()
    worker = BinaryWorker(agent.url, agent.credentials_dir / "0", tmp_path / "work")
    try:
        worker.run(installed(tmp_path / "bin"), "work", **theirs)
        steps = Steps(plan=StepSpec(command=shell("env")))
        agent.acquire("t.1", "plan_and_apply", Work(name="team/task", attempt=1, steps=steps))
        until(lambda: agent.task("t.1").state is TaskState.ENDED)
    finally:
        worker.kill()
    task = agent.task("t.1")
    assert task.outcome is Outcome.SUCCEEDED
    assert task.plan
    seen = dict(line.split("=", 1) for line in task.plan.log_tail.splitlines())
    assert {name: seen.get(name) for name in theirs} == theirs
    assert not [name for name in seen if name.startswith("_") and name != "_"], "nothing of ours is added"


def test_a_preload_for_the_images_programs_does_not_touch_ours(binary: Path, tmp_path: Path) -> None:
    done = run(binary, "--version", environ={"TMPDIR": str(tmp_path), "LD_PRELOAD": "/nonexistent/lib.so"})
    assert (done.stdout, done.stderr) == (VERSION, "")
