"""What podslots is compared with: Pods with workers that take the next task of a queue by themselves."""

import heapq
import random
from datetime import datetime
from itertools import count

from controller.cli.verbs.simulate.engine import Engine, Pod, Strategy
from controller.cli.verbs.simulate.jobs import Job, Stage
from controller.decide.scaling.matching import SlotClass, restriction
from controller.objects.pool import Layout

_Waiting = tuple[tuple[int, datetime, str, str], int, int, Job]
"""A task's order, its turn when it came, and a number that no other entry has."""


class Workers(Strategy):
    """Pods of the pool's own layout. A free slot takes the first task that it accepts, of the order podslots serves in.

    Where several slots are free, one of the most restricted kind takes it, in a Pod by chance: whichever asks first.
    """

    def __init__(self, name: str, layout: Layout, *, seed: int) -> None:
        super().__init__(name)
        self.layout = layout
        self.random = random.Random(seed)  # noqa: S311 - repeatable, and no secret
        self._waiting: dict[str, list[_Waiting]] = {}
        self._ties = count()
        self._free: dict[SlotClass, list[tuple[Pod, int]]] = {accepts: [] for accepts in layout}
        self._order = sorted(self._free, key=restriction)

    def begin(self, engine: Engine) -> None:
        """Remember where the Pods are."""
        self.engine = engine

    def task_queued(self, job: Job) -> None:
        """A free slot takes it, if there is one."""
        for accepts in self._order:
            if job.arrival.type in accepts and (found := self._take_free(accepts)) is not None:
                self.engine.start_job(job, *found)
                return
        heapq.heappush(self._waiting.setdefault(job.arrival.type, []), self._entry(job))

    def _entry(self, job: Job) -> _Waiting:
        return job.task.order, job.turn, next(self._ties), job

    def task_withdrawn(self, job: Job) -> None:
        """It is skipped when it comes to the front."""

    def slot_changed(self, pod: Pod, slot: int) -> None:
        """A slot that is freed takes the next task."""
        if pod.held[slot] is None:
            self._serve(pod, slot)

    def pod_ready(self, pod: Pod) -> None:
        """Each slot takes a task."""
        for slot in range(len(pod.layout)):
            if not pod.ending and pod.held[slot] is None:
                self._serve(pod, slot)

    def _serve(self, pod: Pod, slot: int) -> None:
        accepts = pod.layout[slot]
        heads = [head for name in accepts if (head := self._head(name)) is not None]
        if not heads:
            self._free[accepts].append((pod, slot))
            return
        job = min(heads, key=lambda head: head.task.order)
        heapq.heappop(self._waiting[job.arrival.type])
        self.engine.start_job(job, pod, slot)

    def _head(self, task_type: str) -> Job | None:
        """The first of a type that still waits for a slot."""
        waiting = self._waiting.get(task_type, [])
        while waiting:
            _, turn, _, job = waiting[0]
            if job.turn == turn and job.stage is Stage.QUEUED and job.free_since is not None:
                return job
            heapq.heappop(waiting)
        return None

    def _take_free(self, accepts: SlotClass) -> tuple[Pod, int] | None:
        free = self._free[accepts]
        while free:
            index = self.random.randrange(len(free))
            free[index], free[-1] = free[-1], free[index]
            pod, slot = free.pop()
            if not pod.ending:
                return pod, slot
        return None


class FixedSize(Workers):
    """So many Pods, always."""

    def __init__(self, size: int, layout: Layout, *, seed: int, name: str) -> None:
        super().__init__(name, layout, seed=seed)
        self._size = size

    def begin(self, engine: Engine) -> None:
        """They are made once."""
        super().begin(engine)
        for _ in range(self._size):
            engine.create_pod(self.layout)
