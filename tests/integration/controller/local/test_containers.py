"""The container runtime alone: one run is one set of processes, whoever is killed."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from controller.local.node.pods.containers import MARKER, Attempt, AttemptState, Launch, shim_command
from controller.local.node.pods.processes import carriers, run_command, start_ticks
from tests.support.local_pods import until

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


@pytest.fixture
def shim(tmp_path: Path) -> tuple[str, ...]:
    return shim_command(tmp_path)


class Runs:
    """Makes runs in a folder, and closes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.attempts: list[Attempt] = []
        self.changed = asyncio.Event()

    def attempt(self, number: int = 0) -> Attempt:
        log = self.folder / "log"
        attempt = Attempt(self.folder / str(number), log, identity=f"{self.folder}/{number}", changed=self.changed.set)
        self.attempts.append(attempt)
        attempt.prepare(short_runs=0)
        return attempt

    def alive(self) -> list[int]:
        ours = {attempt.container_id for attempt in self.attempts}
        return [name.pid for name, value in carriers(MARKER) if value in ours]

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


@pytest.fixture
async def runs(tmp_path: Path) -> AsyncIterator[Runs]:
    made = Runs(tmp_path)
    yield made
    for attempt in made.attempts:
        if attempt.send(signal.SIGKILL):
            await exited(attempt)
        attempt.close()
    assert made.alive() == []


def script(text: str) -> Launch:
    return Launch(["sh", "-c", text], ENVIRONMENT)


async def exited(attempt: Attempt) -> int:
    async def ask() -> bool:
        return attempt.state is AttemptState.EXITED

    await until(ask, what="the run has ended")
    assert attempt.exit is not None
    return attempt.exit.exit_code


def holds(test: Callable[[], object]) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return bool(test())

    return ask


async def test_a_run_reports_its_exit_code_and_its_output(runs: Runs, shim: tuple[str, ...]) -> None:
    attempt = runs.attempt()
    await attempt.start(script("echo out; echo err >&2; exit 3"), shim)
    assert await exited(attempt) == 3
    assert runs.log == "out\nerr\n"
    assert attempt.exit
    assert attempt.exit.started_at <= attempt.exit.finished_at


async def test_a_signal_shows_as_128_and_its_number(runs: Runs, shim: tuple[str, ...]) -> None:
    attempt = runs.attempt()
    await attempt.start(script("exec sleep 60"), shim)
    assert attempt.send(signal.SIGTERM)
    assert await exited(attempt) == 128 + signal.SIGTERM
    assert attempt.exit
    assert attempt.exit.signal == signal.SIGTERM


async def test_a_program_that_is_not_there_is_a_start_error(runs: Runs, shim: tuple[str, ...]) -> None:
    attempt = runs.attempt()
    await attempt.start(Launch(["no-such-program"], ENVIRONMENT), shim)
    assert attempt.state is AttemptState.EXITED
    assert attempt.exit
    assert (attempt.exit.exit_code, attempt.exit.reason) == (128, "StartError")
    assert "no-such-program" in attempt.exit.message


async def test_children_that_forked_twice_into_sessions_of_their_own_end_with_the_container(
    runs: Runs, shim: tuple[str, ...]
) -> None:
    """R6: background children die with the group."""
    attempt = runs.attempt()
    stray = 'env -i setsid sh -c \'sh -c "exec sleep 300" & echo $! > "$0"\' "$PWD/pid" &'
    await attempt.start(script(f"{stray} (trap '' TERM; setsid sleep 301) & sleep 0.5; exit 0"), shim)
    assert await exited(attempt) == 0
    stray_pid = int((attempt.scratch / "pid").read_text())
    assert runs.alive() == []
    assert start_ticks(stray_pid) is None


async def test_a_killed_shim_takes_the_container_and_its_children_along(runs: Runs, shim: tuple[str, ...]) -> None:
    attempt = runs.attempt()
    await attempt.start(script("setsid sleep 300 & exec sleep 301"), shim)
    os.kill(int((attempt.folder / "running").read_text().split()[0]), signal.SIGKILL)
    assert await exited(attempt) == 137
    assert attempt.exit
    assert attempt.exit.reason == "ContainerStatusUnknown"
    assert runs.alive() == []


async def test_two_shims_on_one_folder_run_the_program_once(runs: Runs, shim: tuple[str, ...]) -> None:
    """Two kubelets that both think they must start it, as after a crash between spawning and knowing."""
    first, second = runs.attempt(), runs.attempt()
    launch = script("echo run; exec sleep 60")
    await asyncio.gather(first.start(launch, shim), second.start(launch, shim))
    assert first.state is second.state is AttemptState.RUNNING
    await until(holds(lambda: runs.log), what="a line in the log")
    assert runs.log == "run\n"
    first.send(signal.SIGKILL)
    assert await exited(first) == 137
    assert await exited(second) == 137
    assert runs.log == "run\n"


async def test_a_new_kubelet_adopts_what_runs_and_learns_what_ended_meanwhile(
    runs: Runs, shim: tuple[str, ...]
) -> None:
    attempt = runs.attempt()
    await attempt.start(script("exec sleep 60"), shim)
    attempt.close()
    adopted = runs.attempt()
    await adopted.adopt()
    assert adopted.state is AttemptState.RUNNING
    assert adopted.started_at == attempt.started_at
    adopted.close()

    running = runs.attempt()
    await running.adopt()
    assert running.send(signal.SIGTERM)
    assert await exited(running) == 143
    late = runs.attempt()
    await late.adopt()
    assert late.exit == running.exit


async def test_a_run_that_was_claimed_but_whose_shim_is_gone_counts_as_killed_and_stays_so(
    runs: Runs, tmp_path: Path
) -> None:
    attempt = runs.attempt()
    (tmp_path / "0" / "claimed").touch()
    await attempt.adopt()
    assert attempt.exit
    assert attempt.exit.exit_code == 137
    again = runs.attempt()
    await again.adopt()
    assert again.exit == attempt.exit


async def test_a_run_that_was_called_off_is_not_started_by_a_shim_that_comes_late(
    runs: Runs, shim: tuple[str, ...]
) -> None:
    attempt = runs.attempt()
    assert attempt.never_start()
    await attempt.start(script("echo run"), shim)
    assert not (attempt.folder / "running").exists()
    assert not attempt.log.exists()
    assert not attempt.never_start()


async def test_a_pid_that_came_to_mean_another_process_gets_no_signal(runs: Runs, shim: tuple[str, ...]) -> None:
    attempt = runs.attempt()
    await attempt.start(script("exec sleep 60"), shim)
    shim_pid, ticks, _, _, started = (attempt.folder / "running").read_text().split()
    attempt.close()
    (attempt.folder / "running").write_text(f"{shim_pid} {ticks} {os.getpid()} 1 {started}\n")
    adopted = runs.attempt()
    await adopted.adopt()
    assert not adopted.send(signal.SIGKILL)
    os.kill(int(shim_pid), signal.SIGKILL)
    await exited(adopted)


async def test_the_shim_ignores_signals_meant_for_the_kubelets_group(runs: Runs, shim: tuple[str, ...]) -> None:
    attempt = runs.attempt()
    await attempt.start(script("exec sleep 60"), shim)
    shim_pid = int((attempt.folder / "running").read_text().split()[0])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(shim_pid, number)
    assert (await attempt.execute(["true"], timeout_seconds=5)).exit_code == 0
    assert start_ticks(shim_pid) is not None
    assert attempt.state is AttemptState.RUNNING


async def test_a_command_in_the_container_has_its_environment_and_folder(runs: Runs, shim: tuple[str, ...]) -> None:
    attempt = runs.attempt()
    await attempt.start(Launch(["sleep", "60"], {**ENVIRONMENT, "COLOUR": "red"}), shim)
    result = await attempt.execute(["sh", "-c", 'echo "$COLOUR $PWD"; exit 4'], timeout_seconds=5)
    assert (result.exit_code, result.output) == (4, f"red {attempt.scratch}\n")
    assert (await attempt.execute(["no-such"], timeout_seconds=5)).exit_code == 127


async def test_a_command_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    code = "import subprocess,sys; subprocess.run(['sleep', '300'])"
    result = await run_command([sys.executable, "-c", code], ENVIRONMENT, tmp_path, timeout_seconds=0.3)
    assert result.exit_code is None


async def test_commands_left_behind_end_with_the_container(runs: Runs, shim: tuple[str, ...]) -> None:
    attempt = runs.attempt()
    await attempt.start(script("exec sleep 60"), shim)
    await attempt.execute(["sh", "-c", "setsid sleep 300 > /dev/null 2>&1 &"], timeout_seconds=5)

    async def both_show() -> bool:
        """In the middle of an execve a process shows no environment."""
        return len(runs.alive()) == 2

    await until(both_show, what="the command and what it left behind are alive")
    attempt.send(signal.SIGKILL)
    await exited(attempt)
    assert runs.alive() == []


def test_a_process_is_not_overlooked_while_it_becomes_another_program() -> None:
    again = 'i=$1; [ "$i" -gt 500 ] && exec sleep 300; exec sh -c "$0" "$0" $((i + 1))'
    process = subprocess.Popen(["sh", "-c", again, again, "0"], env={**ENVIRONMENT, "TEST_CHANGES": "here"})
    try:
        value: str | None = None
        program = ""
        while (value, program) != ("here", "sleep\n"):  # a program has its name before it has its environment
            value = {name.pid: found for name, found in carriers("TEST_CHANGES")}[process.pid]
            assert value in {"here", None}
            program = Path(f"/proc/{process.pid}/comm").read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "podslots-test", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small disk")
async def test_an_end_on_a_full_disk_is_told_once_there_is_room(
    small_disk: Path, tmp_path: Path, shim: tuple[str, ...], killed: bool
) -> None:
    attempt = Attempt(small_disk / "0", tmp_path / "log", identity=f"{small_disk}/0", changed=lambda: None)
    attempt.prepare(short_runs=0)
    await attempt.start(script("exec sleep 1000"), shim)
    room = os.statvfs(small_disk)
    (small_disk / "ballast").write_bytes(bytes(room.f_bavail * room.f_frsize))
    assert attempt._shim is not None
    assert attempt._main is not None
    main = attempt._main.name
    if killed:
        os.kill(attempt._shim.name.pid, signal.SIGKILL)
    else:
        attempt.send(signal.SIGTERM)
    await until(holds(lambda: start_ticks(main.pid) != main.start_ticks), what="nothing runs any more")
    assert not (small_disk / "0" / "exit").exists()
    (small_disk / "ballast").unlink()
    assert await exited(attempt) == (137 if killed else 128 + signal.SIGTERM)
    attempt.close()
