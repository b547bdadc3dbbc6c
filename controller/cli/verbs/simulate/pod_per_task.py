"""A Pod for each task, as a Job makes it: it has one slot, and lives from before the plan until after the apply."""

from collections import deque

from controller.cli.verbs.simulate.engine import Engine, Pod, Strategy
from controller.cli.verbs.simulate.jobs import Job


class PodPerTask(Strategy):
    """At most `most` Pods at once, as a quota would have it; what is beyond waits, first come, first served."""

    def __init__(self, most: int, *, name: str = "a Pod per task") -> None:
        super().__init__(name)
        self._most = most
        self._waiting: deque[Job] = deque()
        self._starting: dict[int, Job] = {}

    def begin(self, engine: Engine) -> None:
        """Nothing is there before the first task."""
        self._engine = engine

    def task_queued(self, job: Job) -> None:
        """Its Pod is made."""
        self._waiting.append(job)
        self._create()

    def _create(self) -> None:
        while self._waiting and len(self._engine.pods) < self._most:
            job = self._waiting.popleft()
            if job.free_since is not None:
                pod = self._engine.create_pod(((job.arrival.type,),))
                self._starting[pod.number] = job

    def task_withdrawn(self, job: Job) -> None:
        """Its Pod, if it starts already, goes when it is ready."""

    def slot_changed(self, pod: Pod, slot: int) -> None:
        """A Pod goes with its task."""
        if pod.held[slot] is None:
            self._engine.remove_pod(pod)
            self._create()

    def pod_ready(self, pod: Pod) -> None:
        """Its task starts."""
        job = self._starting.pop(pod.number)
        if job.free_since is not None:
            self._engine.start_job(job, pod, 0)
        else:
            self._engine.remove_pod(pod)
            self._create()
