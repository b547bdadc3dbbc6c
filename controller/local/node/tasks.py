"""Tasks that have an owner."""

import asyncio
import logging
from collections.abc import Callable, Coroutine

_log = logging.getLogger(__name__)


class TaskSet:
    """Named tasks that end at the latest with their owner. A failure is logged; `ended` is called after each one."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = ended

    def spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Start a task of this name on the running loop."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def close(self) -> None:
        """Cancel all and wait for them."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.error("task failed: name=%s", task.get_name(), exc_info=error)
        self._ended()
