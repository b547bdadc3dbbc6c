"""The controller put together: what it knows, what wakes it, and who leads.

`Controller` takes the API, the transport to agents, the clock and randomness from outside; `serve` gives it real ones.
Replicas that stand by follow caches and agents too, so that one that takes over decides at once.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime
from importlib.metadata import version

from prometheus_client import CollectorRegistry

from agent.wire import Step
from controller.act.budgets import Budgets
from controller.act.deployments import Deployments
from controller.act.events import EventRecorder
from controller.act.eviction_answers import EvictionAnswers
from controller.act.handed_over import HandedOverFiles
from controller.act.history import History
from controller.act.locks import Locks
from controller.act.operations import Operations, Result
from controller.act.outputs import TaskOutputs
from controller.act.pod_owners import PodOwners
from controller.act.pods import Pods
from controller.act.pools import ClusterTraits, Images, Pools
from controller.act.tasks import Tasks
from controller.act.tokens import PoolTokens
from controller.act.work_queue import WorkQueue
from controller.agents.client import Stamps
from controller.agents.counted import Counted
from controller.agents.fleet import Fleet, FleetSettings
from controller.agents.tls import AgentTls, OverTls
from controller.agents.transport import Transport
from controller.config import Config
from controller.decide.scaling.size import Reason
from controller.decide.tasks.task_figures import ReservationEnd, task_figures
from controller.errors import NotLeader
from controller.kube.api import Api
from controller.kube.leading import LeadersApi
from controller.kube.rest import Stopwatch
from controller.leader.election import Election
from controller.leader.lease import LeaseSettings
from controller.objects.task import FINAL_PHASES, Task
from controller.passes.loop import Loop, Settings
from controller.passes.pod_starts import PodStarts
from controller.passes.reconcile import Reconciler
from controller.passes.starting import OPERATION_KINDS, Starting
from controller.passes.task_starts import TaskStarts
from controller.passes.waking import Waking
from controller.prometheus.client import Ask
from controller.prometheus.readers import Readers
from controller.version import own_version
from controller.world.caches import Caches
from controller.world.evictions import Evictions
from controller.world.index import Key
from controller.world.protection import Protection
from controller.world.world import World
from metrics.controller import ControllerMetrics
from metrics.pools import PoolLabels

log = logging.getLogger(__name__)

_DEADLINE_RESYNCS = 4
"""A leader that did not look at any pool for so many resyncs hangs: liveness fails."""


class Controller:
    """One replica of the controller: its caches, its loops, and the part of them that only the leader runs."""

    def __init__(
        self,
        config: Config,
        api: Api,
        transport: Transport,
        *,
        now: Callable[[], datetime],
        rng: random.Random,
        random_bytes: Callable[[int], bytes],
        registry: CollectorRegistry,
        over_tls: OverTls | None = None,
        ask: Ask | None = None,
        fleet_settings: FleetSettings | None = None,
        stopwatch: Stopwatch = time.perf_counter,
        page_kept: Callable[[], object] = lambda: None,
    ) -> None:
        self._config = config
        self.election = Election(
            api,
            config.namespace,
            f"{config.identity}_{random_bytes(4).hex()}",
            now=now,
            rng=rng,
            settings=lease_settings(config.lease_seconds),
            version=own_version(),
        )
        self._now = now
        self.metrics = metrics_of(registry, now)
        self.election.subscribe(self.metrics.leads)
        self.metrics.leader.set_function(self.election.may_act)
        self.caches = Caches(api, rng, namespace=config.watch_namespace, stopwatch=stopwatch, page_kept=page_kept)
        self.events = EventRecorder(api, component="podslots-controller", instance=config.identity, now=now, rng=rng)
        leaders = LeadersApi(api, self._may_write)
        owners = PodOwners(leaders, self.caches.pods)
        tokens = PoolTokens(leaders, self.caches.secrets, owners=owners, now=now, random_bytes=random_bytes)
        self.fleet = Fleet(
            Counted(transport, self.metrics.agent_asked),
            tokens=tokens.value,
            stamps=Stamps(self.election.term),
            rng=rng,
            on_change=self._agent_changed,
            secured=Counted.each(AgentTls(api, over_tls).transport, self.metrics.agent_asked) if over_tls else None,
            settings=fleet_settings,
        )
        locks = Locks(leaders, self.caches.leases)
        self.evictions = Evictions(api, rng, namespace=config.watch_namespace, on_change=self._eviction_changed)
        self.queue: WorkQueue[Key] = WorkQueue()
        self.signals = Readers(api, ask, now=now, on_change=self.queue.add)
        self.world = World.of(
            self.caches,
            locks=locks,
            fleet=self.fleet,
            evictions=self.evictions,
            signals=self.signals,
            now=now,
        )
        self.waking = Waking(self.queue, self.world)
        pods = Pods(leaders, self.caches.pods, rng=rng, drain_answered=self._drain_answered)
        tasks = Tasks(
            leaders,
            self.caches.tasks,
            locks,
            self.events,
            outputs=TaskOutputs(leaders),
            handed_over=HandedOverFiles(leaders),
            now=now,
            written=self._task_written,
        )
        pools = Pools(
            leaders,
            self.caches.pools,
            pods=pods,
            tokens=tokens,
            owners=owners,
            budgets=Budgets(leaders, self.caches.budgets),
            events=self.events,
            images=Images(agent=config.agent_image),
            deployments=Deployments(leaders, self.caches.deployments, self.caches.replica_sets, pods=pods, rng=rng),
            traits=ClusterTraits(answers_evictions=lambda: self.evictions.answering, ipv6=config.ipv6),
        )
        history = History(leaders)
        self.caches.pools.subscribe(
            lambda old, new: history.forget(old["metadata"]["uid"]) if old and new is None else None
        )
        self.operations = Operations(rng, ended=self._operation_ended)
        self.metrics.in_flight.set_function(lambda: len(self.operations))
        starting = Starting(self.queue, self.operations)
        task_starts = TaskStarts(starting, self.world, self.queue, pods=pods, tasks=tasks)
        pod_starts = PodStarts(
            starting,
            self.world,
            self.queue,
            pods=pods,
            pools=pools,
            answers=EvictionAnswers(leaders, self.evictions.note),
            task_starts=task_starts,
            now=now,
        )
        self.protection = Protection(api, self.waking.wake_all)
        self.reconciler = Reconciler(
            self.world,
            self.queue,
            starting,
            self.protection,
            pod_starts=pod_starts,
            task_starts=task_starts,
            tasks=tasks,
            pools=pools,
            history=history,
            shown=self.metrics.pools,
        )
        self.loop = Loop(
            self.reconciler,
            self.queue,
            self.world,
            observe=self.metrics.passed,
            settings=Settings(resync_seconds=config.resync_seconds),
            stopwatch=stopwatch,
        )
        self.waking.follow(self.caches)

    def _may_write(self) -> None:
        if not self.election.may_act():
            raise NotLeader("this replica does not hold the Lease")

    def _operation_ended(self, key: str, result: Result) -> None:
        self.metrics.operations[key.partition("/")[0], result].inc()

    def _drain_answered(self, pool: Key, granted: bool) -> None:
        self.metrics.pools.drained(pool, granted=granted)

    def _task_written(self, before: Task, after: Task) -> None:
        self.metrics.pools.task_written((after.namespace, after.spec.pool), task_figures(before, after, self._now()))

    def _agent_changed(self, pod_uid: str) -> None:
        self.waking.agent_changed(pod_uid)

    def _eviction_changed(self, pod_uid: str) -> None:
        self.waking.eviction_changed(pod_uid)

    # --- running ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Watch, stand for election, and reconcile while leading. Cancel it to stop; the Lease is released then."""
        try:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(self.fleet)
                stack.callback(self.queue.close)
                group = await stack.enter_async_context(asyncio.TaskGroup())
                for reflector in self.caches.reflectors:
                    group.create_task(reflector.run(), name=f"watch {reflector.cache.resource.plural}")
                group.create_task(self.events.run(), name="events")
                group.create_task(self.protection.run(), name="protection")
                group.create_task(self.signals.run(), name="signals")
                if self._config.eviction_responder:
                    group.create_task(self.evictions.run(), name="evictions")
                group.create_task(self.election.run(), name="election")
                group.create_task(self._lead(), name="lead")
        finally:
            try:
                await self.operations.stop()
            finally:
                await self.election.release()
                await self.events.flush(1.0)  # no deed: the next leader need not wait for it

    async def _lead(self) -> None:
        for reflector in self.caches.reflectors:
            await reflector.wait_synced()
        if self._config.eviction_responder:
            await self.evictions.looked.wait()
        while True:
            await self.election.wait(leading=True)
            reign = asyncio.create_task(self._reign(), name="reconcile")
            lost = asyncio.create_task(self.election.wait(leading=False), name="wait for the end of leadership")
            try:
                await asyncio.wait({reign, lost}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (reign, lost):
                    task.cancel()
                results = await asyncio.gather(reign, lost, return_exceptions=True)
                await self.operations.stop()
                # Otherwise this process would go on to expose its old values beside those of the next leader.
                self.metrics.pools.clear()
                self.world.sizes.forget_all()
                self.signals.forget_all()
            for result in results:
                if isinstance(result, Exception):
                    raise result

    async def _reign(self) -> None:
        """Reconcile, once everything is known that earlier leaders have written: a watch may be behind that."""
        await asyncio.gather(*(reflector.refresh() for reflector in self.caches.reflectors))
        await self.loop.run()

    @property
    def watches(self) -> str | None:
        """The only namespace that is looked after; None: all."""
        return self._config.watch_namespace

    @property
    def synced(self) -> bool:
        """Whether everything was read at least once."""
        return self.world.index.synced

    def healthy(self) -> bool:
        """Whether the loop that should run does: a leader looks at its pools."""
        last = self.loop.last_pass
        if not self.election.may_act() or last is None or not self.world.index.pool_keys():
            return True
        return asyncio.get_running_loop().time() - last < _DEADLINE_RESYNCS * self._config.resync_seconds


def metrics_of(registry: CollectorRegistry, now: Callable[[], datetime]) -> ControllerMetrics:
    """The families of a controller, with every value that their labels can have."""
    return ControllerMetrics(
        registry,
        version=version("podslots"),
        operations=OPERATION_KINDS,
        results=Result,
        pools=PoolLabels(reasons=Reason, phases=sorted(FINAL_PHASES), steps=Step, reservation_ends=ReservationEnd),
        now=lambda: now().timestamp(),
    )


def lease_settings(lease_seconds: float) -> LeaseSettings:
    """Renew deadline and retry in the proportions that Kubernetes' own components use (15, 10, 2)."""
    return LeaseSettings(
        lease_duration_seconds=lease_seconds,
        renew_deadline_seconds=lease_seconds * 2 / 3,
        retry_seconds=lease_seconds * 2 / 15,
        look_seconds=min(0.5, lease_seconds / 30),
    )
