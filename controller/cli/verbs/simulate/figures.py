"""What is counted in a simulation: Pods and slots over time, waits, and work that was killed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from controller.cli.verbs.simulate.jobs import Ending, Stage

PERCENTILES = (50, 95, 99)
HOUR_SECONDS = 3600


@dataclass(slots=True)
class Series:
    """A simulation's values at the points of a grid: `seconds` since its start, and the counts at that time."""

    seconds: list[float] = field(default_factory=list)
    pods: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    reserved: list[int] = field(default_factory=list)
    queued: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    """Plans, reservations and applies killed until then."""


class Figures:
    """The counts of one strategy. Public attributes are the present values, `to_json` gives the result."""

    def __init__(self, strategy: str, grid_seconds: float) -> None:
        self.strategy = strategy
        self.arrived = 0
        self.queued = self.running = self.reserved = 0
        self.pods = self.slots = self.pods_max = 0
        self.waits: list[float] = []
        """Of each task, from its turn to its first slot, in seconds."""
        self.endings = dict.fromkeys(Ending, 0)
        self.plans_killed = self.reservations_lost = self.applies_killed = 0
        self.unfinished = 0
        self.seconds = 0.0
        self.pod_seconds = self.slot_seconds = self.running_seconds = self.reserved_seconds = 0.0
        self.series = Series()
        self._grid_seconds = grid_seconds
        self._next_point = 0.0

    def pods_changed(self, pods: int, slots: int) -> None:
        """So many more."""
        self.pods += pods
        self.slots += slots
        self.pods_max = max(self.pods_max, self.pods)

    def killed(self, stage: Stage) -> None:
        """Work was killed in this stage."""
        if stage is Stage.PLAN:
            self.plans_killed += 1
        elif stage is Stage.RESERVED:
            self.reservations_lost += 1
        else:
            self.applies_killed += 1

    @property
    def lost(self) -> int:
        """All that was killed."""
        return self.plans_killed + self.reservations_lost + self.applies_killed

    def pass_time(self, begin: float, end: float) -> None:
        """All is as it is now from `begin` to `end`."""
        span = end - begin
        self.pod_seconds += self.pods * span
        self.slot_seconds += self.slots * span
        self.running_seconds += self.running * span
        self.reserved_seconds += self.reserved * span
        while self._next_point < end:
            self._note()

    def finish(self, now: float, *, unfinished: int) -> None:
        """The simulation is over."""
        self.seconds, self.unfinished = now, unfinished
        self._note()

    def _note(self) -> None:
        series = self.series
        series.seconds.append(self._next_point)
        series.pods.append(self.pods)
        series.slots.append(self.slots)
        series.running.append(self.running)
        series.reserved.append(self.reserved)
        series.queued.append(self.queued)
        series.lost.append(self.lost)
        self._next_point += self._grid_seconds

    def to_json(self) -> dict[str, Any]:
        """The figures, without their course."""
        waits = sorted(self.waits)
        return {
            "strategy": self.strategy,
            "seconds": round(self.seconds, 1),
            "tasks": {
                "arrived": self.arrived,
                **{ending.value: number for ending, number in self.endings.items()},
                "unfinished": self.unfinished,
            },
            "podsMax": self.pods_max,
            "podHours": round(self.pod_seconds / HOUR_SECONDS, 2),
            "slotHours": round(self.slot_seconds / HOUR_SECONDS, 2),
            "runningSlotHours": round(self.running_seconds / HOUR_SECONDS, 2),
            "reservedSlotHours": round(self.reserved_seconds / HOUR_SECONDS, 2),
            "waitSeconds": {
                **{f"p{percent}": round(percentile(waits, percent), 1) for percent in PERCENTILES},
                "max": round(waits[-1], 1) if waits else 0.0,
            },
            "killed": {
                "plans": self.plans_killed,
                "reservations": self.reservations_lost,
                "applies": self.applies_killed,
            },
        }


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The nearest rank: the least value that `percent` per cent of them do not exceed; 0 of nothing."""
    if not ordered:
        return 0.0
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
