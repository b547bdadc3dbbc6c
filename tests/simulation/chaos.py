"""Mishaps: crashes, pauses, partitions, full disks, clocks that jump; and their mending."""

import asyncio
import json
import random
from collections.abc import Callable, Coroutine
from typing import Any

from agent.wire import Step
from controller.errors import AgentUnreachable
from controller.kube.api import PODS
from tests.simulation.agent import MemoryDisk
from tests.simulation.faults import MISHAPS
from tests.simulation.node import SimPod
from tests.simulation.prometheus import LIES, LOSSES
from tests.simulation.replica import Fate, Replica, Trap
from tests.simulation.themes import Theme
from tests.simulation.worker import SlotDisk
from tests.simulation.world import World

PAUSES = (0.2, 0.5, 0.95, 1.4, 2.7, 5.4)
"""How long a leader is held up at a write, in durations of its lease: from one on, another leads meanwhile."""


class Chaos:
    """Mishaps, one after the other, until `stop`; then everything that was broken is mended."""

    def __init__(self, world: World, theme: Theme) -> None:
        self._world = world
        self._traps = theme.traps
        """Where a leader is stopped on purpose: between two writes is where order matters."""
        self._rng = random.Random(f"{world.seed}/chaos")
        self._mending: set[asyncio.Task[None]] = set()
        self._kinds: list[tuple[str, Callable[[], Coroutine[Any, Any, None] | None]]] = [
            (name, getattr(self, f"_{name.replace(' ', '_')}")) for name in world.faults.mishaps or MISHAPS
        ]

    async def run(self) -> None:
        """Until cancelled."""
        mean = self._world.faults.mishap_seconds
        while mean:
            await asyncio.sleep(self._rng.expovariate(1 / mean))
            name, happen = self._rng.choice(self._kinds)
            self._world.rules.note(f"--- {name}")
            mending = happen()
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
        pod.kill_worker(slot, leaves_command=self._rng.random() < 0.5)

        async def mend() -> None:
            await asyncio.sleep(self._rng.uniform(0.1, 20.0))
            pod.start_worker(slot)

        return mend()

    def _worker_dies_at_a_start(self) -> Coroutine[Any, Any, None] | None:
        """Its next step has begun, and nobody has heard of that."""
        pod = self._pod()
        if pod is None:
            return None
        begun = asyncio.get_running_loop().create_future()

        def caught(slot: int) -> None:
            pod.step_begun = lambda _slot: None
            pod.workers_hang = True
            begun.set_result(slot)

        async def mend() -> None:
            pod.step_begun = caught
            await asyncio.wait({begun}, timeout=60.0)
            pod.step_begun = lambda _slot: None
            if begun.done():
                await asyncio.sleep(self._rng.uniform(0.0, 0.5))
                pod.kill_worker(begun.result())
                await asyncio.sleep(self._rng.uniform(0.1, 5.0))
                pod.start_worker(begun.result())
                pod.workers_hang = False

        return mend()

    def _prometheus_gives_no_answer(self) -> Coroutine[Any, Any, None] | None:
        return self._trouble_prometheus(LOSSES)

    def _prometheus_lies(self) -> Coroutine[Any, Any, None] | None:
        return self._trouble_prometheus(LIES)

    def _trouble_prometheus(self, kinds: tuple[str, ...]) -> Coroutine[Any, Any, None] | None:
        prometheus = self._world.prometheus
        if prometheus.trouble:
            return None
        prometheus.begin(self._rng.choice(kinds))
        self._world.rules.note(f"prometheus: {prometheus.trouble}")

        async def mend() -> None:
            await asyncio.sleep(self._rng.uniform(20.0, 400.0))
            prometheus.end()

        return mend()

    def _worker_is_told_to_end(self) -> Coroutine[Any, Any, None] | None:
        """Its container is to start anew, its Pod stays. What it stops may be told by the next one only."""
        working = [(pod, slot) for pod in self._world.node.alive for slot in pod.working if not pod.doomed]
        if not working:
            return None
        pod, slot = self._rng.choice(working)
        worker = pod.workers[slot]
        assert worker is not None
        worker.stop()
        unheard = self._rng.random() < 0.5
        pod.workers_hang = pod.workers_hang or unheard

        async def mend() -> None:
            await pod.worker_ends(slot)
            await asyncio.sleep(self._rng.uniform(0.1, 5.0))
            pod.start_worker(slot)
            await asyncio.sleep(self._rng.uniform(0.1, 5.0))
            if unheard:
                pod.workers_hang = False

        return mend()

    def _worker_dies_while_it_stops_a_step(self) -> Coroutine[Any, Any, None] | None:
        """Or when it has, and nobody has heard of that."""
        late = self._rng.uniform(0.0, 2.0)
        leaves_command = self._rng.random() < 0.5

        def stopping() -> tuple[SimPod, int] | None:
            for pod in self._world.node.alive:
                for slot, worker in enumerate(pod.workers):
                    if worker is not None and worker.run_of_step is not None and worker.run_of_step.signals:
                        return pod, slot
            return None

        async def mend() -> None:
            for _ in range(120):
                if stopping() is not None:
                    break
                await asyncio.sleep(0.5)
            await asyncio.sleep(late)
            found = stopping()
            if found is not None:
                pod, slot = found
                pod.kill_worker(slot, leaves_command=leaves_command)
                await asyncio.sleep(self._rng.uniform(0.1, 20.0))
                pod.start_worker(slot)

        return mend()

    def _a_pod_is_deleted_while_it_works(self) -> None:
        """Past all protection; its grace is left to it."""
        busy = [pod for pod in self._world.node.alive if pod.running and not pod.doomed]
        if busy:
            pod = self._rng.choice(busy)
            self._world.taken_by_force.add(pod.uid)
            self._world.cluster.delete(PODS, pod.namespace, pod.name)

    def _worker_is_paused(self) -> Coroutine[Any, Any, None] | None:
        pod = self._pod()
        worker = self._rng.choice(pod.workers) if pod is not None else None
        if worker is None:
            return None
        worker.pause()

        async def mend() -> None:
            await asyncio.sleep(self._rng.uniform(1.0, 60.0))
            worker.go_on()

        return mend()

    def _a_plan_is_edited(self) -> None:
        """While it waits for its approval: then it must not be applied any more."""
        for pod in self._world.node.alive:
            for disk in pod.disks:
                waiting = [entry for entry in disk.entries.values() if entry.exit and entry.exit.plan_digest]
                if waiting:
                    disk.edited.add(self._rng.choice(waiting).assignment.task_id)

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
        disks: list[MemoryDisk | SlotDisk] = [pod.home.disk, *pod.disks]
        for disk in disks:
            disk.full = True

        async def mend() -> None:
            await asyncio.sleep(self._rng.uniform(0.1, 30.0))
            for disk in disks:
                disk.full = False

        return mend()

    def _disk_fails_to_sync(self) -> Coroutine[Any, Any, None] | None:
        """What is written may be there or not, and every sync says that it failed."""
        pod = self._pod()
        if pod is None:
            return None
        pod.home.disk.unsynced = True

        async def mend() -> None:
            await asyncio.sleep(self._rng.uniform(0.1, 20.0))
            pod.home.disk.unsynced = False

        return mend()

    def _leader_is_paused_at_a_write(self) -> None:
        verb, what = self._rng.choice(self._traps)
        fate = self._rng.choice([Fate.PAUSED, Fate.HELD_UP])
        self._leader().trap = Trap(verb, what, fate, self._world.lease_seconds * self._rng.choice(PAUSES))

    def _leader_dies_at_a_write(self) -> Coroutine[Any, Any, None]:
        replica = self._leader()
        verb, what = self._rng.choice(self._traps)
        replica.trap = Trap(verb, what, Fate.DIES)

        async def mend() -> None:
            await asyncio.sleep(self._rng.uniform(5.0, 40.0))
            await replica.kill()
            replica.start()

        return mend()

    def _leader_has_no_API(self) -> Coroutine[Any, Any, None]:  # noqa: N802 - named after its mishap
        replica = self._leader()
        replica.has_api = False

        async def mend() -> None:
            await asyncio.sleep(self._rng.uniform(1.0, 60.0))
            replica.has_api = True

        return mend()

    def _watches_stall(self) -> Coroutine[Any, Any, None]:
        replica = self._rng.choice(self._world.replicas)
        replica.watches_stall = True

        async def mend() -> None:
            await asyncio.sleep(self._rng.uniform(1.0, 60.0))
            replica.watches_stall = False

        return mend()

    def _a_clock_jumps(self) -> Coroutine[Any, Any, None] | None:
        """Forward or back; in the end somebody sets it right."""
        pod, most = self._pod(), self._world.faults.skew_seconds or 30.0
        whose: Replica | SimPod = pod if pod is not None and self._rng.random() < 0.5 else self._leader()
        whose.clock_off_seconds = self._rng.uniform(-most, most)

        async def mend() -> None:
            await asyncio.sleep(self._rng.uniform(10.0, 100.0))
            whose.clock_off_seconds = 0.0

        return mend()

    def _an_old_message_comes_again(self) -> Coroutine[Any, Any, None] | None:
        """Somebody repeats by hand, without a stamp, an acquire that ended and was acknowledged."""
        networks = [replica.network for replica in self._world.replicas if replica.network is not None]
        taken = [message for network in networks for message in network.taken]
        over = [message for message in taken if self._is_over(message[0], json.loads(message[3]))]
        if not over:
            return None
        address, target, headers, body = self._rng.choice(over)
        sent = {name: value for name, value in json.loads(body).items() if name not in {"stamp", "incarnation"}}
        agent = self._world.node.by_address[address].agent
        if agent is None:
            return None

        async def repeat() -> None:
            try:
                await agent.run(agent.request("POST", target, headers, json.dumps(sent).encode()), 10.0)
            except AgentUnreachable:
                return

        return repeat()

    def _is_over(self, address: str, sent: dict[str, Any]) -> bool:
        pod = self._world.node.by_address.get(address)
        if pod is None or pod.over or pod.uid != sent["pod_uid"] or pod.lost_journals:
            return False
        return self._world.rules.was_acked(pod.uid, sent["task_id"])

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
        """Somebody takes the object away, finalizer and all; its processes run on for a while.

        Worst while something is applied.
        """
        applying = [pod for pod in self._world.node.alive if any(step.step is Step.APPLY for step in pod.running)]
        pod = self._rng.choice(applying) if applying and self._rng.random() < 0.7 else self._pod()
        if pod is None or pod.doomed or self._rng.random() < 0.5:
            return None
        self._world.taken_by_force.add(pod.uid)
        pod.doomed = True
        self._world.node.remove_by_force(pod)

        async def mend() -> None:
            await asyncio.sleep(self._rng.uniform(1.0, 60.0))
            pod.kill()

        return mend()

    def _pod_is_deleted_by_force(self) -> None:
        """`kubectl delete --force`: our finalizer keeps the object, and the kubelet ends everything."""
        pod = self._pod()
        if pod is not None:
            self._world.taken_by_force.add(pod.uid)
            self._world.node.remove(pod)

    def _a_pod_goes_while_nobody_looks(self) -> Coroutine[Any, Any, None] | None:
        """A drained node: no controller runs, a Pod is deleted, and its kubelet is done before one is back."""
        busy = [pod for pod in self._world.node.alive if pod.running and not pod.doomed]
        pod = self._rng.choice(busy) if busy else self._pod()
        if pod is None:
            return None
        pods, replicas = self._world.cluster, self._world.replicas

        async def mend() -> None:
            for replica in replicas:
                await replica.kill()
            await asyncio.sleep(self._rng.uniform(0.1, 2.0))
            if pods.find(PODS, pod.namespace, pod.name) is not None and not pod.doomed:
                self._world.taken_by_force.add(pod.uid)
                pods.delete(PODS, pod.namespace, pod.name)
            await asyncio.sleep(self._rng.uniform(20.0, 100.0))
            for replica in replicas:
                replica.start()

        return mend()

    def _node_refuses_pods(self) -> Coroutine[Any, Any, None]:
        """It is full, or so it says: each Pod that comes has failed at once."""
        self._world.node.refuses = True

        async def mend() -> None:
            await asyncio.sleep(self._rng.uniform(20.0, 100.0))
            self._world.node.refuses = False

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
