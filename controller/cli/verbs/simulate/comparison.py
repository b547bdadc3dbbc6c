"""Runs one trace under podslots, and under the usual alternatives."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.wire import format_time
from controller.cli.show.table import Table
from controller.cli.verbs.simulate.engine import Engine, Strategy, Terms
from controller.cli.verbs.simulate.figures import HOUR_SECONDS, PERCENTILES, Figures
from controller.cli.verbs.simulate.hpa import Bounds, Hpa
from controller.cli.verbs.simulate.jobs import Maker
from controller.cli.verbs.simulate.pod_per_task import PodPerTask
from controller.cli.verbs.simulate.podslots import Podslots
from controller.cli.verbs.simulate.trace import MOST_NAMED, Arrival, Trace
from controller.cli.verbs.simulate.workers import FixedSize
from controller.errors import PodslotsError
from controller.objects.acceptance import refusal
from controller.objects.pool import PoolSpec

DEPLOYMENT_GRACE_SECONDS = 30
"""What a Pod has to end in, where its template does not say it."""
POINTS = 1440
LEAST_GRID_SECONDS = 60.0


class NothingToSimulate(PodslotsError):
    """A pool without autoscaling, or tasks that none of its slots accepts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Of the comparison. Times in seconds; `fixed`: sizes to try, none: the average and the peak that podslots had."""

    pod_start_seconds: float = 20.0
    pass_seconds: float = 2.0
    hpa_target_percents: tuple[float, ...] = (70.0, 30.0)
    fixed: tuple[int, ...] = ()
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """What each strategy came to, podslots first."""

    trace: Trace
    figures: Sequence[Figures]

    def to_json(self) -> dict[str, Any]:
        """As `-o json` has it."""
        return {
            "trace": {
                "tasks": len(self.trace.arrivals),
                "start": format_time(self.trace.start),
                "seconds": round(self.trace.seconds, 1),
            },
            "strategies": [found.to_json() for found in self.figures],
        }

    def table(self) -> Table:
        """A line for each strategy."""
        columns = (
            *("STRATEGY", "PODS MAX", "POD HOURS", "SLOT HOURS", "USED"),
            *(f"{'WAIT ' * (rank == 0)}P{percent}" for rank, percent in enumerate(PERCENTILES)),
            *("MAX", "KILLED PLANS", "RESERVATIONS", "APPLIES", "EXPIRED", "UNFINISHED"),
        )
        return Table(columns, [_row(found) for found in self.figures])


def compare(trace: Trace, spec: PoolSpec, settings: Settings) -> Comparison:
    """Run them all. Raises NothingToSimulate."""
    scaler = spec.scaler
    if scaler is None:
        raise NothingToSimulate("spec.autoscaling is missing or paused: nobody decides on the pool's size")
    _check_types(trace, spec)
    terms = Terms(
        pod_start_seconds=settings.pod_start_seconds,
        reservation_ttl_seconds=spec.reservation_ttl_seconds,
        kill_grace_seconds=_kill_grace_seconds(spec),
        grid_seconds=max(LEAST_GRID_SECONDS, trace.seconds / POINTS),
    )
    ours = Engine(trace, Podslots(spec, pass_seconds=settings.pass_seconds), terms).run(trace.seconds)
    bounds = Bounds(least=max(1, scaler.min_replicas), most=scaler.max_replicas)
    others: list[Strategy] = [
        *(
            Hpa(spec.layout, bounds, percent, seed=settings.seed, name=f"HPA at {percent:g} %")
            for percent in settings.hpa_target_percents
        ),
        PodPerTask(scaler.max_replicas * len(spec.layout)),
        *(
            FixedSize(size, spec.layout, seed=settings.seed, name=f"fixed, {size} Pod{'s' * (size != 1)}")
            for size in settings.fixed or _sizes_of(ours)
        ),
    ]
    # All are paid for as long as podslots took, and longer if they take longer.
    return Comparison(trace, [ours, *(Engine(trace, other, terms).run(ours.seconds) for other in others)])


def _sizes_of(figures: Figures) -> list[int]:
    average = round(figures.pod_seconds / figures.seconds) if figures.seconds else 0
    return sorted({max(1, average), max(1, figures.pods_max)})


def _kill_grace_seconds(spec: PoolSpec) -> float:
    pod = spec.template.get("spec")
    given = isinstance(pod, dict) and pod.get("terminationGracePeriodSeconds") is not None
    return spec.grace_seconds if given else DEPLOYMENT_GRACE_SECONDS


def _check_types(trace: Trace, spec: PoolSpec) -> None:
    """Refuse tasks that no slot takes: they would wait for ever. All such types are named, each with its first line."""
    maker, first = Maker(), dict[str, Arrival]()
    for arrival in trace.arrivals:
        known = first.setdefault(arrival.type, arrival)
        if (arrival.line or 0) < (known.line or 0):
            first[arrival.type] = arrival
    refused = [
        arrival
        for arrival in first.values()
        if refusal(maker.task(arrival, "task", trace.start), replace(spec, template={})) is not None
    ]
    if not refused:
        return
    accepted = ", ".join(sorted({name for accepts in spec.layout for name in accepts}))
    words = [f"{a.type!r}" + (f" (line {a.line})" if a.line is not None else "") for a in refused[:MOST_NAMED]]
    more = f" and {len(refused) - MOST_NAMED} more types" if len(refused) > MOST_NAMED else ""
    raise NothingToSimulate(f"no slot of the pool accepts tasks of type {', '.join(words)}{more}, only {accepted}")


def _row(figures: Figures) -> list[str]:
    document = figures.to_json()
    wait, killed, tasks = document["waitSeconds"], document["killed"], document["tasks"]
    used = (figures.running_seconds + figures.reserved_seconds) / figures.slot_seconds if figures.slot_seconds else 0
    return [
        figures.strategy,
        str(figures.pods_max),
        f"{figures.pod_seconds / HOUR_SECONDS:.1f}",
        f"{figures.slot_seconds / HOUR_SECONDS:.1f}",
        f"{100 * used:.0f}%",
        *(duration(wait[name]) for name in wait),
        *(str(killed[name]) for name in ("plans", "reservations", "applies")),
        str(tasks["expired"]),
        str(tasks["unfinished"]),
    ]


def duration(seconds: float) -> str:
    """As people say it, in two units at most: 0s, 4.5s, 12m30s, 3h20m, 2d4h."""
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{round(seconds, 1):g}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours}h"
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"
