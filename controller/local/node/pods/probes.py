"""Probes: the counting (pure) and the asking."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from controller.local.node.pods.pod_spec import Exec, Probe

# A program that was just started answers within a second or two; its first regular probe after a refusal would be a
# whole period away. So during the first period it is asked more often, and a refusal meanwhile does not count.
EAGER_FIRST_PAUSE_SECONDS, EAGER_LAST_PAUSE_SECONDS = 0.1, 0.5


class ProbeKind(StrEnum):
    """What a probe is for."""

    STARTUP = "startup"
    READINESS = "readiness"
    LIVENESS = "liveness"


@dataclass(frozen=True)
class Tally:
    """How many answers of a kind came in a row, and the verdict they led to (None: none yet)."""

    verdict: bool | None = None
    successes: int = 0
    failures: int = 0


def count(tally: Tally, success: bool, probe: Probe) -> Tally:
    """The tally after one more answer. The verdict changes when its threshold is reached."""
    if success:
        tally = replace(tally, successes=tally.successes + 1, failures=0)
        return replace(tally, verdict=True) if tally.successes >= probe.success_threshold else tally
    tally = replace(tally, successes=0, failures=tally.failures + 1)
    return replace(tally, verdict=False) if tally.failures >= probe.failure_threshold else tally


@dataclass(frozen=True)
class Answer:
    """One handler's outcome."""

    success: bool
    detail: str = ""


class Asker(Protocol):
    """Carries out a container's handlers; see `handlers`."""

    async def ask(self, handler: object, timeout_seconds: float) -> Answer:
        """Success or the reason against it. Never raises for what the container does."""
        ...


class Gate(Protocol):
    """Holds everything back while the kubelet is frozen."""

    async def passable(self) -> None:
        """Return when things may go on."""
        ...


async def probe_forever(
    probe: Probe, asker: Asker, gate: Gate, answered: Callable[[Tally, Answer], bool], *, eager: bool
) -> None:
    """Ask at the probe's period; `answered` gets each tally that counts, and says whether to go on."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(probe.initial_delay)
    tally = Tally()
    if eager and not isinstance(probe.handler, Exec):  # a command costs too much to be asked so often
        until, pause = loop.time() + probe.period, EAGER_FIRST_PAUSE_SECONDS
        while loop.time() + pause < until:
            await gate.passable()
            answer = await asker.ask(probe.handler, probe.timeout)
            if answer.success:
                tally = count(tally, True, probe)
                if not answered(tally, answer):
                    return
                await asyncio.sleep(probe.period)
                break
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, EAGER_LAST_PAUSE_SECONDS)
    due = loop.time()
    while True:
        await gate.passable()
        answer = await asker.ask(probe.handler, probe.timeout)
        await gate.passable()
        tally = count(tally, answer.success, probe)
        if not answered(tally, answer):
            return
        due = max(due + probe.period, loop.time())
        await asyncio.sleep(due - loop.time())
