"""The node's kubelet: one `PodWorker` for each Pod bound to it, fed by watches.

A program that a Pod runs is a process of this machine, on an address of its own. It outlives this kubelet: `start`
takes over what runs, `stop` ends it or leaves it.
"""

import asyncio
import json
import logging
import random
import shutil
import ssl
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp

from controller.local.node.addresses import (
    AddressesExhaustedError,
    AddressPool,
    Network,
    NetworkTakenError,
    claim,
    claim_any,
)
from controller.local.node.admission import Admission
from controller.local.node.client import ApiClient, Key, Reflector
from controller.local.node.config import KubeletConfig
from controller.local.node.events import EventRecorder
from controller.local.node.node import NodeAgent, NodeController
from controller.local.node.node_context import NodeContext
from controller.local.node.node_faults import NodeFaults
from controller.local.node.pods.container_slot import ContainerSlot
from controller.local.node.pods.containers import shim_command
from controller.local.node.pods.log_times import LogClock
from controller.local.node.pods.pod_logs import PodLogs
from controller.local.node.pods.pod_spec import Json
from controller.local.node.pods.pod_worker import PodWorker
from controller.local.node.pods.volumes import AtomicWriter
from controller.local.node.scheduler import Scheduler
from controller.local.node.short_paths import ShortPaths
from controller.local.node.taints import TaintEvictions

CLAIM_PATIENCE_SECONDS = 2.0  # an earlier process of this cluster may still be on its way out
RESPAWN_SECONDS = 1.0
RESCHEDULE_SECONDS = 1.0
_KINDS = {"Secret": "/api/v1/secrets", "ConfigMap": "/api/v1/configmaps"}
_log = logging.getLogger(__name__)


class Kubelet:
    """One node, with its scheduler and node controller. Keeps all it must remember under `folder`."""

    def __init__(self, config: KubeletConfig, folder: Path, *, now: Callable[[], datetime], rng: random.Random) -> None:
        self.config = config
        self.faults = NodeFaults()
        self.log_source = PodLogs(self._find_slot)
        self.node_ip = ""
        self._folder = folder
        self._now = now
        self._rng = rng
        self._exit = AsyncExitStack()
        self._loops: list[asyncio.Task[None]] = []
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._names: dict[Key, str] = {}  # the UID that a name stood for last
        self._reschedule = asyncio.Event()
        self._stopping = False
        self._loaded = False

    # Life.

    async def start(self, url: str, *, token: str, scheduler_token: str, tls: ssl.SSLContext | None = None) -> None:
        """Take over what an earlier kubelet left, and begin. Returns when the node is registered."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._folder / "pods").mkdir(exist_ok=True)
        self._short_paths = ShortPaths(self._folder / "short-paths")
        self._pool = await self._claim_network()
        self.node_ip = self._pool.network.node_ip
        timeout = aiohttp.ClientTimeout(total=None)
        http = await self._exit.enter_async_context(self._session(timeout, tls))
        # Probes share no connections: a program's restart must not be seen through an old one.
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        probe_http = await self._exit.enter_async_context(aiohttp.ClientSession(connector=connector))
        client = ApiClient(http, url, token)
        scheduler_client = ApiClient(http, url, scheduler_token)
        name = self.config.node_name
        self._events = EventRecorder(client, "kubelet", name, now=self._now, rng=self._rng)
        scheduler_events = EventRecorder(scheduler_client, "default-scheduler", name, now=self._now, rng=self._rng)
        self._scheduler = Scheduler(scheduler_client, scheduler_events, name)
        self._pods = Reflector(client, "/api/v1/pods", self._pod_changed, rng=self._rng)
        self._nodes = Reflector(client, "/api/v1/nodes", self._node_changed, rng=self._rng)
        self._objects = {
            kind: Reflector(client, path, self._object_changed, rng=self._rng) for kind, path in _KINDS.items()
        }
        self._context = NodeContext(
            config=self.config,
            client=client,
            http=probe_http,
            events=self._events,
            faults=self.faults,
            writer=AtomicWriter(self._now, self._rng),
            now=self._now,
            rng=self._rng,
            objects=self._object,
            shim=shim_command(self._folder),
            pods_folder=self._folder / "pods",
            short_paths=self._short_paths,
            node_ip=self.node_ip,
        )
        self._admission = Admission(client, self._events, self.faults, now=self._now)
        self._exit.push_async_callback(self._admission.close)
        evictions = TaintEvictions(scheduler_client, scheduler_events, self._pods, now=self._now)
        agent = NodeAgent(client, self.config, self.faults, node_ip=self.node_ip, now=self._now)
        reflectors = [self._pods, self._nodes, *self._objects.values()]
        self._loop("node", agent.run())
        self._loop("node controller", NodeController(scheduler_client, self.config, self.faults, self._now).run())
        self._loop("events", self._events.run())
        self._loop("scheduler events", scheduler_events.run())
        for reflector in reflectors:
            self._loop("reflector", reflector.run())
        for reflector in reflectors:
            await reflector.synced.wait()
        self._load()
        self._loop("scheduler", self._schedule_forever())
        self._loop("log times", LogClock(self._live_logs).run())
        self._loop("taints", evictions.run(lambda: self._nodes.objects.get(("", name))))
        await agent.registered.wait()

    def _session(self, timeout: aiohttp.ClientTimeout, tls: ssl.SSLContext | None) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=0, ssl=tls or True)
        return aiohttp.ClientSession(timeout=timeout, connector=connector)

    async def wait_failed(self) -> None:
        """Return never; raise what made one of the kubelet's loops fail."""
        done, _ = await asyncio.wait(self._loops, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
            raise RuntimeError(f"{task.get_name()} ended")

    async def stop(self, *, keep_pods: bool) -> None:
        """End. Pods are left running, or ended within the configured grace; their objects stay in either case."""
        if self._stopping:
            return
        self._stopping = True
        if not keep_pods:
            self.faults.thaw()
            for worker in self._workers.values():
                worker.shut_down(self.config.stop_grace_seconds)
            if self._tasks:
                await asyncio.wait(list(self._tasks.values()))
        tasks = [*self._tasks.values(), *self._loops]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._exit.aclose()
        if not keep_pods:
            self._short_paths.remove()

    def hurry(self) -> None:
        """While stopping: do not wait for the grace any longer."""
        for worker in self._workers.values():
            worker.shut_down(0.0)

    # For tests and drills.

    def slot(self, namespace: str, pod: str, container: str) -> ContainerSlot | None:
        """A container of a Pod that has an object or had one last."""
        worker = self._workers.get(self._names.get((namespace, pod), ""))
        return None if worker is None else worker.slot(container)

    def kill(self, namespace: str, pod: str, container: str, number: int) -> None:
        """Signal a container's main process. LookupError if it does not run."""
        slot = self.slot(namespace, pod, container)
        if slot is None or slot.attempt is None or not slot.attempt.send(number):
            raise LookupError(f"container {container} of Pod {namespace}/{pod} does not run")

    def status(self) -> dict[str, Any]:
        """What the node does, for people."""
        return {
            "node": self.config.node_name,
            "network": f"{self._pool.network.prefix}.0/24",
            "frozen": self.faults.frozen,
            "lost": self.faults.lost,
            "start_delays": self.faults.start_delays,
            "refuse_pods": {pattern: given.to_json() for pattern, given in self.faults.refused_pods.items()},
            "fail_starts": {pattern: given.to_json() for pattern, given in self.faults.failing_starts.items()},
            "missing_images": list(self.faults.missing_images),
            "pods": [
                {"namespace": w.spec.namespace, "name": w.spec.name, "uid": w.spec.uid, "ip": w.ip}
                for w in self._workers.values()
            ],
        }

    # Pods.

    def _load(self) -> None:
        """Take over the Pods found on disk, then those the API has for us."""
        records: list[tuple[str, Json]] = []
        for folder in (self._folder / "pods").iterdir():
            try:
                record = json.loads((folder / "pod.json").read_bytes())
            except FileNotFoundError:  # killed before the Pod's first container
                shutil.rmtree(folder, ignore_errors=True)
                continue
            records.append((record["ip"], record["pod"]))
        self._pool.adopt(ip for ip, _ in records)
        self._loaded = True
        bound = {pod["metadata"]["uid"] for pod in self._pods.objects.values()}
        for ip, pod in records:
            worker = PodWorker(self._context, pod, ip)
            worker.vanished = worker.spec.uid not in bound
            self._names[worker.spec.namespace, worker.spec.name] = worker.spec.uid
            self._start_worker(worker)
        for key in {*self._pods.objects, *self._names}:
            self._reconcile(key)

    def _pod_changed(self, key: Key, _: Json | None) -> None:
        self._reschedule.set()
        if self._loaded:
            self._reconcile(key)

    def _reconcile(self, key: Key) -> None:
        """Bring one name's Pod and its worker together."""
        if self._stopping:
            return
        pod = self._pods.objects.get(key)
        uid = "" if pod is None else pod["metadata"]["uid"]
        before = self._names.get(key)
        if before is not None and before != uid:
            if before in self._workers:
                self._workers[before].saw(None)
            del self._names[key]
        if pod is None or pod["spec"].get("nodeName") != self.config.node_name:
            return
        self._names[key] = uid
        if uid in self._workers:
            self._workers[uid].saw(pod)
            return
        if self._admission.refuses(pod):
            return
        try:
            ip = self.node_ip if pod["spec"].get("hostNetwork") else self._take_address()
        except AddressesExhaustedError as error:
            self._events.pod(pod, "FailedCreatePodSandBox", str(error), warning=True)
            return
        self._start_worker(PodWorker(self._context, pod, ip))

    def _start_worker(self, worker: PodWorker, *, after_seconds: float = 0.0) -> None:
        """Have it live from `after_seconds` on. It is told from now on what becomes of its Pod."""
        spec = worker.spec
        self._workers[spec.uid] = worker

        async def live() -> None:
            await asyncio.sleep(after_seconds)
            await worker.run()

        task = asyncio.get_running_loop().create_task(live(), name=f"pod {spec.namespace}/{spec.name}")
        self._tasks[spec.uid] = task
        task.add_done_callback(lambda done: self._worker_ended(worker, done))

    def _worker_ended(self, worker: PodWorker, task: asyncio.Task[None]) -> None:
        spec = worker.spec
        del self._tasks[spec.uid], self._workers[spec.uid]
        if task.cancelled() or self._stopping:
            return
        if error := task.exception():
            _log.error("Pod worker failed: pod=%s", spec.name, exc_info=error)
            again = PodWorker(self._context, worker.pod, worker.ip)
            again.vanished = worker.vanished
            self._start_worker(again, after_seconds=RESPAWN_SECONDS)
            return
        if worker.ip != self.node_ip:
            self._pool.free(worker.ip)
        for key in list(self._pods.objects):  # one that got no address may get this one
            self._reconcile(key)

    def _object(self, kind: str, namespace: str, name: str) -> Json | None:
        return self._objects[kind].objects.get((namespace, name))

    def _object_changed(self, key: Key, _: Json | None) -> None:
        for worker in self._workers.values():
            if worker.spec.namespace == key[0]:
                worker.saw_objects()

    def _node_changed(self, *_: object) -> None:
        self._reschedule.set()

    async def _schedule_forever(self) -> None:
        while True:
            self._reschedule.clear()
            settled = await self._scheduler.schedule(
                self._pods.objects, self._nodes.objects.get(("", self.config.node_name))
            )
            try:
                async with asyncio.timeout(None if settled else RESCHEDULE_SECONDS):
                    await self._reschedule.wait()
            except TimeoutError:
                continue

    def _find_slot(self, namespace: str, pod: str, pod_uid: str, container: str) -> ContainerSlot | None:
        del namespace, pod  # the UID says it all
        worker = self._workers.get(pod_uid)
        return None if worker is None else worker.slot(container)

    def _live_logs(self) -> Iterator[Path]:
        for worker in self._workers.values():
            yield from worker.live_logs()

    # Addresses.

    async def _claim_network(self) -> AddressPool:
        """The network of before, as containers may still use it; else a new one."""
        loop = asyncio.get_running_loop()
        path = self._folder / "network.json"
        if not path.exists():
            network, listener = claim_any(self._rng)
            self._exit.callback(listener.close)
            pool = AddressPool(network)
            self._save_network(pool)
            return pool
        record = json.loads(path.read_text())
        pool = AddressPool(Network(record["prefix"]), last=record["last"])
        deadline = loop.time() + CLAIM_PATIENCE_SECONDS
        while True:
            try:
                self._exit.callback(claim(pool.network).close)
            except NetworkTakenError:
                if loop.time() > deadline:
                    raise
                await asyncio.sleep(0.1)
            else:
                return pool

    def _take_address(self) -> str:
        address = self._pool.take()
        self._save_network(self._pool)
        return address

    def _save_network(self, pool: AddressPool) -> None:
        path = self._folder / "network.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"prefix": pool.network.prefix, "last": pool.last}))
        temporary.rename(path)

    def _loop(self, name: str, work: Any) -> None:
        self._loops.append(asyncio.get_running_loop().create_task(work, name=name))
