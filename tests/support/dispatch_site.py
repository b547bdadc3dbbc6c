"""SlotTasks in memory, agents without a loop, and replicas that work on both. For tests step by step."""

import random
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from agent.rules import slots
from controller import names
from controller.act.events import EventRecorder
from controller.act.handed_over import HandedOverFiles
from controller.act.locks import Locks
from controller.act.outputs import TaskOutputs
from controller.act.tasks import Tasks
from controller.agents.client import AgentClient, Stamps
from controller.decide.view import PodState, PodView
from controller.kube.api import LEASES, SLOTTASKS, Object, Resource
from controller.kube.cache import Cache
from controller.kube.leading import LeadersApi
from controller.objects.ended_task import EndedTask
from controller.objects.pool import OutputLimits
from controller.objects.task import Task, TaskPhase
from tests.support.machine_agent import MOMENT, GuardedStamps, MachineAgent
from tests.support.memory_api import MemoryApi

NS = "ns"
TTL_SECONDS = 3600
LIMITS = OutputLimits(max_bytes=4000, waiting_max_bytes=8000)
T = TypeVar("T")

STEPS: dict[str, Any] = {
    "plan": {"plan": {"command": ["terraform", "plan"]}},
    "apply": {"apply": {"command": ["terraform", "apply"]}},
    "plan_and_apply": {"plan": {"command": ["terraform", "plan"]}, "apply": {"command": ["terraform", "apply"]}},
}


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing to its end."""
    try:
        while True:
            coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result


def task_object(name: str = "t", kind: str = "plan_and_apply", status: Object | None = None, **spec: Any) -> Object:
    return {
        "apiVersion": SLOTTASKS.api_version,
        "kind": SLOTTASKS.kind,
        "metadata": {
            "name": name,
            "namespace": NS,
            "uid": f"uid-{name}",
            "generation": 1,
            "creationTimestamp": "2026-03-01T11:00:00Z",
            "finalizers": [names.TASK_FINALIZER],
        },
        "spec": {"pool": "pool", "type": kind, "steps": STEPS[kind], **spec},
        **({"status": status} if status else {}),
    }


class DispatchSite:
    """The cluster as far as tasks go."""

    def __init__(self, *agents: str) -> None:
        self.api = MemoryApi()
        self.agents = {name: MachineAgent(name) for name in agents or ("p",)}
        self.stamps = {term: Stamps(partial(int, term)) for term in range(1, 4)}
        for agent in self.agents.values():
            agent.execute(slots.Open(drain_id="born"))

    @property
    def agent(self) -> MachineAgent:
        """The first one."""
        return next(iter(self.agents.values()))

    def add(self, name: str = "t", kind: str = "plan_and_apply", **given: Any) -> Task:
        return Task.parse(self.api.put(SLOTTASKS, task_object(name, kind, **given)))

    def task(self, name: str = "t") -> Task:
        """A task as it is now."""
        return Task.parse(self.api.objects[SLOTTASKS, NS, name])

    def phase(self, name: str = "t") -> TaskPhase:
        return self.task(name).status.phase

    def edit(self, name: str = "t", **spec: Any) -> Task:
        """A person's edit."""
        document = self.api.objects[SLOTTASKS, NS, name]
        return Task.parse(self.api.put(SLOTTASKS, {**document, "spec": {**document["spec"], **spec}}))

    def lock(self, key: str) -> str | None:
        """Who holds a lockKey."""
        lease = self.api.objects.get((LEASES, NS, names.lock_lease(key)))
        return lease["spec"]["holderIdentity"] if lease else None

    def pod(self, name: str | None = None) -> PodView:
        agent = self.agents[name] if name else self.agent
        return PodView(
            name=agent.pod,
            uid=agent.uid,
            resource_version="1",
            state=PodState.ACTIVE,
            created=MOMENT,
            running=True,
            ready=True,
            agent=agent.view(),
            connected=True,
        )

    def holders(self, uid: str) -> list[str]:
        """The Pods whose agents hold a task, in any attempt."""
        return [name for name, agent in self.agents.items() for held in agent.held if held.startswith(f"{uid}.")]

    def before_api(self, hook: Callable[[str, Resource, str], Awaitable[None]]) -> None:
        self.api.before = hook

    def replica(self, term: int = 1, may_write: Callable[[], None] = lambda: None) -> "DispatchReplica":
        return DispatchReplica(self, term, may_write)


class DispatchReplica:
    """One controller's `Tasks` with caches and clients of its own."""

    def __init__(self, site: DispatchSite, term: int, may_write: Callable[[], None]) -> None:
        self.site = site
        self.tasks = Cache(SLOTTASKS)
        self.leases = Cache(LEASES)
        api = LeadersApi(site.api, may_write)
        self.locks = Locks(api, self.leases)
        self.events = EventRecorder(site.api, component="c", instance="i", now=lambda: MOMENT, rng=random.Random(term))
        self.writer = Tasks(
            api,
            self.tasks,
            self.locks,
            self.events,
            outputs=TaskOutputs(api),
            handed_over=HandedOverFiles(api),
            now=lambda: MOMENT,
        )
        self.clients: dict[str, AgentClient] = {
            name: agent.client(stamps=GuardedStamps(site.stamps[term], may_write))
            for name, agent in site.agents.items()
        }

    async def assign(self, task: Task, pod: PodView | None = None) -> None:
        pod = pod or self.site.pod()
        await self.writer.assign(task, pod, self.clients[pod.name], reservation_ttl_seconds=TTL_SECONDS)

    async def ask_again(self, task: Task, pod: PodView | None = None) -> None:
        pod = pod or self.site.pod()
        await self.writer.ask_again(task, pod, self.clients[pod.name], reservation_ttl_seconds=TTL_SECONDS)

    async def follow(self, task: Task, pod: PodView | None = None) -> None:
        pod = pod or self.site.pod()
        await self.writer.follow(task, pod, self.clients[pod.name], limits=LIMITS)

    async def approve(self, task: Task, pod: PodView | None = None) -> None:
        pod = pod or self.site.pod()
        await self.writer.approve(task, pod, self.clients[pod.name])

    async def cancel(self, task: Task, pod: PodView | None = None) -> None:
        pod = pod or self.site.pod()
        await self.writer.cancel(task, pod, self.clients[pod.name])

    async def settle_orphan(self, task_id: str, pod: PodView | None = None) -> None:
        pod = pod or self.site.pod()
        await self.writer.acks.settle_orphan(task_id, pod, self.clients[pod.name], limits=LIMITS)

    async def ack_ended(self, task: Task, pod: PodView | None = None) -> None:
        pod = pod or self.site.pod()
        await self.writer.acks.ack_ended(EndedTask.of(task), pod, self.clients[pod.name], limits=LIMITS)

    def said(self) -> list[str]:
        """The reasons of the events that wait to be written."""
        return [key[1] for key in self.events._waiting]
