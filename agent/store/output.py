"""The output of steps: one file each under the state folder, its size and its last few KiB.

Output is not journaled. Its offset is what the file holds, so after a restart a worker sends again what a crash may
have lost. Past the cap, bytes are counted and not kept. Bytes that could not be written are not counted: the worker
sends them again for a while. A step is never held up by its log.

The journal is on the same volume, and ends of steps must find room in it: output leaves `MARGIN_BYTES` free.
"""

import asyncio
import errno
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from agent.wire import Step

CAP_BYTES = 16 << 20
TAIL_BYTES = 4096
MARGIN_BYTES = 4 << 20
"""What output leaves free on its volume; a quarter of a volume that is smaller than four times this."""
END_BYTES = 64 << 10
"""Of output past the cap, so much of the end is kept in memory; the worker keeps as much of what is too much."""
CHUNK_BYTES = 64 << 10
HANDED_OVER = "outputs"
"""The name of the file that a task hands over, beside its steps' output."""

T = TypeVar("T")


class Offload(Protocol):
    """Runs a blocking function off the event loop; `asyncio.to_thread` is one."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]:
        """What `work` returns."""


class OutputFiles(Protocol):
    """The files. Everything may raise OSError."""

    def size(self, task_id: str, step: Step) -> int:
        """How many bytes are kept."""

    def append(self, task_id: str, step: Step, data: bytes) -> None:
        """Add `data` to what is kept of the step's output, all of it or nothing. Raises OSError."""

    def read(self, task_id: str, step: Step, offset: int, size_bytes: int) -> bytes:
        """A part of what is kept; empty past its end."""

    def put(self, task_id: str, data: bytes) -> None:
        """Keep the file that a task hands over, durably."""

    def got(self, task_id: str) -> bytes | None:
        """That file; None if there is none."""

    def has(self, task_id: str) -> bool:
        """Whether there is one."""

    def remove(self, task_id: str) -> None:
        """Remove a task's files."""

    def tasks(self) -> tuple[str, ...]:
        """The tasks that have files."""


class FolderFiles:
    """Files at FOLDER/TASK/STEP.log. Task ids are safe as names: see `wire.TASK_ID_PATTERN`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def size(self, task_id: str, step: Step) -> int:
        """How many bytes are kept."""
        try:
            return self._file(task_id, step).stat().st_size
        except FileNotFoundError:
            return 0

    def append(self, task_id: str, step: Step, data: bytes) -> None:
        """Add `data` to what is kept of the step's output, all of it or nothing. Raises OSError."""
        file = self._file(task_id, step)
        file.parent.mkdir(parents=True, exist_ok=True)
        _check_room(file.parent, len(data))
        fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            size = os.fstat(fd).st_size
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(fd, rest) :]
            except OSError:
                # A part that stayed would count as received, and the next piece would follow it.
                os.ftruncate(fd, size)
                raise
        finally:
            os.close(fd)

    def read(self, task_id: str, step: Step, offset: int, size_bytes: int) -> bytes:
        """A part of what is kept; empty past its end."""
        try:
            fd = os.open(self._file(task_id, step), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        try:
            return os.pread(fd, size_bytes, offset)
        finally:
            os.close(fd)

    def put(self, task_id: str, data: bytes) -> None:
        """Keep the file that a task hands over, durably."""
        path = self._folder / task_id / HANDED_OVER
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".new")
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        for folder in (path.parent, self._folder):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def got(self, task_id: str) -> bytes | None:
        """That file; None if there is none."""
        with suppress(FileNotFoundError):
            return (self._folder / task_id / HANDED_OVER).read_bytes()
        return None

    def has(self, task_id: str) -> bool:
        """Whether there is one."""
        try:
            (self._folder / task_id / HANDED_OVER).stat()
        except FileNotFoundError:
            return False
        return True

    def remove(self, task_id: str) -> None:
        """Remove a task's files."""
        shutil.rmtree(self._folder / task_id, ignore_errors=True)

    def tasks(self) -> tuple[str, ...]:
        """The tasks that have files."""
        with suppress(FileNotFoundError):
            return tuple(path.name for path in self._folder.iterdir())
        return ()

    def _file(self, task_id: str, step: Step) -> Path:
        return self._folder / task_id / f"{step}.log"


def _check_room(folder: Path, size_bytes: int) -> None:
    """Raises OSError if the volume has no room for this beside what is left free."""
    volume = os.statvfs(folder)
    if not volume.f_blocks:
        # A file system in memory without a limit of its own.
        return
    margin = min(MARGIN_BYTES, volume.f_blocks * volume.f_frsize // 4)
    if volume.f_bavail * volume.f_frsize < size_bytes + margin:
        raise OSError(errno.ENOSPC, "what is free on the volume is kept for the journal")


@dataclass(slots=True)
class Stream:
    """What is known of one step's output. `received` counts all of it, `kept` what the file has.

    `end` is the end of what the file does not have. `gone`: its task was forgotten. Code that still uses this object
    then sees the end of the output, and stores nothing more.
    """

    known: bool = False
    received: int = 0
    kept: int = 0
    tail: bytes = b""
    end: bytes = b""
    gone: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    grown: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def cut(self) -> bool:
        """Whether there was more than is kept."""
        return self.received > self.kept

    def wake(self) -> None:
        """Have its readers look again."""
        grown, self.grown = self.grown, asyncio.Event()
        grown.set()


class Outputs:
    """The output of every task the agent knows."""

    def __init__(self, files: OutputFiles, offload: Offload, *, cap_bytes: int = CAP_BYTES) -> None:
        self._files = files
        self._offload = offload
        self._cap_bytes = cap_bytes
        self._streams: dict[tuple[str, Step], Stream] = {}
        self.on_taken: Callable[[int], None] = _nobody
        """Told how many bytes were new: what is uploaded again, for its answer got lost, is not."""

    async def append(self, task_id: str, step: Step, offset: int, data: bytes) -> int:
        """Take output that begins at `offset`; return how much of the whole is here.

        A gap takes nothing, and neither does a disk that refuses: the worker sends it again.
        """
        # Before anything is awaited: code that forgets the task meanwhile finds the stream, and marks it.
        stream = self._streams.setdefault((task_id, step), Stream())
        async with stream.lock:
            await self._learn(stream, task_id, step)
            fresh = data[stream.received - offset :] if offset <= stream.received else b""
            kept = await self._keep(stream, task_id, step, fresh) if fresh and not stream.gone else None
            if kept is not None:
                stream.received += len(fresh)
                stream.end = (stream.end + fresh[kept:])[-END_BYTES:]
                self.on_taken(len(fresh))
                stream.tail = (stream.tail + fresh)[-TAIL_BYTES:]
                stream.wake()
            return stream.received

    async def tail(self, task_id: str, step: Step) -> tuple[int, str]:
        """How many bytes there were, and the last of them as text. Raises OSError."""
        stream = await self.stream(task_id, step)
        return stream.received, stream.tail.decode("utf-8", "replace")

    async def read(self, task_id: str, step: Step, offset: int) -> bytes:
        """The next piece of what is kept; empty at its end."""

        def piece() -> bytes:
            return self._files.read(task_id, step, offset, CHUNK_BYTES)

        return await self._offload(piece)

    async def stream(self, task_id: str, step: Step) -> Stream:
        """What is known of a step's output. Raises OSError."""
        stream = self._streams.setdefault((task_id, step), Stream())
        async with stream.lock:
            await self._learn(stream, task_id, step)
        return stream

    async def kept(self, task_id: str, step: Step) -> tuple[int, bool]:
        """How many bytes are kept, and whether there were more."""
        stream = await self.stream(task_id, step)
        return stream.kept, stream.cut

    async def page(self, task_id: str, step: Step, offset: int, size_bytes: int) -> bytes:
        """A part of what the file has."""
        return await self._offload(partial(self._files.read, task_id, step, offset, size_bytes))

    async def end(self, task_id: str, step: Step) -> bytes:
        """The end of what the file does not have."""
        return (await self.stream(task_id, step)).end

    async def put(self, task_id: str, data: bytes) -> None:
        """Keep the file that a task hands over. Raises OSError."""
        await self._offload(partial(self._files.put, task_id, data))

    async def got(self, task_id: str) -> bytes | None:
        """That file; None if there is none."""
        return await self._offload(partial(self._files.got, task_id))

    async def has(self, task_id: str) -> bool:
        """Whether there is one. Raises OSError: what can't be looked at may be there."""
        return await self._offload(partial(self._files.has, task_id))

    def nudge(self, task_id: str) -> None:
        """Wake the readers of a task: its state has changed."""
        for step in Step:
            if stream := self._streams.get((task_id, step)):
                stream.wake()

    async def forget(self, task_ids: Iterable[str]) -> None:
        """Remove the output of tasks that were acknowledged."""
        for task_id in task_ids:
            for step in Step:
                stream = self._streams.pop((task_id, step), None)
                if stream is not None:
                    stream.gone = True
                    stream.wake()
                    async with stream.lock:
                        # A write that was under way has ended, and no other begins.
                        pass
            await self._offload(partial(self._files.remove, task_id))

    async def forget_unknown(self, is_known: Callable[[str], bool]) -> None:
        """Remove the output of tasks that are not known: of an earlier run, or of readers that came too late."""
        names = {*await self._offload(self._files.tasks), *(task_id for task_id, _ in self._streams)}
        await self.forget([name for name in sorted(names) if not is_known(name)])

    async def _learn(self, stream: Stream, task_id: str, step: Step) -> None:
        if stream.known:
            return

        def look() -> tuple[int, bytes]:
            size = min(self._files.size(task_id, step), self._cap_bytes)
            start = max(0, size - TAIL_BYTES)
            return size, self._files.read(task_id, step, start, size - start)

        size, stream.tail = await self._offload(look)
        stream.received = stream.kept = size
        stream.known = True

    async def _keep(self, stream: Stream, task_id: str, step: Step, data: bytes) -> int | None:
        """Keep as much as the cap allows: how many bytes. None if the disk did not take it."""
        room = 0 if stream.cut else self._cap_bytes - stream.kept
        if (kept := data[:room]) and room > 0:
            try:
                await self._offload(lambda: self._files.append(task_id, step, kept))
            except OSError:
                return None
            stream.kept += len(kept)
            return len(kept)
        return 0


def cut_notice(stream: Stream, log_bytes: int) -> bytes:
    """The last line of a step's output, if not all is kept; `log_bytes` is the size that the worker reported."""
    missing = max(stream.received, log_bytes) - stream.kept
    return f"\n[podslots: the rest of {missing} bytes of output was not kept]\n".encode() if missing > 0 else b""


async def follow(
    outputs: Outputs,
    task_id: str,
    step: Step,
    offset: int,
    *,
    going: Callable[[], bool],
    notice: Callable[[Stream], bytes],
    look_again_seconds: float,
) -> AsyncIterator[bytes]:
    """A step's kept output from `offset`, and at its end the notice; while `going()`, also what is still to come.

    The offset counts what was sent, the notice included. Yields empty bytes at least every `look_again_seconds`, so
    that the caller can see whether anybody listens.
    """
    stream = await outputs.stream(task_id, step)
    while True:
        # Asked before reading: output that came with the end is not missed.
        more = going() and not stream.gone
        event = stream.grown
        while offset < stream.kept and (data := await outputs.read(task_id, step, offset)):
            data = data[: stream.kept - offset]
            offset += len(data)
            yield data
        if not more:
            if offset >= stream.kept:
                yield notice(stream)[offset - stream.kept :]
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(look_again_seconds):
                await event.wait()
        yield b""


def _nobody(size_bytes: int) -> None:
    """Count nothing."""
