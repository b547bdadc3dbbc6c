"""Mistakes of the worker."""

import asyncio
from typing import Any
from unittest.mock import patch

from agent.wire import Assignment
from agent.worker.rules.run import Run
from tests.simulation.planted.registry import Plant, bug
from tests.simulation.worker import SlotDisk


@bug("started marker after exec", theme="agents and workers that restart", seed=2)
def _() -> Plant:
    original = SlotDisk.claim

    def claim(self: SlotDisk, assignment: Assignment, **about: Any) -> bool:
        claimed = original(self, assignment, **about)
        if claimed:
            entry = self.entries[assignment.task_id, assignment.step]
            entry.started = False
            asyncio.get_running_loop().call_later(1.0, setattr, entry, "started", True)
        return claimed

    return patch.object(SlotDisk, "claim", claim)


@bug("the plan is not hashed again before it is applied", theme="approvals", seed=7)
def _() -> Plant:
    original = SlotDisk.digest

    def digest(self: SlotDisk) -> str | None:
        approved = self.hashing.plan_digest if self.hashing is not None else None
        return approved if approved is not None else original(self)

    return patch.object(SlotDisk, "digest", digest)


@bug("a plan that changes nothing asks for an approval", theme="plans that end otherwise", seed=4)
def _() -> Plant:
    original = Run.changed

    def changed(self: Run, exit_code: int | None) -> bool | None:
        return True if original(self, exit_code) is not None else None

    return patch.object(Run, "changed", changed)


@bug("a step's lock not looked at", theme="agents and workers that restart", seed=50)
def _() -> Plant:
    return patch.object(SlotDisk, "reclaim", lambda _self, _task_id, _step: True)
