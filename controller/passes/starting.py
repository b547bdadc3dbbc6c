"""Starting what was decided: each action becomes an operation, at most one at a time for each Pod and each task.

The end of an operation wakes its pool. What it has changed wakes the pool by itself, through the caches and the agents'
streams; so an end that changed nothing can wait a moment, and never becomes a loop without a pause.
"""

from collections.abc import Callable, Coroutine

from controller.act.operations import Operations
from controller.act.turns import Urgency
from controller.act.work_queue import WorkQueue
from controller.world.index import Key

OPERATION_KINDS = (
    "pool",
    "budget",
    "status",
    "create",
    "pod",
    "task",
    "orphan",
    "tokens",
    "history",
    "eviction",
    "deployment",
)
"""What stands before the first slash of an operation's key."""

AGAIN_SECONDS = 0.1
"""How long after an operation's end its pool is looked at, if nothing that it changed has woken it before."""

Start = Callable[[], Coroutine[None, None, None]]


class Starting:
    """Starts operations whose end wakes their pool."""

    def __init__(self, queue: WorkQueue[Key], operations: Operations) -> None:
        self._queue = queue
        self._operations = operations

    def held_back_seconds(self, backoff: str) -> float:
        """How long operations that share this back-off are still held back."""
        return self._operations.held_back_seconds(backoff)

    def start(
        self,
        key: Key,
        name: str,
        operation: Start,
        *,
        again_seconds: float = AGAIN_SECONDS,
        backoff: str = "",
        ended: Callable[[], object] | None = None,
        urgency: Urgency = Urgency.WORK,
    ) -> bool:
        """Start an operation whose end wakes the pool, and tell whether it was started.

        `ended` is called first, however it ended. Operations that share a `backoff` are held back together.
        """
        started = False

        def finished(delay_seconds: float) -> None:
            if started and ended is not None:
                ended()
            self._queue.add_after(key, max(delay_seconds, again_seconds))

        started = self._operations.start(name, operation, finished, backoff=backoff, urgency=urgency)
        return started
