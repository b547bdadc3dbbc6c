"""Watches a run: Pods and tasks at the API server, and every agent's own stream of what its slots do."""

import asyncio
import contextlib
import random
from collections import Counter

import orjson

from agent.wire import PORT, AgentState, Task, WatchLine, WireError, decode
from controller.agents.transport import Transport
from controller.demo.evidence import AgentHistory
from controller.demo.workload import NAMESPACE
from controller.errors import AgentRefused, AgentUnreachable
from controller.kube.api import PODS, SLOTPOOLS, SLOTTASKS, Object, Resource
from controller.kube.cache import Cache
from controller.kube.client import KubeClient
from controller.kube.reflector import Reflector
from controller.names import POOL_LABEL

IDLE_TIMEOUT_SECONDS = 15.0  # agents send a heartbeat every 5 s
RETRY_SECONDS = 0.05
REQUEST_SECONDS = 5.0
OK = 200


class Observer:
    """What can be seen from outside, now and so far. `run` keeps it up to date."""

    def __init__(self, api: KubeClient, transport: Transport, rng: random.Random) -> None:
        self._api = api
        self._transport = transport
        self._rng = rng
        self._followed: dict[str, asyncio.Task[None]] = {}
        self.histories: dict[str, AgentHistory] = {}
        self.pools = Cache(SLOTPOOLS)
        self.pods = Cache(PODS)
        self.tasks = Cache(SLOTTASKS)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            self.pods.subscribe(lambda old, new: self._pod_changed(group, old, new))
            for cache, selector in ((self.pools, ""), (self.pods, POOL_LABEL), (self.tasks, "")):
                reflector = Reflector(self._api, cache, self._rng, namespace=NAMESPACE, label_selector=selector)
                group.create_task(reflector.run(), name=f"watch {cache.resource.plural}")

    def present(self) -> list[Object]:
        """The Pods that are not on their way out, by name."""
        found = [pod for pod in self.pods.items() if not pod["metadata"].get("deletionTimestamp")]
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    def phases(self) -> Counter[str]:
        """How many tasks are in each phase."""
        return Counter((task.get("status") or {}).get("phase") or "Queued" for task in self.tasks.items())

    def last(self, pod_uid: str) -> AgentState | None:
        """What a Pod's agent said last."""
        history = self.histories.get(pod_uid)
        return history.states[-1] if history and history.states else None

    async def task_of_agent(self, pod_uid: str, task_id: str) -> Task:
        """A task, asked of the agent that has it. Raises AgentRefused or AgentUnreachable."""
        url = f"{self.url(pod_uid)}/tasks/{task_id}"
        status, body = await self._transport.request("GET", url, headers={}, body=None, timeout_seconds=REQUEST_SECONDS)
        if status != OK:
            raise AgentRefused(status, "", body.decode(errors="replace"))
        return decode(Task, orjson.loads(body))

    def url(self, pod_uid: str) -> str:
        """Where a Pod's agent listens."""
        for pod in self.pods.items():
            if pod["metadata"]["uid"] == pod_uid:
                return agent_url(pod)
        raise AgentUnreachable(f"no Pod {pod_uid}")

    async def list_all(self, resource: Resource) -> list[Object]:
        """A live list: what there is now, whatever the watch has seen."""
        selector = POOL_LABEL if resource is PODS else ""
        page = await self._api.list_page(resource, NAMESPACE, label_selector=selector)
        return list(page["items"])

    def _pod_changed(self, group: asyncio.TaskGroup, old: Object | None, new: Object | None) -> None:
        if new is None:
            if old is not None and (task := self._followed.get(old["metadata"]["uid"])) is not None:
                task.cancel()
            return
        uid = new["metadata"]["uid"]
        if uid not in self._followed and (new.get("status") or {}).get("podIP"):
            self.histories[uid] = AgentHistory(pod=new["metadata"]["name"])
            self._followed[uid] = group.create_task(self._follow(agent_url(new), uid), name=f"follow {uid}")

    async def _follow(self, url: str, pod_uid: str) -> None:
        """Take down all that an agent says, until its Pod is gone."""
        states = self.histories[pod_uid].states
        while True:
            with contextlib.suppress(AgentUnreachable, AgentRefused, WireError):
                stream = self._transport.stream(
                    f"{url}/slots?watch=true", headers={}, idle_timeout_seconds=IDLE_TIMEOUT_SECONDS
                )
                async for lines in stream:
                    for line in filter(None, lines.split(b"\n")):
                        state = decode(WatchLine, orjson.loads(line)).state
                        if state is not None and state.pod_uid == pod_uid:
                            states.append(state)
            await asyncio.sleep(RETRY_SECONDS)


def agent_url(pod: Object) -> str:
    """Where the agent of a Pod listens; empty until the Pod has an address."""
    address = (pod.get("status") or {}).get("podIP")
    return f"http://{address}:{PORT}" if address else ""
