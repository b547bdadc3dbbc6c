"""A Prometheus that scrapes the agents of a history, and what can be wrong with what it answers."""

import asyncio
import random
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from controller.decide.reading import Answer, Sample
from controller.errors import SignalError
from controller.kube.api import Object
from controller.prometheus.client import Server

if TYPE_CHECKING:
    from tests.simulation.world import World

UTILIZATION, QUEUE = "utilization", "queue"
WINDOW_SECONDS, SCRAPE_SECONDS = 30, 10.0
SIGNAL: Object = {
    "source": "Prometheus",
    "url": "http://prometheus.example:9090",
    "utilizationQuery": UTILIZATION,
    "queueQuery": QUEUE,
    "windowSeconds": WINDOW_SECONDS,
    "fallback": "Hold",
}
LOSSES = ("away", "empty", "partial", "old", "no number")
"""With each of them there is no usable answer, whatever the pool is like."""
LIES = ("all in use", "none in use")


class SimPrometheus:
    """Answers of each Pod which share of its slots was in use lately, and of each type how many tasks wait."""

    def __init__(self, world: "World") -> None:
        self.trouble = ""
        """One of LOSSES or LIES; empty: it is well."""
        self.lost: list[tuple[float, float]] = []
        """From when until when nothing usable came; the last one may not be over yet."""
        self._world = world
        self._rng = random.Random(f"{world.seed}/prometheus")
        self._scrapes: list[tuple[float, dict[str, float]]] = []

    def begin(self, trouble: str) -> None:
        """Something is wrong from now on."""
        self.trouble = trouble
        if trouble in LOSSES:
            self.lost.append((self._world.elapsed, float("inf")))

    def end(self) -> None:
        """All is well again."""
        if self.trouble in LOSSES:
            self.lost[-1] = self.lost[-1][0], self._world.elapsed
        self.trouble = ""

    async def scrape(self) -> None:
        """Until cancelled."""
        while True:
            now = self._world.elapsed
            shares = {}
            for pod in self._world.node.alive:
                if pod.started and not pod.doomed:
                    slots = pod.state().slots
                    shares[pod.name] = sum(slot.state != "idle" for slot in slots) / len(slots)
            self._scrapes = [scrape for scrape in self._scrapes if scrape[0] > now - WINDOW_SECONDS]
            self._scrapes.append((now, shares))
            await asyncio.sleep(SCRAPE_SECONDS)

    async def ask(self, server: Server, query: str) -> Answer:
        """As `controller.prometheus.client` does."""
        del server
        await asyncio.sleep(self._rng.uniform(0.001, 1.0))
        at = self._world.now()
        match self.trouble:
            case "away":
                raise SignalError("no answer in time")
            case "empty":
                return Answer(at, ())
            case "partial":
                return Answer(at, self._samples(query), "a store did not answer")
            case "old":
                return Answer(at - timedelta(hours=1), self._samples(query))
            case "no number":
                return Answer(at, tuple(Sample(each.labels, float("nan")) for each in self._samples(query)))
        return Answer(at, self._samples(query))

    def _samples(self, query: str) -> tuple[Sample, ...]:
        return self._queue() if query == QUEUE else self._utilization()

    def _queue(self) -> tuple[Sample, ...]:
        waiting = Counter(
            task["spec"]["type"]
            for task in self._world.tasks()
            if (task.get("status") or {}).get("phase", "Queued") == "Queued" and not task["spec"].get("lockKey")
        )
        return (Sample({}, 0.0), *(Sample({"type": kind}, float(count)) for kind, count in waiting.items()))

    def _utilization(self) -> tuple[Sample, ...]:
        found: dict[str, list[float]] = {}
        for _, shares in self._scrapes:
            for pod, share in shares.items():
                found.setdefault(pod, []).append(self._told(share))
        return tuple(Sample({"pod": pod}, sum(shares) / len(shares)) for pod, shares in found.items())

    def _told(self, share: float) -> float:
        return {"all in use": 1.0, "none in use": 0.0}.get(self.trouble, share)
