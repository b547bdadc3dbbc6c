"""Serves container logs to the API server: its `LogSource`."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO

from controller.local.log_source import LogOptions, LogUnavailableError
from controller.local.node.pods.container_slot import ContainerSlot
from controller.local.node.pods.log_times import LineTimes, stamp

CHUNK_BYTES = 64 * 1024
LOOK_AGAIN_SECONDS = 0.1
FindSlot = Callable[[str, str, str, str], ContainerSlot | None]  # namespace, Pod, its UID, container


class PodLogs:
    """Reads the log files of this node's containers."""

    def __init__(self, find: FindSlot) -> None:
        self._find = find

    async def stream(self, namespace: str, pod: str, pod_uid: str, options: LogOptions) -> AsyncIterator[bytes]:
        """The log of a container's newest run (or the one before), followed until that run ends."""
        slot = self._find(namespace, pod, pod_uid, options.container)
        log = None if slot is None else slot.log
        if slot is None or log is None:
            raise LogUnavailableError(f'container "{options.container}" in pod "{pod}" is waiting to start')
        if options.previous:
            log = log.with_name(f"{int(log.stem) - 1}.log")
            if not log.exists():
                text = f'previous terminated container "{options.container}" in pod "{pod}" not found'
                raise LogUnavailableError(text)
        left = options.limit_bytes
        pieces = self._pieces(slot, log, options)
        if options.timestamps or options.since is not None:
            pieces = _timed(pieces, log, options)
        async for _, piece in pieces:
            kept = piece if left is None else piece[:left]
            yield kept
            if left is not None:
                left -= len(kept)
                if left <= 0:
                    return

    async def _pieces(self, slot: ContainerSlot, log: Path, options: LogOptions) -> AsyncIterator[tuple[int, bytes]]:
        """What is written, each piece with its place in the log."""
        with _open(log) as file:
            if options.tail_lines is not None:
                file.seek(_tail_offset(file, options.tail_lines))
            while True:
                alive = options.follow and slot.alive and slot.log == log  # asked first: what it wrote last is read
                start = file.tell()
                chunk = file.read(CHUNK_BYTES)
                if chunk:
                    yield start, chunk
                elif not alive:
                    return
                else:
                    await asyncio.sleep(LOOK_AGAIN_SECONDS)


async def _timed(
    pieces: AsyncIterator[tuple[int, bytes]], log: Path, options: LogOptions
) -> AsyncIterator[tuple[int, bytes]]:
    """Whole lines, less those from before the time asked for, each with its time if that is wanted."""
    times = LineTimes(log)
    since = None if options.since is None else int(options.since * 1_000_000_000)
    rest, place = b"", 0
    async for start, piece in pieces:
        place = place if rest else start
        *lines, rest = (rest + piece).split(b"\n")
        chosen = []
        for line in lines:
            place += len(line) + 1
            chosen.append(_line(line + b"\n", times.at(place), since, options))
        yield place, b"".join(chosen)
    if rest:
        yield place, _line(rest, times.at(place + len(rest)), since, options)


def _line(line: bytes, written: int, since: int | None, options: LogOptions) -> bytes:
    if since is not None and written < since:
        return b""
    return stamp(written) + line if options.timestamps else line


def _open(log: Path) -> BinaryIO:
    try:
        return log.open("rb")
    except FileNotFoundError as error:
        raise LogUnavailableError("the container has written no log") from error


def _tail_offset(file: BinaryIO, lines: int) -> int:
    """Where the last so many lines begin."""
    file.seek(0)
    offsets: deque[int] = deque(maxlen=max(lines, 0))
    offset = 0
    for line in file:
        offsets.append(offset)
        offset += len(line)
    return offsets[0] if offsets else offset
