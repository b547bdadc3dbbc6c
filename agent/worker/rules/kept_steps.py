"""All steps that a worker keeps, by task: saved again if the disk refused, and looked for again if unreadable.

A worker keeps one step of each task: the last one. `Kept` says what the agent has to hear of it.
"""

from collections.abc import Iterator

from agent.worker.rules.kept_step import Kept
from agent.worker.rules.ports import Clock, Disk, Log, Request

RECLAIM_SECONDS = 0.1
"""Between two tries to end what an earlier worker left of a step."""
RESAVE_SECONDS = 1.0
"""Between two tries to store a step's end."""
LOOK_SECONDS = 5.0
"""Between two looks at a directory that could not be read."""


class KeptSteps:
    """The steps. `unread` and `damaged` are the tasks with a directory that can't be read, or with a bad record."""

    def __init__(self, disk: Disk, clock: Clock, log: Log) -> None:
        self._disk = disk
        self._clock = clock
        self._log = log
        self._steps = {stored.assignment.task_id: Kept(stored) for stored in disk.load()}
        self.unread, self.damaged = disk.unread, disk.damaged
        self._look_at = clock.monotonic() + LOOK_SECONDS
        self._unsaved: list[Kept] = []
        self._again_at = 0.0

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[Kept]:
        return iter(self._steps.values())

    def get(self, task_id: str) -> Kept | None:
        """The kept step of a task."""
        return self._steps.get(task_id)

    def named(self, request: Request) -> Kept | None:
        """The kept step that a request named, if it is still that one."""
        kept = self._steps.get(request.params.get("task_id", ""))
        return kept if kept and kept.assignment.step == request.params.get("step") else None

    def put(self, kept: Kept) -> None:
        """Keep this step, in the place of an earlier one of its task."""
        self._steps[kept.assignment.task_id] = kept

    def drop(self, kept: Kept) -> None:
        """Keep it no longer. Its directory stays."""
        del self._steps[kept.assignment.task_id]

    def forget(self, kept: Kept) -> None:
        """Keep it no longer, and remove its task's directory."""
        self.drop(kept)
        try:
            self._disk.forget(kept.assignment.task_id)
        except OSError as error:
            self._log("a task's directory can't be removed", task=kept.name, error=str(error))

    @property
    def any_orphaned(self) -> bool:
        """Whether an earlier worker started a step that may still run."""
        return any(kept.orphaned for kept in self)

    def save(self, kept: Kept) -> None:
        """Keep the end on disk; if that fails, tell the agent all the same, and try again."""
        try:
            if kept.exit:
                self._disk.store_exit(kept.exit)
        except OSError as error:
            self._log("a step's end can't be stored", task=kept.name, error=str(error))
            self._unsaved.append(kept)
            self._again_at = self._clock.monotonic() + RESAVE_SECONDS

    def look_again(self, now: float) -> bool:
        """Look at what could not be read, if it is time. True if the agent has to be told by a new registration."""
        if not self.unread or now < self._look_at:
            return False
        self._look_at = now + LOOK_SECONDS
        try:
            stored = self._disk.load()
        except OSError as error:
            self._log("the kept steps can't be looked at", error=str(error))
            return False
        before, self.unread, self.damaged = self.unread, self._disk.unread, self._disk.damaged
        for each in stored:
            if each.assignment.task_id in before:
                self._steps.setdefault(each.assignment.task_id, Kept(each))
        return before != self.unread

    def is_due(self, now: float) -> bool:
        """Whether it is time for `reclaimed` and `save_again`."""
        return now >= self._again_at

    def reclaimed(self, now: float) -> Iterator[Kept]:
        """The orphaned steps with no process left. The others are tried again."""
        for kept in self:
            if not kept.orphaned:
                continue
            try:
                gone = self._disk.reclaim(*kept.key)
            except OSError as error:
                self._log("a step's lock can't be looked at", task=kept.name, error=str(error))
                gone = False
            if gone:
                yield kept
            else:
                self._again_at = now + RECLAIM_SECONDS

    def save_again(self) -> None:
        """Try again to store the ends that the disk refused."""
        unsaved, self._unsaved = self._unsaved, []
        for kept in unsaved:
            if self._steps.get(kept.assignment.task_id) is kept:
                self.save(kept)

    def deadline(self, now: float) -> float | None:
        """When there is something to do again, on monotonic time."""
        due = [self._look_at] if self.unread and self._look_at > now else []
        if self._unsaved or self.any_orphaned:
            due.append(max(now, self._again_at))
        return min(due, default=None)
