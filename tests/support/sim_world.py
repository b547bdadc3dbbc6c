"""A whole system in one process on virtual time: controllers, API, agents, workers, people, and what goes wrong.

Everything that is ours is the real thing: `controller.app.Controller`, the agents' service, journal and routes, the
embedded cluster's store with the CRDs that are shipped. Simulated are processes, the network, the node, people, and
the commands of steps. `Rules` watches every change of the API and of the agents, and notes what may never be.

One seed is one history: all randomness comes from it.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from agent.state import Event, Record, SlotChanged, State
from agent.wire import Assignment, Outcome, Phase, SlotState, Step
from controller import names
from controller.app import Controller
from controller.config import Config
from controller.errors import ApiUnavailable
from controller.kube.api import LEASES, PODS, SLOTPOOLS, SLOTTASKS, Object, Resource
from controller.local.errors import ApiError as Refusal
from controller.local.versions import Change, ChangeType
from controller.pool import DEFAULT_LAYOUT
from controller.task import FINAL_PHASES, TaskPhase
from metrics.exposition import new_registry
from tests.support.sim_network import NetworkFaults, SimNetwork
from tests.support.sim_node import SimNode, SimPod
from tests.support.store_api import Cluster, StoreApi

NS = "default"
POOL = "pool"
EPOCH = datetime(2026, 3, 1, 12, tzinfo=UTC)
STEPS: dict[str, Any] = {
    "plan": {"plan": {"command": ["plan"]}},
    "apply": {"apply": {"command": ["apply"]}},
    "plan_and_apply": {"plan": {"command": ["plan"]}, "apply": {"command": ["apply"]}},
}


MISHAPS = (
    "agent dies",
    "agent forgets",
    "worker dies",
    "workers hang",
    "disk is full",
    "leader dies",
    "leader is paused",
    "leader is stopped",
    "watches end",
    "history is gone",
    "agent is cut off",
    "pod dies",
    "pod is said to have failed",
    "pod vanishes",
)


@dataclass
class Faults:
    """How much goes wrong. All zero: nothing does."""

    api_refused: float = 0.0
    """How likely a call to the API is not carried out."""
    api_unanswered: float = 0.0
    """How likely one is carried out, and its answer lost."""
    network: NetworkFaults = field(default_factory=NetworkFaults)
    local_loss: float = 0.0
    """How likely a message between a worker and its agent is lost."""
    mishap_seconds: float = 0.0
    """How long it is, on average, between two mishaps: crashes, pauses, partitions, dropped watches. 0: none."""
    mishaps: tuple[str, ...] = ()
    """The kinds that may happen (see `Chaos`); empty: all."""

    def end(self) -> None:
        """Nothing goes wrong any more."""
        self.api_refused = self.api_unanswered = self.local_loss = self.mishap_seconds = 0.0
        for name in vars(self.network):
            setattr(self.network, name, 0.0)

    @staticmethod
    def plenty(rng: random.Random) -> "Faults":
        """Some of everything, in a mix of its own for each seed."""

        def rate(most: float) -> float:
            return rng.choice([0.0, rng.uniform(0.0, most)])

        return Faults(
            api_refused=rate(0.1),
            api_unanswered=rate(0.1),
            network=NetworkFaults(
                lost=rate(0.1), unanswered=rate(0.15), late=rate(0.1), repeated=rate(0.2), cut=rate(0.02)
            ),
            local_loss=rate(0.1),
            mishap_seconds=rng.choice([3.0, 8.0, 20.0]),
            mishaps=tuple(rng.sample(MISHAPS, rng.choice([1, 2, 3, len(MISHAPS)]))),
        )


class Rules:
    """What may never happen, watched as it happens. `broken` says what did."""

    def __init__(self, world: "World") -> None:
        self.broken: list[str] = []
        self.history: deque[str] = deque(maxlen=400)
        self.starts: dict[tuple[str, Step], int] = {}
        """How often each task's step was started, by (task id, step)."""
        self._world = world
        self._phases: dict[str, str] = {}
        self._approvals: set[tuple[str, int, str]] = set()

    def note(self, text: str) -> None:
        self.history.append(f"{self._world.elapsed:9.3f} {text}")

    def breach(self, text: str) -> None:
        self.note(f"BROKEN: {text}")
        self.broken.append(f"{self._world.elapsed:.3f} s: {text}")

    def object_changed(self, change: Change) -> None:
        body, metadata = change.record.body, change.record.body["metadata"]
        if change.record.resource == "slottasks.podslots.dev":
            self._task_changed(change.type, body)
        elif change.record.resource == "pods":
            state = (metadata.get("labels") or {}).get(names.STATE_LABEL)
            phase = (body.get("status") or {}).get("phase")
            going = " deleting" if "deletionTimestamp" in metadata else ""
            self.note(f"pod {metadata['name']} {change.type} {state} {phase}{going}")

    def _task_changed(self, kind: ChangeType, body: Object) -> None:
        uid, status = body["metadata"]["uid"], body.get("status") or {}
        phase = status.get("phase", "Queued")
        before = self._phases.get(uid)
        if before in set(FINAL_PHASES) and phase != before:
            self.breach(f"task {body['metadata']['name']} went from {before} to {phase}")
        self._phases[uid] = phase
        approval = (body.get("spec") or {}).get("approval")
        if approval:
            self._approvals.add((uid, approval["attempt"], approval["planDigest"]))
        self.note(
            f"task {body['metadata']['name']} {kind} {phase} {status.get('step')} attempt {status.get('attempt')}"
            f" on {status.get('pod')} {status.get('reason', '')}"
        )

    def pod_deleted(self, pod: SimPod) -> None:
        """Somebody asked for its deletion just now."""
        why = pod.busy()
        if why is not None and pod.uid not in self._world.taken_by_force:
            self.breach(f"Pod {pod.name} was deleted although {why}")

    def agent_published(self, pod: SimPod, state: State, records: list[Record]) -> None:
        for record in records:
            if isinstance(record, SlotChanged):
                self.note(f"agent {pod.name} slot {record.entry.id} {record.event} {record.entry.task_id}")
                self._check_event(pod, record)
            else:
                self.note(f"agent {pod.name} {type(record).__name__}")
        if pod.doomed and pod.uid not in self._world.taken_by_force and not self._world.excused(pod):
            busy = [slot.task_id for slot in state.slots if slot.state is not SlotState.IDLE]
            if busy or state.phase is Phase.OPEN:
                self.breach(f"Pod {pod.name} took {busy} or was opened after it was deleted")
        self._check_places()

    def _check_event(self, pod: SimPod, record: SlotChanged) -> None:
        """A reservation ends by approval, cancel, its limit, or with proof that it is gone."""
        allowed = {Event.APPROVE, Event.CANCEL, Event.EXPIRE, Event.LOSE}
        held = self._world.reserved.setdefault(pod.uid, set())
        if record.entry.state is SlotState.RESERVED:
            held.add(record.entry.id)
        elif record.entry.id in held:
            held.discard(record.entry.id)
            if record.event not in allowed:
                self.breach(f"a reservation on Pod {pod.name} ended by {record.event}")

    def _check_places(self) -> None:
        """A task is in at most one slot of all Pods whose processes run."""
        places: dict[str, list[str]] = {}
        for pod in self._world.node.alive:
            if pod.agent is None or not pod.agent.alive:
                continue
            for slot in pod.agent.service.state.slots:
                if slot.task_id is not None:
                    uid = slot.task_id.partition(names.TASK_ID_SEPARATOR)[0]
                    places.setdefault(uid, []).append(f"{pod.name}/{slot.id}")
        for uid, found in places.items():
            if len(found) > 1:
                self.breach(f"task {uid} is in slots {found}")

    def step_begins(self, assignment: Assignment) -> None:
        uid = assignment.task_id.partition(names.TASK_ID_SEPARATOR)[0]
        key = assignment.task_id, assignment.step
        self.note(f"step {key} begins")
        self.starts[key] = self.starts.get(key, 0) + 1
        if self.starts[key] > 1:
            self.breach(f"step {assignment.step} of {assignment.task_id} was started {self.starts[key]} times")
        if assignment.step is not Step.APPLY:
            return
        if (
            sum(
                count
                for (task_id, step), count in self.starts.items()
                if step is Step.APPLY and task_id.startswith(uid)
            )
            > 1
        ):
            self.breach(f"the apply of {uid} was started again")
        if assignment.work.steps.plan is None:
            return
        digest = assignment.plan_digest or ""
        task = self._world.task_by_uid(uid)
        automatic = task is not None and task["spec"].get("approvalPolicy") == "Auto"
        if not automatic and (uid, assignment.work.attempt, digest) not in self._approvals:
            self.breach(f"an apply of {uid} began without an approval of {digest}")


class Replica:
    """One controller process, and the next one in its place when it is killed."""

    def __init__(self, world: "World", name: str) -> None:
        self.name = name
        self.controller: Controller | None = None
        self.starts = 0
        self._world = world
        self._task: asyncio.Task[None] | None = None
        self.network: SimNetwork | None = None
        self._paused_until = 0.0
        self._dead = True

    def start(self) -> None:
        world = self._world
        self.starts += 1
        self._dead = False
        self._paused_until = 0.0
        rng = random.Random(f"{world.seed}/{self.name}/{self.starts}")
        api = StoreApi(world.cluster)
        api.before, api.after = self._before_call, self._after_call
        self.network = SimNetwork(world.node, rng, world.faults.network, self.wait_out_pause)
        self.controller = Controller(
            Config(
                agent_image="agent:1",
                identity=self.name,
                namespace=NS,
                lease_seconds=world.lease_seconds,
                resync_seconds=world.resync_seconds,
            ),
            api,
            self.network,
            now=world.now,
            rng=rng,
            random_bytes=rng.randbytes,
            registry=new_registry(),
        )
        self._task = asyncio.get_running_loop().create_task(self.controller.run(), name=f"controller {self.name}")

    @property
    def leading(self) -> bool:
        return self.controller is not None and not self._dead and self.controller.election.may_act()

    @property
    def failure(self) -> BaseException | None:
        """What ended it by itself: nothing ever should."""
        return failure_of(self._task)

    async def kill(self) -> None:
        """SIGKILL: nothing it would still send gets out."""
        self._dead = True
        if self.network is not None:
            self.network.dead = True
        await self.stop()

    async def stop(self) -> None:
        """SIGTERM, unless it was killed before."""
        self._paused_until = 0.0
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def pause(self, seconds: float) -> None:
        """SIGSTOP: what it was about to send is sent when it goes on."""
        self._paused_until = asyncio.get_running_loop().time() + seconds

    async def wait_out_pause(self) -> None:
        loop = asyncio.get_running_loop()
        while (left := self._paused_until - loop.time()) > 0:  # noqa: ASYNC110 - a pause can be prolonged
            await asyncio.sleep(left)

    async def _before_call(self, verb: str, resource: Resource, name: str) -> None:
        del name
        await self.wait_out_pause()
        await asyncio.sleep(self._world.rng.uniform(0.0005, 0.01))
        await self.wait_out_pause()
        if self._dead:
            raise ApiUnavailable("dead")
        if verb != "event" and self._world.rng.random() < self._world.faults.api_refused:
            raise ApiUnavailable(f"{verb} {resource.plural}: no answer")

    async def _after_call(self, verb: str, resource: Resource, name: str) -> None:
        del name
        await asyncio.sleep(self._world.rng.uniform(0.0005, 0.01))
        await self.wait_out_pause()
        if self._dead:
            raise ApiUnavailable("dead")
        if verb != "event" and self._world.rng.random() < self._world.faults.api_unanswered:
            raise ApiUnavailable(f"{verb} {resource.plural}: no answer")


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
        resync_seconds: float = 30.0,
    ) -> None:
        self.seed = seed
        self.rng = random.Random(f"{seed}/world")
        self.faults = faults or Faults()
        self.layout = layout
        self.lease_seconds = lease_seconds
        self.resync_seconds = resync_seconds
        self.taken_by_force: set[str] = set()
        """UIDs of Pods that something other than the controller ended."""
        self.reserved: dict[str, set[int]] = {}
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self._durations: dict[tuple[str, Step], tuple[float, Outcome]] = {}
        self.cluster = Cluster(self.now, self.rng, rules=False)
        self.rules = Rules(self)
        self.cluster.observers.append(self.rules.object_changed)
        self.node = SimNode(
            self.cluster,
            self,
            layout,
            self.rng,
            published=self.rules.agent_published,
            deleting=self.rules.pod_deleted,
            local_loss=lambda: self.faults.local_loss,
        )
        self.replicas = [Replica(self, f"replica-{number}") for number in range(replicas)]
        self._background: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for replica in self.replicas:
            replica.start()
        self.spawn(self._collect_garbage())
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
        return EPOCH + timedelta(seconds=self.elapsed)

    async def _collect_garbage(self) -> None:
        while True:
            await asyncio.sleep(5.0)
            self.cluster.collect()

    # --- objects ------------------------------------------------------------------------------------------------------

    def add_pool(self, **spec: Any) -> None:
        autoscaling = {"minReplicas": 0, "maxReplicas": 4, "minIdleSeconds": 20}
        self.cluster.create(
            SLOTPOOLS,
            NS,
            {
                "metadata": {"name": POOL},
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
        **spec: Any,
    ) -> None:
        """A SlotTask whose steps take so long, and end so."""
        made = self.cluster.create(
            SLOTTASKS,
            NS,
            {"metadata": {"name": name}, "spec": {"pool": POOL, "type": kind, "steps": STEPS[kind], **spec}},
        )
        for step in Step:
            self._durations[made["metadata"]["uid"], step] = seconds, outcome

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

    def pods(self) -> list[Object]:
        return self.cluster.all(PODS)

    @property
    def leader(self) -> Controller | None:
        return next((replica.controller for replica in self.replicas if replica.leading), None)

    # --- commands of steps --------------------------------------------------------------------------------------------

    def begins(self, assignment: Assignment) -> None:
        self.rules.step_begins(assignment)

    def seconds(self, assignment: Assignment) -> float:
        return self._step(assignment)[0]

    def outcome(self, assignment: Assignment) -> Outcome:
        return self._step(assignment)[1]

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
                raise AssertionError(f"seed {self.seed}: not {what} after {seconds} s\n{self.describe()}\n{tail}")
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


class Chaos:
    """Mishaps, one after the other, until `stop`; then everything that was broken is mended."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = random.Random(f"{world.seed}/chaos")
        self._mending: set[asyncio.Task[None]] = set()
        self._kinds: dict[str, Callable[[], Coroutine[Any, Any, None] | None]] = {
            name: getattr(self, f"_{name.replace(' ', '_')}") for name in world.faults.mishaps or MISHAPS
        }

    async def run(self) -> None:
        """Until cancelled."""
        mean = self._world.faults.mishap_seconds
        while mean:
            await asyncio.sleep(self._rng.expovariate(1 / mean))
            name = self._rng.choice(list(self._kinds))
            self._world.rules.note(f"--- {name}")
            mending = self._kinds[name]()
            if mending is not None:
                task = asyncio.get_running_loop().create_task(mending)
                self._mending.add(task)
                task.add_done_callback(self._mending.discard)

    async def mend(self) -> None:
        """Wait until everything that was broken is mended."""
        while self._mending:
            await asyncio.wait(self._mending)

    def _pod(self) -> SimPod | None:
        pods = [pod for pod in self._world.node.alive if not pod.doomed]
        return self._rng.choice(pods) if pods else None

    def _leader(self) -> Replica:
        leading = [replica for replica in self._world.replicas if replica.leading]
        return self._rng.choice(leading or self._world.replicas)

    def _agent_dies(self) -> Coroutine[Any, Any, None] | None:
        return self._restart_agent(lose_journal=False)

    def _agent_forgets(self) -> Coroutine[Any, Any, None] | None:
        return self._restart_agent(lose_journal=True)

    def _restart_agent(self, *, lose_journal: bool) -> Coroutine[Any, Any, None] | None:
        pod = self._pod()
        if pod is None:
            return None
        pod.kill_agent(lose_journal=lose_journal)
        pod.workers_hang = self._rng.random() < 0.5

        async def mend() -> None:
            await asyncio.sleep(self._rng.uniform(0.1, 20.0))
            pod.start_agent()
            await asyncio.sleep(self._rng.uniform(0.1, 20.0))
            pod.workers_hang = False

        return mend()

    def _worker_dies(self) -> Coroutine[Any, Any, None] | None:
        pod = self._pod()
        if pod is None:
            return None
        slot = self._rng.randrange(len(pod.workers))
        pod.kill_worker(slot)

        async def mend() -> None:
            await asyncio.sleep(self._rng.uniform(0.1, 20.0))
            pod.start_worker(slot)

        return mend()

    def _workers_hang(self) -> Coroutine[Any, Any, None] | None:
        """They are not heard for a while; what they run goes on."""
        pod = self._pod()
        if pod is None:
            return None
        pod.workers_hang = True

        async def mend() -> None:
            await asyncio.sleep(self._rng.uniform(5.0, 60.0))
            pod.workers_hang = False

        return mend()

    def _disk_is_full(self) -> Coroutine[Any, Any, None] | None:
        pod = self._pod()
        if pod is None:
            return None
        pod.home.disk.full = True

        async def mend() -> None:
            await asyncio.sleep(self._rng.uniform(0.1, 30.0))
            pod.home.disk.full = False

        return mend()

    def _leader_dies(self) -> Coroutine[Any, Any, None]:
        replica = self._leader()

        async def mend() -> None:
            await replica.kill()
            await asyncio.sleep(self._rng.uniform(0.1, 30.0))
            await replica.stop()
            replica.start()

        return mend()

    def _leader_is_stopped(self) -> Coroutine[Any, Any, None]:
        replica = self._leader()

        async def mend() -> None:
            await replica.stop()
            await asyncio.sleep(self._rng.uniform(0.1, 5.0))
            await replica.stop()
            replica.start()

        return mend()

    def _leader_is_paused(self) -> None:
        self._leader().pause(self._rng.uniform(1.0, 40.0))

    def _watches_end(self) -> None:
        self._world.cluster.drop_watches()

    def _history_is_gone(self) -> None:
        self._world.cluster.compact()

    def _agent_is_cut_off(self) -> Coroutine[Any, Any, None] | None:
        pod = self._pod()
        networks = [replica.network for replica in self._world.replicas if replica.network is not None]
        cut = networks if self._rng.random() < 0.5 else networks[:1]
        if pod is None:
            return None
        for network in cut:
            network.cut_off.add(pod.address)

        async def mend() -> None:
            await asyncio.sleep(self._rng.uniform(1.0, 120.0))
            for network in cut:
                network.cut_off.discard(pod.address)

        return mend()

    def _pod_dies(self) -> Coroutine[Any, Any, None] | None:
        """A node that loses its power, and is back a while later to say so."""
        pod = self._pod()
        if pod is None:
            return None
        self._world.taken_by_force.add(pod.uid)
        pod.kill()

        async def mend() -> None:
            await asyncio.sleep(self._rng.uniform(1.0, 60.0))
            self._world.node.end(pod)

        return mend()

    def _pod_vanishes(self) -> Coroutine[Any, Any, None] | None:
        """Somebody deletes the object by force; its processes run on for a while."""
        pod = self._pod()
        if pod is None or self._rng.random() < 0.5:
            return None
        self._world.taken_by_force.add(pod.uid)
        pod.doomed = True
        self._world.node.remove(pod)

        async def mend() -> None:
            await asyncio.sleep(self._rng.uniform(1.0, 60.0))
            pod.kill()

        return mend()

    def _pod_is_said_to_have_failed(self) -> Coroutine[Any, Any, None] | None:
        """The garbage collector writes Failed over containers that still run; the kubelet says otherwise later."""
        pod = self._pod()
        if pod is None:
            return None
        self._world.node.write_status(pod, "Failed", "running")

        async def mend() -> None:
            await asyncio.sleep(self._rng.uniform(1.0, 60.0))
            if not pod.over:
                self._world.node.write_status(pod, "Running", "running")

        return mend()


def failure_of(task: asyncio.Task[None] | None) -> BaseException | None:
    return task.exception() if task is not None and task.done() and not task.cancelled() else None


def phase_of(task: Object) -> TaskPhase:
    return TaskPhase((task.get("status") or {}).get("phase", TaskPhase.QUEUED))
