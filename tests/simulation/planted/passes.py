"""Mistakes of the loop that makes passes."""

import asyncio
from typing import Any
from unittest.mock import patch

from controller.act.work_queue import WorkQueue
from tests.simulation.planted.registry import Plant, bug


@bug("the queue asks a timer for its moment", theme="tasks that go soon after their end")
def _() -> Plant:
    """asyncio's timers have one. uvloop's shortest are plain handles, which have none."""

    def add_after(self: WorkQueue[Any], key: Any, delay_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + delay_seconds
        if known := self._timers.get(key):
            timer: Any = known[1]
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = (due, loop.call_at(due, self._expire, key))

    return patch.object(WorkQueue, "add_after", add_after)
