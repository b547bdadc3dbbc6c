"""One run of one container: its folder, its shim, its end. The kubelet's container runtime.

A run ("attempt") is a folder; `shim` says what its files mean. All that must survive the kubelet is in them, so a new
kubelet asks the folder, not a memory. Whether a container lives is asked of the lock its shim holds, which no crash
and no reboot can leave behind.
"""

import asyncio
import contextlib
import fcntl
import os
import py_compile
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

from controller.local.node.pods import processes
from controller.local.node.pods.processes import CommandResult, ProcessHandle, ProcessName

MARKER = "LOCAL_CONTAINER_ID"  # in the environment of all a container's processes: finds them if their shim was killed
KILLED_EXIT_CODE = 128 + signal.SIGKILL
LOOK_AGAIN_SECONDS = 0.02


class AttemptState(StrEnum):
    """How far a run has come. A created one has never run; an exited one left no process."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True)
class Launch:
    """What to execute: argv[0] is looked up in the environment's PATH."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    working_directory: Path | None = None  # None: the run's own scratch folder


@dataclass(frozen=True)
class Exit:
    """How a run ended. Times are seconds since the epoch."""

    exit_code: int
    signal: int
    started_at: float
    finished_at: float
    reason: str
    message: str = ""


class Attempt:
    """One run of one container, by its folder. `changed` is called after each change of state."""

    def __init__(self, folder: Path, log: Path, *, identity: str, changed: Callable[[], None]) -> None:
        self.folder = folder
        self.log = log
        self.container_id = sha256(identity.encode()).hexdigest()
        self.number = int(folder.name)
        self.state = AttemptState.CREATED
        self.started_at = 0.0
        self.exit: Exit | None = None
        self._changed = changed
        self._shim: ProcessHandle | None = None
        self._main: ProcessHandle | None = None
        self._strays_possible = False
        self._settling: asyncio.Task[None] | None = None

    @property
    def scratch(self) -> Path:
        """The run's own home and working directory: like a container's own layer, new for each run."""
        return self.folder / "home"

    @property
    def temporary(self) -> Path:
        """The run's own TMPDIR."""
        return self.folder / "tmp"

    @property
    def short_runs(self) -> int:
        """How many runs in a row before this one ended soon; decides the back-off after it."""
        try:
            return int((self.folder / "short_runs").read_text())
        except (OSError, ValueError):
            return 0

    def prepare(self, *, short_runs: int) -> None:
        """Make the folder."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.temporary.mkdir(exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        _write(self.folder / "short_runs", str(short_runs).encode())

    async def start(self, launch: Launch, shim: Sequence[str]) -> None:
        """Run it, unless a shim of an earlier kubelet already does: then take that over.

        Returns when the program was executed, or could not be (then the state is exited).
        """
        working_directory = launch.working_directory or self.scratch
        environment = [f"{key}={value}" for key, value in launch.environment.items()]
        fields = [str(working_directory), str(self.log), str(len(launch.argv)), *launch.argv, *environment]
        fields.append(f"{MARKER}={self.container_id}")
        _write(self.folder / "spec", "\0".join(fields).encode())
        read, write = os.pipe()
        errors = os.open(self.folder / "shim.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            name = processes.spawn([*shim, str(self.folder)], {}, output=write, errors=errors)
        finally:
            os.close(write)
            os.close(errors)
        self._shim = ProcessHandle(name)
        try:
            line = await _read_line(read)
        finally:
            os.close(read)
        if line == b"started":
            self._run(name, *self._read_running()[1:])
        else:  # another shim was first, it could not execute the program, or was killed
            self._shim.on_end(lambda: None)  # reaps it
            await self.adopt()

    async def adopt(self) -> None:
        """Learn from the folder how things stand, and watch on from there."""
        while True:
            held = self._lock_held()  # looked at before the files: what ended before it was free is in them
            if (self.folder / "exit").exists():
                if held:  # the shim is about to end
                    await asyncio.sleep(LOOK_AGAIN_SECONDS)
                    continue
                self._strays_possible = True
                await self._settle()
                return
            if held and (self.folder / "running").exists():
                self._strays_possible = True
                shim, main, started_at = self._read_running()
                self._run(shim, main, started_at)
                return
            if held:  # about to start
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
                continue
            if (self.folder / "claimed").exists():
                self._strays_possible = True
                await self._settle()
            return

    def never_start(self) -> bool:
        """Make sure that no shim still on its way starts this run; False if one already did (then adopt it)."""
        try:
            os.close(os.open(self.folder / "claimed", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return False
        except FileNotFoundError:  # no folder: nothing can start from it
            return True
        return True

    def send(self, number: int) -> bool:
        """Signal the main process; False if there is none."""
        return self._main is not None and self.state is AttemptState.RUNNING and self._main.send(number)

    async def execute(self, argv: Sequence[str], *, timeout_seconds: float) -> CommandResult:
        """Run a command as `kubectl exec` would: in the container's environment and folder."""
        working_directory, environment = self._launched()
        self._strays_possible = True
        return await processes.run_command(argv, environment, working_directory, timeout_seconds=timeout_seconds)

    def environment(self) -> dict[str, str]:
        """The environment it was launched with."""
        return self._launched()[1]

    def discard(self) -> None:
        """Remove all traces of a run that has ended or never began, but for its log."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Stop watching. The container is left alone."""
        for handle in (self._shim, self._main):
            if handle is not None:
                handle.close()
        if self._settling is not None:
            self._settling.cancel()

    def _run(self, shim: ProcessName, main: ProcessName, started_at: float) -> None:
        if self._shim is None or self._shim.name != shim:
            if self._shim is not None:
                self._shim.close()
            self._shim = ProcessHandle(shim)
        self._main = ProcessHandle(main)
        self.started_at = started_at
        self.state = AttemptState.RUNNING
        self._shim.on_end(self._shim_ended)
        self._changed()

    def _shim_ended(self) -> None:
        self._settling = asyncio.get_running_loop().create_task(self._settle(), name=f"settle {self.folder}")

    async def _settle(self) -> None:
        """No shim is left: make sure that no process is either, then say how it ended."""
        path = self.folder / "exit"
        if not path.exists() or self._strays_possible:
            while strays := [found for found in processes.carriers(MARKER) if found[1] in {self.container_id, None}]:
                for stray, container_id in strays:
                    if container_id == self.container_id:
                        processes.kill(stray)
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
        if not path.exists():  # the shim was killed; write it, so that the answer stays the same from now on
            started_at = self._read_running()[2] if (self.folder / "running").exists() else 0.0
            changed_at = max(started_at, self.folder.stat().st_mtime)
            end = f"{KILLED_EXIT_CODE} {int(signal.SIGKILL)} {started_at} {changed_at} -1\n".encode()
            while not self._wrote(path, end):  # noqa: ASYNC110 - nothing tells when a disk has room
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
        self.exit = self._read_exit(path)
        self.started_at = self.exit.started_at
        self.state = AttemptState.EXITED
        for handle in (self._shim, self._main):
            if handle is not None:
                handle.close()
        self._changed()

    @staticmethod
    def _wrote(path: Path, content: bytes) -> bool:
        """Whether it could be written: not where the disk is full."""
        try:
            _write(path, content)
        except OSError:
            return False
        return True

    def _launched(self) -> tuple[Path, dict[str, str]]:
        fields = (self.folder / "spec").read_bytes().decode().split("\0")
        pairs = ((name, value) for name, _, value in (field.partition("=") for field in fields[3 + int(fields[2]) :]))
        return Path(fields[0]), dict(pairs)

    def _lock_held(self) -> bool:
        try:
            descriptor = os.open(self.folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _read_running(self) -> tuple[ProcessName, ProcessName, float]:
        shim, shim_ticks, main, main_ticks, started_at = (self.folder / "running").read_text().split()
        shim_name, main_name = ProcessName(int(shim), int(shim_ticks)), ProcessName(int(main), int(main_ticks))
        return shim_name, main_name, float(started_at)

    def _read_exit(self, path: Path) -> Exit:
        code, number, started_at, finished_at, error = path.read_text().split()
        reason, message = ("Completed", "") if code == "0" else ("Error", "")
        if int(error) < 0:
            reason, message = "ContainerStatusUnknown", "The container's shim was killed, and the container with it"
        elif int(error) > 0:
            program = (self.folder / "spec").read_bytes().split(b"\0")[3].decode(errors="replace")
            reason, message = "StartError", f'exec: "{program}": {os.strerror(int(error))}'
        return Exit(int(code), int(number), float(started_at), float(finished_at), reason, message)


def shim_command(folder: Path) -> tuple[str, ...]:
    """The shim's command line, compiled once into `folder`: it starts in three quarters of the time."""
    source = Path(__file__).with_name("shim.py")
    compiled = folder / f"shim-{sys.implementation.cache_tag}.pyc"
    py_compile.compile(str(source), cfile=str(compiled), doraise=True)  # replaces it atomically
    return (sys.executable, "-I", "-S", str(compiled))


async def _read_line(descriptor: int) -> bytes:
    """The one line that a shim says, empty if it was killed first."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def readable() -> None:
        loop.remove_reader(descriptor)
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(descriptor, readable)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, 64).strip()


def _write(path: Path, content: bytes) -> None:
    """Atomically, and for our eyes only: environments hold secrets."""
    temporary = path.with_name(path.name + ".tmp")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.rename(path)
