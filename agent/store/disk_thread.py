"""Where the journal's writes are done: in a thread, so that a slow disk never stops the event loop."""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue

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


def _try(work: Work) -> OSError | None:
    try:
        work()
    except OSError as error:
        return error
    except Exception as error:  # noqa: BLE001 - whatever it was, nothing was stored
        return OSError(f"{type(error).__name__}: {error}")
    return None
