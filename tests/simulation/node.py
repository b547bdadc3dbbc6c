"""A node: runs the Pods of a simulated cluster, as scheduler and kubelet do, with an agent and workers in each."""

import asyncio
import base64
import random
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from agent.errors import JournalDamagedError
from agent.rules.state import Record, State
from agent.wire import Assignment, Phase, SlotState
from controller import names
from controller.errors import AgentUnreachable
from controller.kube.api import NODES, PODS, SECRETS, Object
from controller.local.apiserver.errors import ApiError as Refusal
from controller.local.apiserver.store.deletion import DeleteOptions
from controller.local.apiserver.store.versions import Change, ChangeType
from controller.objects.token_secret import tokens_of
from tests.simulation.agent import AgentHome, Answered, FakeRequest, SimAgent
from tests.simulation.worker import GRACE_SECONDS, Commands, SimWorker, SlotDisk, unwatched
from tests.support.store_api import Cluster

T = TypeVar("T")
NODE = "node-1"
Layout = tuple[tuple[str, ...], ...]
Published = Callable[["SimPod", State, Sequence[Record]], None]


class SimPod:
    """A Pod's processes. `doomed`: it was deleted, and everything is being stopped."""

    def __init__(self, node: "SimNode", metadata: Object, address: str) -> None:
        self.name: str = metadata["name"]
        self.uid: str = metadata["uid"]
        self.namespace: str = metadata["namespace"]
        self.address = address
        pool: str = (metadata.get("labels") or {}).get(names.POOL_LABEL, "")
        self.home = AgentHome(pod=self.name, uid=self.uid, pool=pool, layout=node.layout)
        self.disks = tuple(SlotDisk() for _ in node.layout)
        self.agent: SimAgent | None = None
        self.workers: list[SimWorker | None] = [None] * len(node.layout)
        self.started = False
        self.over = False
        """Its processes have ended, for good."""
        self.doomed = False
        self.stripped = False
        """Whether somebody took its finalizers off by hand."""
        self.lost_journals = 0
        self.workers_hang = False
        self.step_begun: Callable[[int], None] = lambda _slot: None
        """Told of the next step that begins, by its slot."""
        self.clock_off_seconds = 0.0
        self.said: tuple[str, str] | None = None
        """Phase, and state of the containers, as the kubelet last wrote them."""
        self.was_said_failed = False
        """Whether its phase ever was Failed: one that was never opened may be taken for gone then."""
        self.made_at = asyncio.get_running_loop().time() - node.began
        self.pool = pool
        self.template = (
            (metadata.get("ownerReferences") or [{}])[0].get("uid", ""),
            (metadata.get("annotations") or {}).get(names.TEMPLATE_HASH, ""),
        )
        """UID of its pool, and the hash of the template that it was made from."""
        self.refused = False
        """Whether its node would not have it."""
        self._mounted: dict[str, str] = {}
        self._mounted_until = 0.0
        """The token Secret is looked at again then."""
        self._node = node
        self._worker_tasks: list[asyncio.Task[None] | None] = [None] * len(node.layout)

    # --- what it holds ------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """The agent's state; its journal's while no agent runs."""
        if self.agent is not None and self.agent.alive:
            return self.agent.service.state
        return self.home.journaled()

    def busy(self) -> str | None:
        """Why deleting this Pod would lose something; None if it wouldn't."""
        if self.over or not self.started:
            return None
        try:
            state = self.state()
        except JournalDamagedError:
            return "its journal is damaged"
        if state.phase is Phase.OPEN:
            return "its agent is open"
        held = [slot.task_id for slot in state.slots if slot.state is not SlotState.IDLE]
        if held or state.ended:
            return f"it holds {held}, and has the results of {list(state.ended)}"
        return "a step runs" if self.running else None

    @property
    def is_open(self) -> bool:
        """Whether its agent takes work."""
        return self.agent is not None and self.agent.alive and self.agent.service.state.phase is Phase.OPEN

    @property
    def running(self) -> list[Assignment]:
        """The steps whose processes run."""
        return [disk.running for disk in self.disks if disk.running is not None]

    @property
    def working(self) -> list[int]:
        """The slots whose worker runs a step."""
        return [
            slot
            for slot, (disk, worker) in enumerate(zip(self.disks, self.workers, strict=True))
            if disk.running is not None and worker is not None
        ]

    def now(self) -> datetime:
        """Its machine's wall clock."""
        return self._node.cluster.now() + timedelta(seconds=self.clock_off_seconds)

    # --- its processes ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.started = True
        self.start_agent()
        for slot in range(len(self.workers)):
            self.start_worker(slot)

    def start_agent(self) -> None:
        if self.over or (self.agent is not None and self.agent.alive):
            return
        node = self._node
        self.agent = SimAgent(
            self.home,
            tokens=self.tokens,
            now=self.now,
            rng=node.rng,
            published=lambda state, records: node.published(self, state, records),
            answered=node.answered,
        )
        self.home.outputs.removing = lambda task_id: node.removing(self, task_id)
        node.started(self, self.agent)
        if self.doomed:
            self.agent.service.close()

    def kill_agent(self, *, lose_journal: bool = False) -> None:
        if self.agent is not None and self.agent.alive:
            self.agent.kill()
            self._node.died(self, self.agent)
        if lose_journal:
            self.lost_journals += 1
            self.home.disk.files.clear()

    def start_worker(self, slot: int) -> None:
        task = self._worker_tasks[slot]
        if self.over or (task is not None and not task.done()):
            return
        worker = SimWorker(
            self.disks[slot],
            self.exchange,
            self._node.commands,
            begun=lambda: self.step_begun(slot),
            token=self.home.slot_token(slot),
            now=self.now,
            rng=self._node.rng,
        )
        self.disks[slot].stored = lambda report: self._node.commands.stops.stored(report, worker.run_of_step)
        if self.doomed:
            worker.stop()
        self.workers[slot] = worker
        self._worker_tasks[slot] = self._node.spawn(worker.run())

    def kill_worker(self, slot: int, *, leaves_command: bool = False) -> None:
        """SIGKILL, of the whole container unless its command is to live on for a while."""
        task = self._worker_tasks[slot]
        if task is not None:
            task.cancel()
        self.workers[slot] = None
        if (command := self.disks[slot].command) is not None:
            command.changed = unwatched
            if not leaves_command:
                command.vanish()
                self.disks[slot].clear()

    async def worker_ends(self, slot: int) -> None:
        """Wait until a worker that was told to has ended; after its grace it is killed, with all of its container."""
        task = self._worker_tasks[slot]
        if task is not None:
            await asyncio.wait({task}, timeout=GRACE_SECONDS)
        if task is self._worker_tasks[slot] and not self.over:
            self.kill_worker(slot)

    def kill(self) -> None:
        """Everything ends at once, for good."""
        self.over = True
        self.kill_agent()
        for slot in range(len(self.workers)):
            self.kill_worker(slot)

    async def exchange(self, request: FakeRequest, timeout_seconds: float) -> tuple[int, bytes]:
        """A worker's request to the agent beside it."""
        await asyncio.sleep(self._node.rng.uniform(0.0005, 0.004))
        agent = self.agent
        if agent is None or not agent.alive or self.workers_hang or self._node.loses_message():
            raise AgentUnreachable("nobody listens")
        answer = await agent.run(agent.answer(request), timeout_seconds)
        if self._node.loses_message():
            raise AgentUnreachable("the answer was lost")
        return answer

    def tokens(self) -> dict[str, str]:
        """The mounted Secret."""
        now = asyncio.get_running_loop().time()
        if now >= self._mounted_until:
            secret = self._node.cluster.find(SECRETS, self.namespace, names.token_secret(self.pool))
            if secret is not None:  # what was mounted stays, as it does on a node, when the Secret goes
                self._mounted = {key: base64.b64decode(value).decode() for key, value in tokens_of(secret).items()}
            if (most := self._node.mount_seconds) and self._mounted:
                self._mounted_until = now + self._node.rng.uniform(0.0, most)
        return self._mounted


class SimNode:
    """Takes up every Pod, and takes down those that are deleted."""

    def __init__(
        self,
        cluster: Cluster,
        commands: Commands,
        layout: Layout,
        rng: random.Random,
        *,
        published: Published,
        answered: Answered,
        started: Callable[[SimPod, SimAgent], None],
        died: Callable[[SimPod, SimAgent], None],
        deleting: Callable[[SimPod], None],
        refused: Callable[[SimPod], None],
        removing: Callable[[SimPod, str], None],
        local_loss: Callable[[], float],
    ) -> None:
        self.cluster = cluster
        self.commands = commands
        self.layout = layout
        self.rng = rng
        self.published = published
        self.answered = answered
        self.started = started
        self.died = died
        self.began = asyncio.get_running_loop().time()
        self.pods: dict[str, SimPod] = {}
        """By UID."""
        self.by_address: dict[str, SimPod] = {}
        self._local_loss = local_loss
        self.mount_seconds = 0.0
        """How long a mounted Secret takes at most to show what was written."""
        self.refuses = False
        """Whether the kubelet takes no Pod."""
        self.removing = removing
        self._deleting = deleting
        self._refused = refused
        self._tasks: set[asyncio.Task[Any]] = set()
        self.failures: list[BaseException] = []
        """What ended a worker, or something of the node, by itself: nothing ever should."""
        self._addresses = 0
        cluster.create(NODES, "", {"metadata": {"name": NODE}})
        cluster.observers.append(self._changed)

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if (failure := failure_of(task)) is not None:
            self.failures.append(failure)

    async def stop(self) -> None:
        for pod in self.pods.values():
            pod.kill()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def loses_message(self) -> bool:
        """Whether one between a worker and its agent is lost."""
        rate = self._local_loss()
        return rate > 0 and self.rng.random() < rate

    @property
    def alive(self) -> list[SimPod]:
        """Pods whose processes run."""
        return [pod for pod in self.pods.values() if pod.started and not pod.over]

    def _changed(self, change: Change) -> None:
        if change.record.resource != "pods":
            return
        metadata = change.record.body["metadata"]
        pod = self.pods.get(metadata["uid"])
        if pod is None and change.type is not ChangeType.DELETED:
            address = self._address()
            pod = SimPod(self, metadata, address)
            self.pods[pod.uid] = pod
            self.by_address[address] = pod
            self.spawn(self._bring_up(pod))
        elif pod is not None and (change.type is ChangeType.DELETED or "deletionTimestamp" in metadata):
            self._doom(pod)

    def _address(self) -> str:
        """A new address, or one whose last Pod is gone."""
        free = [address for address, pod in self.by_address.items() if pod.over]
        if free and self.rng.random() < 0.5:
            return self.rng.choice(free)
        self._addresses += 1
        return f"10.0.{self._addresses // 250}.{self._addresses % 250 + 1}"

    def _doom(self, pod: SimPod) -> None:
        if not pod.doomed:
            pod.doomed = True
            self._deleting(pod)
            self.spawn(self._take_down(pod))

    async def _bring_up(self, pod: SimPod) -> None:
        await asyncio.sleep(self.rng.uniform(0.1, 3.0))
        if pod.doomed:
            return
        outcome = self.cluster.store.bind(pod.namespace, pod.name, NODE, now=self.cluster.now())
        self.cluster.published(outcome.changes)
        await asyncio.sleep(self.rng.uniform(0.1, 2.0))
        if self.refuses and not pod.doomed:
            self._refuse(pod)
            return
        while not (pod.doomed or pod.tokens()):  # noqa: ASYNC110 - as a kubelet does until it can mount the Secret
            await asyncio.sleep(1.0)
        if pod.doomed or pod.over:
            return
        pod.start()
        self.write_status(pod, "Running", "running")

    def _refuse(self, pod: SimPod) -> None:
        """As a kubelet does that has no room: it writes the phase, and nothing of any container."""
        pod.over = pod.refused = pod.was_said_failed = True
        self._refused(pod)
        try:
            status = {"phase": "Failed", "reason": "OutOfpods", "message": "Pod was rejected"}
            self.cluster.patch(PODS, pod.namespace, pod.name, {"status": status}, subresource="status")
        except Refusal:
            return

    async def _take_down(self, pod: SimPod) -> None:
        """The grace period: what runs may end; once the kubelet has seen it, the agent takes nothing new."""
        await asyncio.sleep(self.rng.uniform(0.0, 3.0))
        if pod.agent is not None and pod.agent.alive:
            pod.agent.service.close()
        for worker in pod.workers:
            if worker is not None:
                worker.stop()
        for _ in range(int(GRACE_SECONDS)):
            if not pod.running:
                break
            await asyncio.sleep(1.0)
        self.commands.stops.pod_ends(pod)
        await asyncio.sleep(self.rng.uniform(0.1, 4.0))
        if not pod.refused:
            self.end(pod, "Succeeded")
        self.remove(pod)

    def end(self, pod: SimPod, phase: str = "Failed") -> None:
        """Everything ends, and the kubelet says so."""
        pod.kill()
        self.write_status(pod, phase, "terminated")

    def remove(self, pod: SimPod) -> None:
        """The kubelet lets go of a Pod that was deleted."""
        try:
            self.cluster.delete(PODS, pod.namespace, pod.name, DeleteOptions(uid=pod.uid, grace_seconds=0))
        except Refusal:
            return

    def remove_by_force(self, pod: SimPod) -> None:
        """Somebody takes the finalizers off, and deletes the object without waiting for the kubelet."""
        pod.stripped = True
        try:
            self.cluster.patch(PODS, pod.namespace, pod.name, {"metadata": {"uid": pod.uid, "finalizers": None}})
        except Refusal:
            return
        self.remove(pod)

    def write_status(self, pod: SimPod, phase: str, state: str, note: str = "") -> None:
        """What the kubelet knows; `state` is that of every container."""
        found = self.cluster.find(PODS, pod.namespace, pod.name)
        if found is None or found["metadata"]["uid"] != pod.uid:
            return
        running = state == "running"
        pod.said = (phase, state)
        pod.was_said_failed = pod.was_said_failed or phase == "Failed"

        def statuses(containers: list[Object]) -> list[Object]:
            return [
                {
                    "name": container["name"],
                    "image": container.get("image", ""),
                    "imageID": "",
                    "restartCount": 0,
                    "ready": running,
                    "containerID": f"sim://{pod.uid}/{container['name']}",
                    "state": {state: {"exitCode": 0} if state == "terminated" else {}},
                }
                for container in containers
            ]

        status = {
            "phase": phase,
            "podIP": pod.address,
            "podIPs": [{"ip": pod.address}],
            "conditions": [{"type": "Ready", "status": str(running), "message": note}],
            "containerStatuses": statuses(found["spec"]["containers"]),
            "initContainerStatuses": statuses(found["spec"].get("initContainers") or []),
        }
        try:
            self.cluster.patch(PODS, pod.namespace, pod.name, {"status": status}, subresource="status")
        except Refusal:
            return


def failure_of(task: asyncio.Task[Any] | None) -> BaseException | None:
    """What a task ended by."""
    return task.exception() if task is not None and task.done() and not task.cancelled() else None
