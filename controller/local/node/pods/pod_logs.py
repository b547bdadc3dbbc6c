"""Serves container logs to the API server: its `LogSource`."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO

from controller.local.log_source import LogOptions, LogUnavailableError
from controller.local.node.pods.container_slot import ContainerSlot

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
        with _open(log) as file:
            if options.tail_lines is not None:
                file.seek(_tail_offset(file, options.tail_lines))
            while left is None or left > 0:
                alive = options.follow and slot.alive and slot.log == log  # asked first: what it wrote last is read
                chunk = file.read(CHUNK_BYTES if left is None else min(left, CHUNK_BYTES))
                if chunk:
                    yield chunk
                    left = None if left is None else left - len(chunk)
                elif not alive:
                    return
                else:
                    await asyncio.sleep(LOOK_AGAIN_SECONDS)


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
