"""Probes: the counting (pure) and the asking."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from controller.local.pod_spec import Exec, Probe

# A program that was just started answers within a second; its first regular probe would be a whole period away. So
# until the first answer it is asked more often, at these pauses, and a refusal meanwhile does not count.
EAGER_PAUSES_SECONDS = (0.1, 0.15, 0.25, 0.25)


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
        for pause in EAGER_PAUSES_SECONDS:
            await gate.passable()
            answer = await asker.ask(probe.handler, probe.timeout)
            if answer.success:
                tally = count(tally, True, probe)
                if not answered(tally, answer):
                    return
                await asyncio.sleep(probe.period)
                break
            await asyncio.sleep(pause)
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
