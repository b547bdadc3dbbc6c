"""The output of steps: one file each under the state folder, its size and its last few KiB.

Output is not journaled. Its offset is what the file holds, so after a restart a worker sends again what a crash may
have lost. Past the cap, or with a full disk, bytes are counted and not kept: a step is never held up by its log.
"""

import asyncio
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
        """Keep more."""

    def read(self, task_id: str, step: Step, offset: int, size_bytes: int) -> bytes:
        """A part of what is kept; empty past its end."""

    def put(self, task_id: str, data: bytes) -> None:
        """Keep the file that a task hands over, durably."""

    def got(self, task_id: str) -> bytes | None:
        """That file; None if there is none."""

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
        """Keep more."""
        file = self._file(task_id, step)
        file.parent.mkdir(parents=True, exist_ok=True)
        # Buffered: its close writes everything or raises, where a bare write may stop half-way on a full disk.
        with file.open("ab") as opened:
            opened.write(data)

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


@dataclass(slots=True)
class _Stream:
    """What is known of one step's output. `received` counts all of it, `kept` what the file has.

    `end` is the end of what the file does not have.
    """

    received: int
    kept: int
    tail: bytes
    end: bytes = b""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    grown: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def cut(self) -> bool:
        return self.received > self.kept


class Outputs:
    """The output of every task the agent knows."""

    def __init__(self, files: OutputFiles, offload: Offload, *, cap_bytes: int = CAP_BYTES) -> None:
        self._files = files
        self._offload = offload
        self._cap_bytes = cap_bytes
        self._streams: dict[tuple[str, Step], _Stream] = {}
        self.on_taken: Callable[[int], None] = _nobody
        """Told how many bytes were new: what is uploaded again, for its answer got lost, is not."""

    async def append(self, task_id: str, step: Step, offset: int, data: bytes) -> int:
        """Take output that begins at `offset`; return how much of the whole is here. A gap takes nothing."""
        stream = await self._stream(task_id, step)
        async with stream.lock:
            fresh = data[stream.received - offset :] if offset <= stream.received else b""
            if fresh:
                kept = await self._keep(stream, task_id, step, fresh)
                stream.received += len(fresh)
                stream.end = (stream.end + fresh[kept:])[-END_BYTES:]
                self.on_taken(len(fresh))
                stream.tail = (stream.tail + fresh)[-TAIL_BYTES:]
                self._wake(stream)
            return stream.received

    async def tail(self, task_id: str, step: Step) -> tuple[int, str]:
        """How many bytes there were, and the last of them as text."""
        stream = await self._stream(task_id, step)
        return stream.received, stream.tail.decode("utf-8", "replace")

    async def read(self, task_id: str, step: Step, offset: int) -> bytes:
        """The next piece of what is kept; empty at its end."""

        def piece() -> bytes:
            return self._files.read(task_id, step, offset, CHUNK_BYTES)

        return await self._offload(piece)

    async def kept(self, task_id: str, step: Step) -> tuple[int, bool]:
        """How many bytes are kept, and whether there were more."""
        stream = await self._stream(task_id, step)
        return stream.kept, stream.cut

    async def page(self, task_id: str, step: Step, offset: int, size_bytes: int) -> bytes:
        """A part of what the file has."""
        return await self._offload(partial(self._files.read, task_id, step, offset, size_bytes))

    async def end(self, task_id: str, step: Step) -> bytes:
        """The end of what the file does not have."""
        return (await self._stream(task_id, step)).end

    async def put(self, task_id: str, data: bytes) -> None:
        """Keep the file that a task hands over. Raises OSError."""
        await self._offload(partial(self._files.put, task_id, data))

    async def got(self, task_id: str) -> bytes | None:
        """That file; None if there is none."""
        return await self._offload(partial(self._files.got, task_id))

    async def grown(self, task_id: str, step: Step) -> asyncio.Event:
        """An event that is set when this step's output next grows, or when `nudge` says to look again."""
        return (await self._stream(task_id, step)).grown

    def nudge(self, task_id: str) -> None:
        """Wake the readers of a task: its state has changed."""
        for (owner, _), stream in self._streams.items():
            if owner == task_id:
                self._wake(stream)

    async def forget(self, task_ids: Iterable[str]) -> None:
        """Remove the output of tasks that were acknowledged."""
        for task_id in task_ids:
            for step in Step:
                stream = self._streams.pop((task_id, step), None)
                if stream is not None:
                    self._wake(stream)
            await self._offload(partial(self._files.remove, task_id))

    async def forget_all_but(self, task_ids: Iterable[str]) -> None:
        """Remove what an earlier run of the agent left behind."""
        names = await self._offload(self._files.tasks)
        await self.forget(set(names) - set(task_ids))

    async def _stream(self, task_id: str, step: Step) -> _Stream:
        stream = self._streams.get((task_id, step))
        if stream is None:

            def known() -> tuple[int, bytes]:
                size = min(self._files.size(task_id, step), self._cap_bytes)
                start = max(0, size - TAIL_BYTES)
                return size, self._files.read(task_id, step, start, size - start)

            size, tail = await self._offload(known)
            stream = self._streams.setdefault((task_id, step), _Stream(received=size, kept=size, tail=tail))
        return stream

    async def _keep(self, stream: _Stream, task_id: str, step: Step, data: bytes) -> int:
        """How many bytes the file took."""
        room = 0 if stream.cut else self._cap_bytes - stream.kept
        if (kept := data[:room]) and room > 0:
            try:
                await self._offload(lambda: self._files.append(task_id, step, kept))
            except OSError:
                return 0
            stream.kept += len(kept)
            return len(kept)
        return 0

    def _wake(self, stream: _Stream) -> None:
        grown, stream.grown = stream.grown, asyncio.Event()
        grown.set()


CUT_LINE = "\n[podslots: the rest of {count} bytes of output was not kept]\n"


async def follow(
    outputs: Outputs, task_id: str, step: Step, offset: int, *, going: Callable[[], bool], look_again_seconds: float
) -> AsyncIterator[bytes]:
    """A step's kept output from `offset`; while `going()`, also what is still to come.

    Yields empty bytes at least every `look_again_seconds`, so that the caller can see whether anybody listens.
    """
    while True:
        # Asked before reading: output that came with the end is not missed.
        more = going()
        event = await outputs.grown(task_id, step)
        while data := await outputs.read(task_id, step, offset):
            offset += len(data)
            yield data
        kept, cut = await outputs.kept(task_id, step)
        if not more or (cut and offset >= kept):
            if cut:
                received, _ = await outputs.tail(task_id, step)
                yield CUT_LINE.format(count=received - kept).encode()
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(look_again_seconds):
                await event.wait()
        yield b""


def _nobody(size_bytes: int) -> None:
    """Nobody counts."""
