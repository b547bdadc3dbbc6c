"""Where the journal's writes are done: in a thread, so that a slow disk never stops the event loop.

A file system in memory has no device to wait for, and handing a write to a thread costs ten times the write: there it
is done on the loop. It is one write for all requests of a turn even so: with 16 clients that took a fifth of the time
of writing for each.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

IN_MEMORY = frozenset({"tmpfs", "ramfs"})

Work = Callable[[], None]
Done = Callable[[OSError | None], None]


class DiskThread:
    """Runs pieces of blocking work one after the other; `done` is called on the loop with what went wrong.

    Bare queue and call-back instead of an executor: this is in the path of every write, and a future between threads
    costs more than the fsync on a fast disk.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Work, Done] | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="journal-disk", daemon=True)

    def start(self) -> None:
        """Start the thread, for the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def submit(self, work: Work, done: Done) -> None:
        """Have `work` done, then `done` called on the loop."""
        self._queue.put((work, done))

    def stop(self) -> None:
        """Finish what was submitted and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            work, done = item
            error = _try(work)
            loop = self._loop
            if loop is None or loop.is_closed():
                return
            loop.call_soon_threadsafe(done, error)


def do_now(work: Work, done: Done) -> None:
    """Have `work` done here, then `done` called."""
    done(_try(work))


def is_in_memory(folder: Path) -> bool:
    """Whether a folder's file system is one that lives in memory."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
        device = folder.stat().st_dev
    except OSError:
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split(" ")[2] == number:
            return rest.split(" ")[0] in IN_MEMORY
    return False


def _try(work: Work) -> OSError | None:
    try:
        work()
    except OSError as error:
        return error
    except Exception as error:  # noqa: BLE001 - whatever it was, nothing was stored
        return OSError(f"{type(error).__name__}: {error}")
    return None
