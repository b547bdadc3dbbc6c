"""Processes of this host: names that cannot be reused (pid and start time), pidfds, /proc, running a command.

Holds no knowledge of containers or Pods.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

OUTPUT_LIMIT_BYTES = 4096  # what an event's message can use of a command's output
KERNEL_THREAD = 0x00200000  # PF_KTHREAD in the flags of /proc/pid/stat
DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)  # the interpreter ignores these; a program expects the default


@dataclass(frozen=True)
class ProcessName:
    """A pid alone may come to mean another process; with its start time (ticks since boot) it cannot."""

    pid: int
    start_ticks: int


@dataclass(frozen=True)
class CommandResult:
    """How a command ended: its exit code (128 + n for signal n), None if it was killed for taking too long."""

    exit_code: int | None
    output: str


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None if there is none (a zombie counts as one)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(text.rpartition(b")")[2].split()[19])


def open_pidfd(name: ProcessName) -> int | None:
    """A descriptor of exactly this process, None if it is gone."""
    try:
        descriptor = os.pidfd_open(name.pid)
    except OSError:
        return None
    if start_ticks(name.pid) != name.start_ticks:  # looked at after opening: the descriptor can't move on
        os.close(descriptor)
        return None
    return descriptor


class ProcessHandle:
    """Signals to, and the end of, one process, ours or adopted. Close it when done."""

    def __init__(self, name: ProcessName) -> None:
        self.name = name
        self._descriptor = open_pidfd(name)
        self._watched = False

    def send(self, number: int) -> bool:
        """Send a signal; False if the process is gone."""
        if self._descriptor is None:
            return False
        try:
            signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError:
            return False
        return True

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call once when the process has ended (soon, if it already has). A child of ours is reaped first."""
        loop = asyncio.get_running_loop()
        if self._descriptor is None:
            loop.call_soon(callback)
            return
        descriptor = self._descriptor

        def ended() -> None:
            loop.remove_reader(descriptor)
            self._watched = False
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.name.pid, os.WNOHANG)
            callback()

        loop.add_reader(descriptor, ended)
        self._watched = True

    def close(self) -> None:
        """Let go of the descriptor. The process is left alone."""
        if self._descriptor is not None:
            if self._watched:
                asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None


def spawn(
    argv: Sequence[str], environment: Mapping[str, str], *, output: int, errors: int | None = None
) -> ProcessName:
    """Start a program in a session of its own with no input. It is our child: `ProcessHandle` reaps it.

    Raises OSError if it can't be executed. posix_spawn, because it neither copies this process nor needs the
    event loop's child watcher.
    """
    pid = os.posix_spawnp(
        argv[0],
        list(argv),
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output if errors is None else errors, 2),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=DEFAULT_SIGNALS,
    )
    return ProcessName(pid, start_ticks(pid) or 0)


async def run_command(
    argv: Sequence[str], environment: Mapping[str, str], working_directory: Path, *, timeout_seconds: float
) -> CommandResult:
    """Run to its end, or kill it with its session's group after the timeout or when we are cancelled."""
    output = os.memfd_create("output")
    try:
        # posix_spawn has no chdir; the shell also finds the program in the environment's own PATH.
        script = 'cd "$0" && exec "$@"'
        name = spawn(["/bin/sh", "-c", script, str(working_directory), *argv], environment, output=output)
        code = await _wait(name, timeout_seconds)
        size = min(os.fstat(output).st_size, OUTPUT_LIMIT_BYTES)
        return CommandResult(code, os.pread(output, size, 0).decode(errors="replace"))
    finally:
        os.close(output)


async def _wait(name: ProcessName, timeout_seconds: float) -> int | None:
    """The exit code of our child, None if it had to be killed."""
    loop = asyncio.get_running_loop()
    descriptor = os.pidfd_open(name.pid)
    ended = loop.create_future()

    def readable() -> None:
        loop.remove_reader(descriptor)
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(descriptor, readable)
    timed_out = False
    try:
        async with asyncio.timeout(timeout_seconds):
            await ended
    except TimeoutError:
        timed_out = True
    finally:
        loop.remove_reader(descriptor)
        if not ended.done() or ended.cancelled():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(name.pid, signal.SIGKILL)
        code = _reap(name.pid)
        os.close(descriptor)
    return None if timed_out else code


def _reap(pid: int) -> int:
    """The exit code of a child that ended or was just killed: no time worth yielding for."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code


def carriers(marker: str) -> Iterable[tuple[ProcessName, str | None]]:
    """Every process whose environment has `marker`, with the variable's value.

    None is the value of a process that can't be told yet, as it is about to become another program: ask again soon.
    """
    prefix = marker.encode() + b"="
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        try:
            environment = Path(entry.path, "environ").read_bytes()
            changing = not environment and _is_changing(pid)
        except OSError:
            continue
        values = (variable[len(prefix) :] for variable in environment.split(b"\0") if variable.startswith(prefix))
        value = next(values, None)
        if value is None and not changing:
            continue
        ticks = start_ticks(pid)
        if ticks is not None:
            yield ProcessName(pid, ticks), None if value is None else value.decode(errors="replace")


def _is_changing(pid: int) -> bool:
    """Whether a process without an environment is within execve, which takes the old one and then brings the new one.

    proc(5), /proc/pid/stat: a zombie's state is Z; a kernel thread's flags say so; `start_code` is 0 until the new
    environment is there. If there is one then, it has come since it was looked for.
    """
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    state, flags, start_code, env_start, env_end = fields[0], *(int(fields[index]) for index in (6, 23, 47, 48))
    return state not in {b"Z", b"X"} and not flags & KERNEL_THREAD and (start_code == 0 or env_start != env_end)


def kill(name: ProcessName) -> None:
    """SIGKILL exactly this process, if it is still there."""
    descriptor = open_pidfd(name)
    if descriptor is not None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)
