"""A cluster in memory for a real `Controller`: thousands of objects, made as they are read, and agents without sockets.

Objects that were never written are made from their number by a template each time they are listed, as an answer of the
API server would be parsed, so that what the process weighs is the controller. Each request takes a fixed time on the
loop's clock.
"""

import asyncio
import gc
import random
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from agent.codec import encode
from agent.rules.slots import Acquire, Hold, Open
from agent.rules.state import Event
from agent.wire import Origin, WatchLine, WatchType
from controller import names
from controller.agents.fleet import FleetSettings
from controller.app import Controller
from controller.config import Config
from controller.errors import AgentUnreachable, AlreadyExists, Conflict, NotFound
from controller.kube.api import LEASES, NODES, SECRETS, SLOTPOOLS, SLOTTASKS, Object, Resource
from controller.objects.pool import PoolSpec
from controller.objects.template import TokenSecret, build_pod
from metrics.exposition import new_registry
from tests.bench.warm_pod import running_status
from tests.support.machine_agent import MachineAgent
from tests.support.memory_api import merge

NAMESPACE = "default"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
API_SECONDS = 0.003
AGENT_SECONDS = 0.001
QUIET_SECONDS = 3.0
"""Nothing asked for so long: the controller has come to rest."""

POLL_SECONDS = 0.02
WAIT_SECONDS = 600.0
NEVER_SECONDS = 1e6
LEASE_SECONDS = 600.0
"""Long, for a pass may take longer than a lease: that it must not is measured, and not what is to be tripped over."""

DIGITS = 12
PASSES = "podslots_controller_reconcile_duration_seconds_count"


@dataclass(frozen=True)
class Many:
    """Objects that differ by a number. `template` has it as `NUMBER`, of 12 digits, in all the places."""

    prefix: str
    count: int
    template: bytes

    def make(self, number: int) -> bytes:
        text = self.template.replace(NUMBER, b"%012d" % number)
        return text.replace(ADDRESS, address(number).encode()) if ADDRESS in text else text

    def number(self, name: str) -> int | None:
        """Which of them has this name."""
        digits = name.removeprefix(self.prefix)
        if digits == name or len(digits) != DIGITS or not digits.isdigit() or int(digits) >= self.count:
            return None
        return int(digits)


NUMBER, ADDRESS = b"__NUMBER__", b"__ADDRESS__"
FIRST_VERSION = 10**6


def address(number: int) -> str:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


class StageApi:
    """`controller.kube.api.Api`."""

    def __init__(self) -> None:
        self.many: dict[Resource, list[Many]] = {}
        self.requests: Counter[tuple[str, str]] = Counter()
        self.held: asyncio.Event | None = None
        """Set to have writes of tasks wait for it."""
        self._version = FIRST_VERSION
        self._stored: dict[Resource, dict[tuple[str, str], bytes]] = {}
        self._gone: set[tuple[Resource, str]] = set()
        self._history: dict[Resource, list[tuple[int, bytes]]] = {}
        self._news: dict[Resource, asyncio.Event] = {}

    def put(self, resource: Resource, obj: Object) -> Object:
        """Store an object, and tell those who watch."""
        metadata = obj["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        self._version += 1
        metadata.setdefault("uid", f"uid-{metadata['name']}")
        metadata.setdefault("creationTimestamp", "2026-03-01T11:00:00Z")
        metadata["resourceVersion"] = str(self._version)
        stored = self._stored.setdefault(resource, {})
        kind = "MODIFIED" if key in stored or self._made(resource, key[1]) else "ADDED"
        stored[key] = orjson.dumps(obj)
        self._tell(resource, kind, stored[key])
        return obj

    def remove(self, resource: Resource, obj: Object) -> None:
        metadata = obj["metadata"]
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        self._stored.get(resource, {}).pop((metadata.get("namespace", ""), metadata["name"]), None)
        self._gone.add((resource, metadata["name"]))
        self._tell(resource, "DELETED", orjson.dumps(obj))

    def find(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """An object as it is now. Raises NotFound."""
        stored = self._stored.get(resource, {}).get((namespace or "", name)) or self._made(resource, name)
        if stored is None:
            raise NotFound(404, "NotFound", f"{resource.plural} {name} not found")
        obj: Object = orjson.loads(stored)
        return obj

    def _made(self, resource: Resource, name: str) -> bytes | None:
        if (resource, name) in self._gone:
            return None
        for many in self.many.get(resource, ()):
            if (number := many.number(name)) is not None:
                return many.make(number)
        return None

    def _tell(self, resource: Resource, kind: str, obj: bytes) -> None:
        event = b'{"type":"%b","object":%b}' % (kind.encode(), obj)
        self._history.setdefault(resource, []).append((self._version, event))
        self._news.setdefault(resource, asyncio.Event()).set()

    # --- Api ----------------------------------------------------------------------------------------------------------

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        await self._arrive("get", resource)
        return self.find(resource, namespace, name)

    async def list_page(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        label_selector: str = "",
        limit: int = 500,
        continue_token: str = "",
    ) -> Object:
        del namespace
        await self._arrive("list", resource)
        start, version = (int(part) for part in continue_token.split("/")) if continue_token else (0, self._version)
        end, many = start + limit, self.many.get(resource, [])
        metadata: Object = {"resourceVersion": str(version)}
        items = list(self._numbered(resource, many, start, end))
        if end < sum(each.count for each in many):
            metadata["continue"] = f"{end}/{version}"
        else:
            items += self._stored.get(resource, {}).values()
        page: Object = {"metadata": metadata, "items": orjson.loads(b"[" + b",".join(items) + b"]")}
        if label_selector:
            page["items"] = [item for item in page["items"] if label_selector in item["metadata"].get("labels", ())]
        return page

    def _numbered(self, resource: Resource, many: list[Many], start: int, end: int) -> Iterator[bytes]:
        stored = self._stored.get(resource, {})
        for each in many:
            for number in range(max(start, 0), min(end, each.count)):
                name = f"{each.prefix}{number:0{DIGITS}d}"
                if (NAMESPACE, name) not in stored and (resource, name) not in self._gone:
                    yield each.make(number)
            start, end = start - each.count, end - each.count

    async def watch(
        self, resource: Resource, namespace: str | None, *, resource_version: str, label_selector: str = ""
    ) -> AsyncIterator[Object]:
        del namespace
        await self._arrive("watch", resource)
        history, news = self._history.setdefault(resource, []), self._news.setdefault(resource, asyncio.Event())
        at = bisect_right(history, int(resource_version), key=lambda entry: entry[0])
        while True:
            for _, event in history[at:]:
                at += 1
                document = orjson.loads(event)
                if not label_selector or label_selector in document["object"]["metadata"].get("labels", ()):
                    yield document
            news.clear()
            if at == len(history):
                await news.wait()

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        await self._arrive("create", resource)
        obj: Object = orjson.loads(orjson.dumps(body))
        if namespace:
            obj["metadata"]["namespace"] = namespace
        try:
            self.find(resource, namespace, obj["metadata"]["name"])
        except NotFound:
            return self.put(resource, obj)
        raise AlreadyExists(409, "AlreadyExists", obj["metadata"]["name"])

    async def replace(
        self, resource: Resource, namespace: str | None, name: str, body: Object, *, subresource: str = ""
    ) -> Object:
        await self._arrive("update", resource, subresource)
        before = self.find(resource, namespace, name)
        _check(before, None, body["metadata"].get("resourceVersion"))
        obj: Object = orjson.loads(orjson.dumps(body))
        obj["metadata"]["uid"] = before["metadata"]["uid"]
        return self.put(resource, obj)

    async def patch(
        self, resource: Resource, namespace: str | None, name: str, body: Object, *, subresource: str = ""
    ) -> Object:
        await self._arrive("patch", resource, subresource)
        before = self.find(resource, namespace, name)
        _check(before, body.get("metadata", {}).get("uid"), body.get("metadata", {}).get("resourceVersion"))
        patched: Object = merge(before, body)
        patched["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"]
        if patched == before:
            return before
        if patched["metadata"].get("deletionTimestamp") and not patched["metadata"].get("finalizers"):
            self.remove(resource, patched)
            return patched
        return self.put(resource, patched)

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_period_seconds: int | None = None,
    ) -> Object:
        del grace_period_seconds
        await self._arrive("delete", resource)
        before = self.find(resource, namespace, name)
        _check(before, uid, resource_version)
        if before["metadata"].get("finalizers"):
            return self.put(resource, merge(before, {"metadata": {"deletionTimestamp": "2026-03-01T12:00:00Z"}}))
        self.remove(resource, before)
        return {"kind": "Status", "details": {"name": name, "uid": before["metadata"]["uid"]}}

    async def _arrive(self, verb: str, resource: Resource, subresource: str = "") -> None:
        what = f"{resource.plural}/{subresource}" if subresource else resource.plural
        self.requests[verb, what] += 1
        if self.held is not None and resource is SLOTTASKS and verb in {"patch", "update"}:
            await self.held.wait()
        await asyncio.sleep(API_SECONDS)


def _check(obj: Object, uid: str | None, resource_version: str | None) -> None:
    metadata = obj["metadata"]
    if uid not in {None, metadata["uid"]} or resource_version not in {None, metadata["resourceVersion"]}:
        raise Conflict(409, "Conflict", f"{metadata['name']} has been modified")


class StageAgents:
    """`controller.agents.client.Transport` to the agents of the Pods `pod-NUMBER`.

    An agent is a template until something happens to it. Each heeds its worker: what it is given it starts at once.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._agents: dict[int, MachineAgent] = {}
        self._listening: dict[int, asyncio.Event] = {}
        agent = MachineAgent("__NUMBER__")
        agent.execute(Open(drain_id="born"))
        self._template = _line(agent)
        self._gate = asyncio.Semaphore(64)

    def agent(self, number: int) -> MachineAgent:
        """The agent as one that can do something."""
        if number not in self._agents:
            agent = self._agents[number] = MachineAgent(f"{number:0{DIGITS}d}")
            agent.execute(Open(drain_id="born"))
        return self._agents[number]

    def hold(self, number: int, name: str, task_type: str = "plan") -> None:
        """Somebody in the Pod takes a slot by himself."""
        self.agent(number).execute(Acquire(task_id=name, task_type=task_type, origin=Origin.LOCAL))
        self.tell(number)

    def give_back(self, number: int, name: str) -> None:
        """And gives it back."""
        agent = self.agent(number)
        slot = next(slot for slot in agent.state.slots if slot.task_id == name)
        agent.execute(Hold(call=Event.RELEASE, slot=slot.id, task_id=name, fence=slot.fence, origin=Origin.LOCAL))
        self.tell(number)

    def finish_all(self) -> None:
        """Every task that was given to an agent succeeds."""
        for number, agent in self._agents.items():
            for task_id in [task_id for task_id in agent.held if task_id in agent.state.tasks]:
                agent.finish(task_id)
                self.tell(number)

    def tell(self, number: int) -> None:
        """Those who listen hear of the change."""
        if number in self._listening:
            self._listening[number].set()

    async def request(
        self, method: str, url: str, *, headers: dict[str, str], body: bytes | None, timeout_seconds: float
    ) -> tuple[int, bytes]:
        del timeout_seconds
        self.asked += 1
        await asyncio.sleep(AGENT_SECONDS)
        number = _number(url)
        agent = self.agent(number)
        agent.now = NOW
        answer = await agent.request(method, url, headers=headers, body=body, timeout_seconds=0.0)
        if method == "POST":
            if url.endswith("/acquire"):
                for task_id in agent.state.tasks:
                    if agent.state.tasks[task_id].plan is None and task_id in agent.held:
                        agent.start(task_id)
            self.tell(number)
        return answer

    async def stream(self, url: str, *, headers: dict[str, str], idle_timeout_seconds: float) -> AsyncIterator[bytes]:
        del headers, idle_timeout_seconds
        number = _number(url)
        async with self._gate:  # connections take their time: not all agents answer in the same turn of the loop
            await asyncio.sleep(AGENT_SECONDS)
        changed = self._listening[number] = asyncio.Event()
        while True:
            changed.clear()
            agent = self._agents.get(number)
            yield _line(agent) if agent else self._template.replace(NUMBER, b"%012d" % number)
            await changed.wait()
        raise AgentUnreachable(url)


def _number(url: str) -> int:
    """Of the agent at 10.x.y.z."""
    first, second, third = url.partition("://10.")[2].partition(":")[0].split(".")
    return (int(first) << 16) + (int(second) << 8) + int(third)


def _line(agent: MachineAgent) -> bytes:
    state = agent.view()
    return orjson.dumps(encode(WatchLine(type=WatchType.STATE, revision=state.revision, state=state)))


def pool_object(name: str, **spec: Any) -> Object:
    return {
        "apiVersion": SLOTPOOLS.api_version,
        "kind": SLOTPOOLS.kind,
        "metadata": {"name": name, "namespace": NAMESPACE, "generation": 1},
        "spec": {"template": {"spec": {"containers": [{"name": "worker", "image": "terraform:1"}]}}, **spec},
    }


def task_object(name: str, pool: str = "bench", **status: Any) -> Object:
    """A plan: queued, unless a status says else."""
    return {
        "apiVersion": SLOTTASKS.api_version,
        "kind": SLOTTASKS.kind,
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"uid-{name}",
            "generation": 1,
            "creationTimestamp": "2026-03-01T11:00:00Z",
            "resourceVersion": "1000",
        },
        "spec": {
            "pool": pool,
            "type": "plan",
            "files": {"main.tf": 'resource "null_resource" "a" {}\n' * 10},
            "env": [{"name": "AWS_REGION", "value": "eu-central-1"}],
            "steps": {"plan": {"command": ["terraform", "plan", "-input=false"], "timeoutSeconds": 3600}},
        },
        **({"status": status} if status else {}),
    }


def ended_tasks(count: int, pool: str = "bench") -> Many:
    """Tasks that have succeeded a moment ago, as the controller leaves them."""
    ended = (NOW - timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    result = {
        "startTime": "2026-03-01T11:01:00Z",
        "endTime": ended,
        "outcome": "succeeded",
        "exitCode": 0,
        "logBytes": 4000,
        "logTail": "Refreshing state...\nPlan: 1 to add, 0 to change, 0 to destroy.\n" * 15,
    }
    condition = {"type": "Accepted", "status": "True", "reason": "Assigned", "lastTransitionTime": ended}
    document = task_object(
        "ended-__NUMBER__",
        pool,
        phase="Succeeded",
        step="plan",
        pod="pod-000000000000",
        podUID="uid-000000000000",
        slot=1,
        attempt=1,
        observedGeneration=1,
        reason="Succeeded",
        startTime="2026-03-01T11:01:00Z",
        finishTime=ended,
        steps={"plan": result},
        conditions=[condition],
    )
    return Many("ended-", count, orjson.dumps(document))


def queued_tasks(count: int, pool: str = "bench", prefix: str = "queued-") -> Many:
    document = task_object(f"{prefix}__NUMBER__", pool)
    document["metadata"]["finalizers"] = [names.TASK_FINALIZER]
    return Many(prefix, count, orjson.dumps(document))


def active_pods(count: int, pool: Object) -> Many:
    """Running Pods that the controller has opened, in order of their addresses."""
    name = pool["metadata"]["name"]
    tokens = TokenSecret(name=names.token_secret(name), uid=f"uid-{names.token_secret(name)}")
    pod = build_pod(pool, PoolSpec.parse(pool), name="pod-__NUMBER__", token_secret=tokens, agent_image="agent:1")
    metadata: Object = pod["metadata"]
    metadata |= {"uid": "uid-__NUMBER__", "resourceVersion": "1000", "creationTimestamp": "2026-03-01T11:00:00Z"}
    metadata["labels"][names.STATE_LABEL] = "active"
    metadata["annotations"] |= {names.DRAIN_ID: "born", names.OPENED: "2026-03-01T11:00:10Z"}
    metadata["finalizers"] = [names.POD_FINALIZER]
    pod["spec"]["nodeName"] = "node-1"
    pod["status"] = running_status(pod, "__ADDRESS__")
    return Many("pod-", count, orjson.dumps(pod))


class Stage:
    """A controller that leads the cluster in memory. Made by `staged`."""

    def __init__(self, api: StageApi, agents: StageAgents) -> None:
        self.api = api
        self.agents = agents
        self._registry = new_registry()
        rng = random.Random(1)
        self.controller = Controller(
            Config(
                agent_image="agent:1",
                identity="bench",
                namespace=NAMESPACE,
                watch_namespace=NAMESPACE,
                lease_seconds=LEASE_SECONDS,
                resync_seconds=NEVER_SECONDS,
            ),
            api,
            agents,
            now=lambda: NOW,
            rng=rng,
            random_bytes=rng.randbytes,
            registry=self._registry,
            fleet_settings=FleetSettings(silence_seconds=NEVER_SECONDS, first_line_seconds=NEVER_SECONDS),
            page_kept=gc.freeze,
        )
        self.running = asyncio.create_task(self.controller.run(), name="controller")

    @property
    def passes(self) -> int:
        """How many passes there were. To collect all figures for it takes a millisecond, which would be measured."""
        families = self._registry.restricted_registry([PASSES]).collect()
        found = (sample.value for family in families for sample in family.samples if sample.name == PASSES)
        return int(next(found, 0))

    async def until(self, condition: Callable[[], Any], every_seconds: float = POLL_SECONDS) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WAIT_SECONDS
        while not condition():
            if self.running.done():
                raise AssertionError("the controller has ended") from self.running.exception()
            if loop.time() > deadline:
                raise AssertionError(f"not within {WAIT_SECONDS} s")
            await asyncio.sleep(every_seconds)

    async def rest(self) -> None:
        """Until nothing happens any more."""
        before: object = None
        while (now := (self.passes, _asked(self.api), self.agents.asked)) != before:
            before = now
            await asyncio.sleep(QUIET_SECONDS)


def _asked(api: StageApi) -> int:
    """The requests, except those for the Lease, which is renewed for ever."""
    return sum(count for (_, what), count in api.requests.items() if what != LEASES.plural)


@asynccontextmanager
async def staged(api: StageApi, agents: StageAgents) -> AsyncIterator[Stage]:
    """A controller that runs."""
    stage = Stage(api, agents)
    try:
        yield stage
    finally:
        stage.running.cancel()
        await asyncio.wait([stage.running])


def free_lease() -> Object:
    """The leader's Lease as one who released it left it, so that a controller leads at once."""
    metadata = {"name": names.LEADER_LEASE, "namespace": NAMESPACE}
    released = {"holderIdentity": "", "leaseDurationSeconds": 15, "renewTime": "2026-03-01T11:00:00.000000Z"}
    return {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata, "spec": released}


async def prepared(*pools: Object) -> tuple[StageApi, list[Object]]:
    """An API with pools that have their finalizer and Secret, as a controller has made them."""
    before = StageApi()
    before.put(LEASES, free_lease())
    for pool in pools:
        before.put(SLOTPOOLS, pool)
    before.put(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}, "spec": {}, "status": {}})
    paused = [{**pool, "spec": {**pool["spec"], "replicas": 0, "autoscaling": None}} for pool in pools]
    for pool in paused:
        before.put(SLOTPOOLS, pool)
    async with staged(before, StageAgents()) as stage:
        await stage.rest()
    api = StageApi()
    # The Lease among them, which the controller has released.
    for resource in (NODES, SECRETS, SLOTPOOLS, LEASES):
        page = await before.list_page(resource, None)
        for obj in page["items"]:
            given = next((pool for pool in pools if pool["metadata"]["name"] == obj["metadata"]["name"]), None)
            obj.pop("status", None)
            api.put(resource, {**obj, "spec": given["spec"]} if resource is SLOTPOOLS and given else obj)
    return api, [api.find(SLOTPOOLS, NAMESPACE, pool["metadata"]["name"]) for pool in pools]
