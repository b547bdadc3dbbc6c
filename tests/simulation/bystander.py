"""Others who speak to agents: programs beside the work that hold slots themselves, and people with curl.

None of them knows a stamp or an incarnation, and none minds what the controller is just doing.
"""

import asyncio
import json
import random
from typing import Any

from controller.errors import AgentUnreachable
from tests.simulation.node import SimPod
from tests.simulation.world import World

ANSWER_SECONDS = 10.0
AGAIN_SECONDS = 1.0
_OK = 200


class Bystander:
    """Takes a slot or asks for a drain now and then, and in the end gives back what it holds."""

    def __init__(self, world: World, mean_seconds: float) -> None:
        self._world = world
        self._mean_seconds = mean_seconds
        self._rng = random.Random(f"{world.seed}/bystander")
        self._taken = 0
        self._holding: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / self._mean_seconds))
            pods = [pod for pod in self._world.node.alive if not pod.doomed]
            if not pods:
                continue
            pod = self._rng.choice(pods)
            if self._rng.random() < 0.4:
                await self._drain(pod)
            else:
                self._start_holding(pod)

    async def give_back(self) -> None:
        """Wait until nothing is held any more."""
        while self._holding:
            await asyncio.wait(self._holding)

    async def _drain(self, pod: SimPod) -> None:
        """By hand: nobody else knows this id, or it is repeated. It is granted, or it isn't."""
        drain_id = f"by-hand-{self._rng.getrandbits(32):x}"
        if pod.agent is not None and self._rng.random() < 0.3:
            drain_id = pod.agent.service.state.drain_id or drain_id  # the one in force, once more
        headers = {"Authorization": f"Bearer {next(iter(pod.tokens().values()), '')}"}
        await self._post(pod, "/drain", headers, {"drain_id": drain_id})

    def _start_holding(self, pod: SimPod) -> None:
        self._taken += 1
        task = asyncio.get_running_loop().create_task(self._hold(pod, f"local-{self._taken}"))
        self._holding.add(task)
        task.add_done_callback(self._holding.discard)

    async def _hold(self, pod: SimPod, task_id: str) -> None:
        """A program takes a slot, perhaps reserves it in between, and releases it."""
        rng = self._rng
        headers = {"Authorization": f"Bearer {pod.home.local_token}"}
        held = await self._post(pod, "/slots/acquire", headers, {"task_id": task_id, "task_type": "plan"})
        if held is None:
            return
        calls = ["reserve", "resume", "release"] if rng.random() < 0.4 else ["release"]
        for call in calls:
            await asyncio.sleep(rng.choice([0.1, 3.0, 30.0]))
            if call == "release":
                self._world.rules.released.add((pod.uid, task_id))
            told: dict[str, Any] = {"task_id": task_id, "fence": held["fence"]}
            if call == "reserve":
                told["ttl_seconds"] = rng.choice([2, 3600])
            answer = await self._post(pod, f"/slots/{held['slot']}/{call}", headers, told)
            if answer is None:
                return  # its reservation expired, or the agent knows nothing of it any more
            held = {**held, **answer}

    async def _post(
        self, pod: SimPod, target: str, headers: dict[str, str], body: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Asked until it is answered; None: refused, or nobody will ever answer."""
        while not pod.over:
            if (agent := pod.agent) is not None:
                try:
                    asked = agent.request("POST", target, headers, json.dumps(body).encode())
                    status, answer = await agent.run(asked, ANSWER_SECONDS)
                except AgentUnreachable:
                    pass
                else:
                    if status == _OK:
                        return dict(json.loads(answer))
                    if status < 500:
                        return None
            await asyncio.sleep(AGAIN_SECONDS)
        return None
