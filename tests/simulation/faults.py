"""How much goes wrong."""

import asyncio
import contextlib
import random
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from controller.leader.election import Election
from controller.leader.lease import Standing
from tests.simulation.network import NetworkFaults
from tests.simulation.themes import Theme

MISHAPS = (
    "agent dies",
    "agent forgets",
    "worker dies",
    "worker dies at a start",
    "worker is paused",
    "a plan is edited",
    "workers hang",
    "disk is full",
    "disk fails to sync",
    "leader dies",
    "leader dies at a write",
    "leader is paused",
    "leader is paused at a write",
    "leader is stopped",
    "leader has no API",
    "watches end",
    "watches stall",
    "history is gone",
    "agent is cut off",
    "a clock jumps",
    "an old message comes again",
    "pod dies",
    "pod is said to have failed",
    "pod vanishes",
    "pod is deleted by force",
    "a pod goes while nobody looks",
    "node refuses pods",
)


TOO_LONG_SECONDS = 60.0


def leases_fail() -> contextlib.AbstractContextManager[Any]:
    """Let every leader think that it may act for a minute more than it may."""
    may_act, tell = Standing.may_act, Election._tell

    def tell_once(self: Election) -> None:
        tell(self)
        tenure = self._standing.tenure
        if tenure is not None and tenure.deadline <= asyncio.get_running_loop().time() + 0.001:
            self._disarm()  # the deadline is over and it goes on: it would be told again at once

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(Standing, "may_act", lambda self, now: may_act(self, now - TOO_LONG_SECONDS)))
    stack.enter_context(patch.object(Election, "_tell", tell_once))
    return stack


@dataclass
class Faults:
    """How much goes wrong. All zero: nothing does."""

    api_refused: float = 0.0
    """How likely a call to the API is not carried out."""
    api_unanswered: float = 0.0
    """How likely one is carried out, and its answer lost."""
    api_late: float = 0.0
    """How likely a write is carried out long after its sender gave it up."""
    network: NetworkFaults = field(default_factory=NetworkFaults)
    local_loss: float = 0.0
    """How likely a message between a worker and its agent is lost."""
    stubborn: float = 0.0
    """How likely a command does not end at SIGTERM."""
    mishap_seconds: float = 0.0
    """How long it is, on average, between two mishaps: crashes, pauses, partitions, dropped watches. 0: none."""
    mishaps: tuple[str, ...] = ()
    """The kinds that may happen (see `Chaos`); empty: all."""
    latency: float = 1.0
    """How many times longer than usual (0.5 to 10 ms each way) messages to the API take."""
    skew_seconds: float = 0.0
    """How far a clock may be off."""
    kubelet_seconds: float = 0.0
    """How long it is, on average, between two writes of a Pod's status that say nothing new. 0: none."""

    def end(self) -> None:
        """Nothing goes wrong any more."""
        self.api_refused = self.api_unanswered = self.api_late = self.local_loss = 0.0
        self.mishap_seconds = self.stubborn = 0.0
        self.latency, self.skew_seconds, self.kubelet_seconds = 1.0, 0.0, 0.0
        for name in vars(self.network):
            setattr(self.network, name, 0.0)
        self.network.latency = 1.0

    @staticmethod
    def plenty(rng: random.Random, theme: Theme) -> "Faults":
        """Some of everything, in a mix of its own for each seed."""

        def rate(most: float) -> float:
            return rng.choice([0.0, rng.uniform(0.0, most)])

        return Faults(
            api_refused=rate(0.1),
            api_unanswered=rate(0.1),
            api_late=rate(0.03),
            network=NetworkFaults(
                lost=rate(0.1),
                unanswered=rate(0.15),
                late=rate(0.1),
                repeated=rate(0.2),
                cut=rate(0.02),
                latency=rng.choice([1.0, 1.0, 10.0, 100.0]),
            ),
            local_loss=rate(0.1),
            stubborn=rate(0.4),
            mishap_seconds=rng.choice(theme.mishap_seconds),
            mishaps=theme.mishaps or tuple(rng.sample(MISHAPS, rng.choice([2, 3, 5, len(MISHAPS)]))),
            latency=rng.choice([1.0, 1.0, 10.0, 100.0]),
            skew_seconds=rng.choice([0.0, 5.0, 120.0]),
            kubelet_seconds=rng.choice([0.0, 1.0, 5.0]),
        )
