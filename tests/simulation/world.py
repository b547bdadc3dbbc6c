"""A whole system in one process on virtual time: controllers, API, agents, workers, people, and what goes wrong.

Everything that is ours is the real thing: `controller.app.Controller`, the agents' service, journal and routes, the
embedded cluster's store with the CRDs that are shipped. Simulated are processes, the network, the node, people, and
the commands of steps. `Rules` watches every change of the API and of the agents, and notes what may never be.

One seed is one history: all randomness comes from it.
"""

import asyncio
import copy
import itertools
import random
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from agent.wire import Assignment, Outcome, Step
from controller import names
from controller.app import Controller
from controller.kube.api import LEASES, PODS, SLOTPOOLS, SLOTTASKS, Object
from controller.local.apiserver.errors import ApiError as Refusal
from controller.objects.pool import DEFAULT_LAYOUT
from controller.objects.task import TaskPhase
from tests.simulation.faults import Faults
from tests.simulation.node import SimNode, SimPod, failure_of
from tests.simulation.processes import Doing, Program
from tests.simulation.prometheus import SimPrometheus
from tests.simulation.replica import NS, Replica
from tests.simulation.rules import Rules
from tests.simulation.stop_rules import StopRules
from tests.simulation.token_rules import TokenRules
from tests.simulation.trace import Trace
from tests.support.at_once import AT_ONCE
from tests.support.store_api import Cluster
from tests.support.virtual_time import VirtualTimeLoop

POOL = "pool"
EPOCH = datetime(2026, 3, 1, 12, tzinfo=UTC)
WITHOUT_RESYNC_SECONDS = 1e6
"""Longer than any history: a look at every pool without a cause would hide that something did not wake its pool."""
STEPS: dict[str, Any] = {
    "plan": {"plan": {"command": ["plan"]}},
    "apply": {"apply": {"command": ["apply"]}},
    "plan_and_apply": {"plan": {"command": ["plan"]}, "apply": {"command": ["apply"]}},
}


UNCHANGED, CHANGED, TRY_AGAIN = 0, 2, 7
"""What a plan may end with whose task says what that means."""


class World:
    """All of it. Make one inside a virtual-time loop, and leave it as a context manager."""

    def __init__(
        self,
        seed: int | str,
        *,
        faults: Faults | None = None,
        replicas: int = 2,
        layout: tuple[tuple[str, ...], ...] = DEFAULT_LAYOUT,
        lease_seconds: float = 15.0,
        resync_seconds: float = WITHOUT_RESYNC_SECONDS,
        trace: Trace | None = None,
    ) -> None:
        self.seed = seed
        self.rng = random.Random(f"{seed}/world")
        self.faults = faults or Faults()
        self.layout = layout
        self.pools: tuple[str, ...] = (POOL,)
        """The names of those that tasks are brought to."""
        self.lease_seconds = lease_seconds
        self.resync_seconds = resync_seconds
        self.caught: Callable[[str, str, float], None] = lambda _verb, _pod, _seconds: None
        """Has people come at the worst of moments: somebody is held up at `verb` of a Pod, for so many seconds."""
        self.taken_by_force: set[str] = set()
        """UIDs of Pods that something other than the controller ended."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        loop.wakes_late = True
        self._loop = loop
        self._start = self._loop.time()
        self._codes: dict[str, Sequence[int]] = {}
        self._durations: dict[tuple[str, Step], tuple[float, Outcome]] = {}
        self._doings: dict[tuple[str, Step], Doing] = {}
        self.cluster = Cluster(self.now, self.rng, rules=False)
        self.prometheus = SimPrometheus(self)
        self.rules = Rules(self, trace or Trace())
        self.token_rules = TokenRules(self.cluster, lambda: self.elapsed, self.rules.breach)
        self.cluster.observers.extend(
            [self.rules.object_changed, self.token_rules.object_changed, self.rules.deployments.object_changed]
        )
        self.cluster.store.admit = self.rules.deployments.admit
        self.node = SimNode(
            self.cluster,
            self,
            layout,
            self.rng,
            published=self.rules.agent_published,
            answered=self.rules.agent_answered,
            started=self.rules.agent_started,
            died=self.rules.agent_died,
            deleting=self.rules.pod_deleted,
            refused=self.rules.sizes.pod_refused,
            removing=self.rules.output_removed,
            local_loss=lambda: self.faults.local_loss,
        )
        self.replicas = [Replica(self, f"replica-{number}") for number in range(replicas)]
        self._background: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for replica in self.replicas:
            replica.start()
        self.spawn(self._collect_garbage())
        self.spawn(self._kubelet())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        for replica in self.replicas:
            await replica.kill()
        await self.node.stop()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something until it ends, or the world does. What it raises is a problem."""
        task = self._loop.create_task(coroutine)
        self._background.append(task)
        return task

    @property
    def elapsed(self) -> float:
        return self._loop.time() - self._start

    def now(self) -> datetime:
        """By a wall clock, which is finer than the loop's."""
        return EPOCH + timedelta(microseconds=self._loop.microseconds() - round(self._start * 1e6))

    async def _collect_garbage(self) -> None:
        while True:
            await asyncio.sleep(self.rng.uniform(0.1, 5.0))
            self.cluster.collect()

    async def _kubelet(self) -> None:
        """Writes the status of Pods again and again, which moves their versions."""
        for number in itertools.count():
            await asyncio.sleep(self.rng.expovariate(1 / (self.faults.kubelet_seconds or 10.0)))
            pods = [pod for pod in self.node.alive if pod.said == ("Running", "running")]
            if self.faults.kubelet_seconds and pods:
                self.node.write_status(self.rng.choice(pods), "Running", "running", f"probe {number}")

    def set_clocks(self) -> None:
        """Every clock is right again."""
        for replica in self.replicas:
            replica.clock_off_seconds = 0.0
            replica.trap = None
        for pod in self.node.pods.values():
            pod.clock_off_seconds = 0.0

    # --- objects ------------------------------------------------------------------------------------------------------

    def add_pool(self, name: str = POOL, **spec: Any) -> None:
        autoscaling = {"minReplicas": 0, "maxReplicas": 4, "minIdleSeconds": 20, "behavior": AT_ONCE}
        self.cluster.create(
            SLOTPOOLS,
            NS,
            {
                "metadata": {"name": name},
                "spec": {
                    "autoscaling": autoscaling,
                    "slots": [{"accepts": list(accepts)} for accepts in self.layout],
                    "template": {"spec": {"containers": [{"name": "worker", "image": "terraform:1"}]}},
                    **spec,
                },
            },
        )

    def add_task(
        self,
        name: str,
        kind: str = "plan_and_apply",
        *,
        seconds: float = 10.0,
        outcome: Outcome = Outcome.SUCCEEDED,
        pool: str = POOL,
        codes: Sequence[int] = (),
        doings: dict[str, Doing] | None = None,
        **spec: Any,
    ) -> None:
        """A SlotTask whose steps take so long, and end so; or do what `doings` say, by step.

        With `codes`, its plans that do not fail end with them, one for each attempt, and it hands a file over.
        """
        steps = copy.deepcopy(STEPS[kind])
        if codes:
            spec["outputs"] = {"path": "outputs.json", "secretName": f"of-{name}"}
            if "plan" in steps:
                steps["plan"]["exitCodes"] = {"changed": [CHANGED], "unchanged": [UNCHANGED]}
        for step, doing in (doings or {}).items():
            if step in steps:
                steps[step] |= _asked(doing)
        made = self.cluster.create(
            SLOTTASKS,
            NS,
            {"metadata": {"name": name}, "spec": {"pool": pool, "type": kind, "steps": steps, **spec}},
        )
        self._codes[made["metadata"]["uid"]] = codes
        for step in Step:
            self._durations[made["metadata"]["uid"], step] = seconds, outcome
            if doings is not None:
                self._doings[made["metadata"]["uid"], step] = doings[step.value]

    def task(self, name: str) -> Object | None:
        return self.cluster.find(SLOTTASKS, NS, name)

    def tasks(self) -> list[Object]:
        return self.cluster.all(SLOTTASKS)

    def task_by_uid(self, uid: str) -> Object | None:
        record = self.cluster.store.versions.by_uid(uid)
        return None if record is None else record.body

    def phase(self, name: str) -> TaskPhase:
        task = self.task(name)
        assert task is not None, name
        return phase_of(task)

    def edit_task(self, name: str, **spec: Any) -> None:
        """A person's edit; nothing if the task is gone."""
        try:
            self.cluster.patch(SLOTTASKS, NS, name, {"spec": spec})
        except Refusal as refusal:
            if refusal.reason != "NotFound":
                raise

    def approve(self, name: str) -> None:
        """A person approves what waits now."""
        status = (self.task(name) or {}).get("status") or {}
        if status.get("planDigest"):
            approval = {"attempt": status["attempt"], "planDigest": status["planDigest"], "by": "anna"}
            self.edit_task(name, approval=approval)

    def ask_for_rotation(self, request: str) -> None:
        """As `podslots rotate` does."""
        annotations = {names.ROTATION_REQUESTED: request}
        self.cluster.patch(SLOTPOOLS, NS, POOL, {"metadata": {"annotations": annotations}})

    def pods(self) -> list[Object]:
        return self.cluster.all(PODS)

    @property
    def leader(self) -> Controller | None:
        return next((replica.controller for replica in self.replicas if replica.leading), None)

    # --- commands of steps --------------------------------------------------------------------------------------------

    def begins(self, assignment: Assignment, plan_digest: str) -> None:
        self.rules.steps.begins(assignment, plan_digest)

    @property
    def stops(self) -> StopRules:
        return self.rules.stops

    def doing(self, assignment: Assignment) -> Doing:
        uid = assignment.task_id.partition(names.TASK_ID_SEPARATOR)[0]
        known = self._doings.get((uid, assignment.step))
        return known or Doing((Program(self._step(assignment)[0], self.exit_code(assignment)),))

    def outcome(self, assignment: Assignment) -> Outcome:
        return self._step(assignment)[1]

    def exit_code(self, assignment: Assignment) -> int:
        codes = self._codes.get(assignment.task_id.partition(names.TASK_ID_SEPARATOR)[0], ())
        if self.outcome(assignment) is not Outcome.SUCCEEDED:
            # Of an apply, too, whose task names that code: it is tried again for no code.
            return TRY_AGAIN if codes and assignment.step is Step.APPLY else 1
        return codes[(assignment.work.attempt - 1) % len(codes)] if codes and assignment.step is Step.PLAN else 0

    def finds_nothing(self, uid: str, attempt: int) -> bool:
        """Whether the plan of a task's attempt finds nothing to change."""
        codes = self._codes.get(uid, ())
        return bool(codes) and codes[(attempt - 1) % len(codes)] == UNCHANGED

    def minds_no_sigterm(self) -> bool:
        return self.rng.random() < self.faults.stubborn

    def _step(self, assignment: Assignment) -> tuple[float, Outcome]:
        uid = assignment.task_id.partition(names.TASK_ID_SEPARATOR)[0]
        return self._durations.get((uid, assignment.step), (5.0, Outcome.SUCCEEDED))

    # --- time ---------------------------------------------------------------------------------------------------------

    def excused(self, pod: SimPod) -> bool:
        """Whether a Pod's agent lost its memory, so that it can't keep what it granted."""
        return pod.uid in self.forgetful

    @property
    def forgetful(self) -> set[str]:
        return {pod.uid for pod in self.node.pods.values() if pod.lost_journals}

    def check(self) -> None:
        """Raise what was broken so far."""
        failures = [replica.failure for replica in self.replicas if replica.failure is not None]
        failures += self.node.failures
        failures += [error for task in self._background if (error := failure_of(task)) is not None]
        problems = [*self.rules.broken, *(f"something ended: {failure!r}" for failure in failures)]
        if problems:
            raise AssertionError("\n".join([f"seed {self.seed}:", *problems, *self.rules.history]))

    async def until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Let time pass until the condition holds."""
        deadline = self._loop.time() + seconds
        while not condition():
            self.check()
            if self._loop.time() >= deadline:
                tail = "\n".join(self.rules.history)
                said = f"{self.elapsed:.0f} s: not {what} after {seconds} s without trouble"
                raise AssertionError(f"seed {self.seed}:\n{said}\n{self.describe()}\n{tail}")
            await asyncio.sleep(0.5)
        self.check()

    def describe(self) -> str:
        """What there is, for people."""
        lines = [f"leading: {[replica.name for replica in self.replicas if replica.leading]}"]
        lines += [
            f"task {task['metadata']['name']}: {task['spec'].get('lockKey')} {task.get('status')}"
            for task in self.tasks()
        ]
        for pod in self.pods():
            sim = self.node.pods[pod["metadata"]["uid"]]
            slots = [(slot.state.value, slot.task_id) for slot in sim.state().slots] if sim.started else []
            lines.append(
                f"pod {sim.name}: {pod['metadata']['labels'].get(names.STATE_LABEL)} {pod['status'].get('phase')}"
                f" over={sim.over} doomed={sim.doomed} {sim.state().phase if sim.started else ''} {slots}"
            )
        lines += [f"lease {lease['metadata']['name']}: {lease['spec']}" for lease in self.cluster.all(LEASES)]
        lines += [f"pool: {pool.get('status')}" for pool in self.cluster.all(SLOTPOOLS)]
        return "\n".join(lines)


def _asked(doing: Doing) -> Object:
    """The fields of a step that does this."""
    before = [{"command": [f"before-{number}"]} for number in range(len(doing.programs) - 1)]
    limit = {} if doing.timeout_seconds is None else {"timeoutSeconds": doing.timeout_seconds}
    return {"before": before, "cancelGraceSeconds": doing.grace_seconds, **limit}


def phase_of(task: Object) -> TaskPhase:
    return TaskPhase((task.get("status") or {}).get("phase", TaskPhase.QUEUED))
