"""Which agents are followed, and what they said: an agent that should answer and does not is waited for a moment."""

import asyncio

from controller.agents.client import AgentClient, agent_url
from controller.agents.fleet import Fleet
from controller.agents.tls import pod_tls
from controller.decide.observe import Report, agent_address
from controller.kube.api import Object
from controller.world.index import Index, pool_of

CONTACT_SECONDS = 10.0
"""How long a Pod that should answer and doesn't is still taken for one that is about to."""


class Following:
    """Follows the agents of the Pods there are."""

    def __init__(self, fleet: Fleet, index: Index) -> None:
        self.fleet = fleet
        self._index = index
        self._silent_since: dict[str, float] = {}

    def follow(self, pod: Object) -> None:
        """Have a Pod's agent watched as long as it may answer."""
        key, address, uid = pool_of(pod), agent_address(pod, self._index.node_of(pod)), pod["metadata"]["uid"]
        if key is not None and address is not None:
            tls = pod_tls(pod)
            self.fleet.add(uid, agent_url(address, tls=tls is not None), *key, tls, pod=pod["metadata"]["name"])
        else:
            self.fleet.forget(uid)

    def forget(self, pod_uid: str) -> None:
        """The Pod is gone from the API."""
        self.fleet.forget(pod_uid)
        self._silent_since.pop(pod_uid, None)

    def client(self, pod_uid: str) -> AgentClient | None:
        """How to speak to a Pod's agent, if it is followed."""
        return self.fleet.client(pod_uid)

    def report(self, pod_uid: str) -> Report:
        """What a Pod's agent last said, and whether it is heard of."""
        known = self.fleet.report(pod_uid)
        if known is not None and known.connected:
            self._silent_since.pop(pod_uid, None)
            return Report(state=known.state, connected=True)
        now = asyncio.get_running_loop().time()
        silent = now - self._silent_since.setdefault(pod_uid, now)
        return Report(state=known.state if known else None, contacting=silent < CONTACT_SECONDS)

    def given_up_in(self, pod_uid: str) -> float:
        """Seconds until a silent agent is no longer taken for one that is about to answer."""
        now = asyncio.get_running_loop().time()
        return self._silent_since.get(pod_uid, now) + CONTACT_SECONDS - now
