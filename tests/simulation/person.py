"""People and platforms: tasks come in, are approved (sometimes wrongly), cancelled and deleted, and locks are freed."""

import asyncio
import random
from typing import Any

from agent.wire import Outcome, Step
from controller import names
from controller.kube.api import LEASES, PODS, SLOTTASKS
from controller.local.apiserver.errors import ApiError as Refusal
from controller.objects.task import TaskPhase
from tests.simulation.processes import Doing, Program
from tests.simulation.replica import NS
from tests.simulation.themes import Theme
from tests.simulation.world import CHANGED, TRY_AGAIN, UNCHANGED, World, phase_of

LOOK_SECONDS = 2.0
UNLOCK_AFTER_SECONDS = 60.0


class Person:
    """Brings tasks and looks after them; once `content`, only approves and unlocks."""

    def __init__(self, world: World, theme: Theme, tasks: int, within_seconds: float) -> None:
        self._world = world
        self._theme = theme
        self._rng = random.Random(f"{world.seed}/person")
        self._tasks = tasks
        self._within_seconds = within_seconds
        self._locked_since: dict[str, float] = {}
        self._tried_wrong: set[str] = set()
        self._brought = 0
        self.done = False
        self.content = False
        """Whether nothing is cancelled or deleted any more: what is stuck then stays so, and is seen."""
        world.caught = self._come_at_the_worst_moment

    async def bring_tasks(self) -> None:
        """Tasks of every kind, over a while."""
        moments = sorted(self._rng.uniform(0, self._within_seconds) for _ in range(self._tasks))
        for moment in moments:
            await asyncio.sleep(max(0.0, moment - self._world.elapsed))
            self._bring()
        self.done = True

    def _come_at_the_worst_moment(self, verb: str, pod: str, seconds: float) -> None:
        """A Pod is about to be opened: somebody deletes it just before. It is about to go: now it is needed."""
        if verb == "patch" and self._rng.random() < 0.5:
            self._world.spawn(self._delete_by_hand(pod, max(0.0, seconds - self._rng.uniform(0.0, 0.3))))
        elif self._rng.random() < 0.8:
            for _ in range(self._rng.randint(1, 3)):
                self._bring()

    async def _delete_by_hand(self, name: str, after_seconds: float) -> None:
        """`kubectl delete pod`, which is refused of an active one."""
        await asyncio.sleep(after_seconds)
        pod = self._world.cluster.find(PODS, NS, name)
        if pod is not None and pod["metadata"]["labels"].get(names.STATE_LABEL) == "starting":
            self._world.rules.note(f"--- somebody deletes {name} by hand")
            self._world.cluster.delete(PODS, NS, name)

    def _bring(self) -> None:
        rng, theme, world = self._rng, self._theme, self._world
        spec: dict[str, Any] = {}
        kind = rng.choice(theme.kinds)
        if rng.random() < theme.lock_share:
            spec["lockKey"] = rng.choice(theme.locks)
        if theme.kept_seconds:
            spec["ttlSecondsAfterFinished"] = rng.choice(theme.kept_seconds)
        if kind == "plan_and_apply":
            spec["approvalPolicy"] = rng.choice(["Manual", "Manual", "Auto"])
            spec["onLostReservation"] = rng.choice(["Fail", "Replan"])
        world.add_task(
            f"t{self._brought}",
            kind,
            pool=rng.choice(world.pools) if "lockKey" in spec else world.pools[0],
            seconds=rng.choice(theme.task_seconds),
            outcome=rng.choice([Outcome.SUCCEEDED] * 4 + [Outcome.FAILED]),
            priority=rng.choice([0, 0, 5]),
            retry={"planMaxAttempts": rng.choice([1, 2, 3])}
            | ({"planExitCodes": [TRY_AGAIN]} if theme.endings else {}),
            doings={step.value: self._doing() for step in Step} if theme.stops else None,
            codes=[rng.choice([UNCHANGED, CHANGED, CHANGED, TRY_AGAIN]) for _ in range(3)] if theme.endings else [],
            **spec,
        )
        self._brought += 1

    def _doing(self) -> Doing:
        """What a step does that is stopped now and then."""
        rng = self._rng

        def program(seconds: float) -> Program:
            return Program(
                seconds,
                code=rng.choice([0] * 9 + [3]),
                tidy_seconds=rng.choice([None, 0.5, 3.0, 8.0, 30.0]),
                stopped_code=rng.choice([0, 1]),
                behind_shell=rng.random() < 0.5,
                leaves_seconds=rng.choice([None, None, 500.0]),
            )

        before = [program(rng.choice([0.5, 5.0, 20.0])) for _ in range(rng.choice([0, 1, 2]))]
        return Doing(
            (*before, program(rng.choice(self._theme.task_seconds))),
            grace_seconds=rng.choice([2, 10, 20]),
            timeout_seconds=rng.choice([None, None, 20]),
        )

    async def look_after_them(self) -> None:
        """Approve what waits; now and then cancel, delete, or approve something else."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for task in self._world.tasks():
                self._look_at(task)
            self._unlock()

    def _look_at(self, task: dict[str, Any]) -> None:
        rng, name, phase = self._rng, task["metadata"]["name"], phase_of(task)
        if phase is TaskPhase.AWAITING_APPROVAL and rng.random() < 0.3:
            if name not in self._tried_wrong and rng.random() < 0.3:
                self._tried_wrong.add(name)
                self._world.edit_task(name, approval=self._wrong(task["status"]))
            else:
                self._world.approve(name)
        elif self.content:
            return
        elif rng.random() < (self._cancel_share(phase)):
            self._world.edit_task(name, cancel=True)
        elif rng.random() < 0.002:
            self._world.cluster.delete(SLOTTASKS, NS, name)

    def _cancel_share(self, phase: TaskPhase) -> float:
        return self._theme.cancel_waiting_share if phase is TaskPhase.QUEUED else self._theme.cancel_running_share

    def give_up(self) -> None:
        """Cancel what waits in the first pool."""
        for task in self._world.tasks():
            if task["spec"]["pool"] == self._world.pools[0] and phase_of(task) is TaskPhase.QUEUED:
                self._world.edit_task(task["metadata"]["name"], cancel=True)

    def _wrong(self, status: dict[str, Any]) -> dict[str, Any]:
        """An approval of something else: another plan, or another attempt."""
        attempt, digest = status["attempt"], status["planDigest"]
        if self._rng.random() < 0.5:
            return {"attempt": attempt, "planDigest": "sha256:" + "0" * 64, "by": "bert"}
        return {"attempt": attempt + 1, "planDigest": digest, "by": "bert"}

    def _runs(self, uid: str) -> bool:
        """Whether a step of the task runs anywhere."""
        return any(running.task_id.startswith(uid) for pod in self._world.node.alive for running in pod.running)

    def _unlock(self) -> None:
        """`podslots unlock`: somebody looked whether that apply still runs."""
        for lease in self._world.cluster.all(LEASES):
            metadata = lease["metadata"]
            if names.LOCK_KEY not in (metadata.get("annotations") or {}):
                continue
            holder = self._world.task_by_uid(lease["spec"]["holderIdentity"])
            if holder is not None and phase_of(holder) is not TaskPhase.LOST:
                self._locked_since.pop(metadata["uid"], None)
                continue
            since = self._locked_since.setdefault(metadata["uid"], self._world.elapsed)
            if self._world.elapsed - since > UNLOCK_AFTER_SECONDS and not self._runs(lease["spec"]["holderIdentity"]):
                try:
                    self._world.cluster.delete(LEASES, NS, metadata["name"])
                except Refusal:
                    return
