"""What a metric family is: its name, help, labels and unit, said once. Process and documentation both read it.

A prefix says what a family is about, and so which process shows it: `podslots_controller_` a controller's process,
`podslots_pool_` a pool as its leader sees it, `podslots_agent_` an agent's process, `podslots_slot` an agent's slots.
Base units only, named at the end. The values of each label are named by enums, tables or the pool's own spec: never by
a task, a Pod or a person.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

UNITS = ("seconds", "bytes", "ratio")
"""What a name ends in, if its value has a unit. Everything else is a count."""


class Kind(StrEnum):
    """What can be done with a family's values."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One family. `name` is without the suffixes that a scrape shows (`_total`, `_bucket`, `_sum`, `_count`).

    `labels` says of each label what its values are. `buckets` are a histogram's upper bounds.
    """

    name: str
    kind: Kind
    text: str
    labels: Mapping[str, str] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()

    @property
    def shown_name(self) -> str:
        """The name to query by. A histogram's has `_bucket`, `_sum` and `_count` after it."""
        return f"{self.name}_total" if self.kind is Kind.COUNTER else self.name

    @property
    def unit(self) -> str:
        """The unit of its values; empty if they are counts."""
        words = self.name.split("_")
        return words[-1] if words[-1] in UNITS else ""

    # --- for values that are kept in the client library ---------------------------------------------------------------

    def gauge(self, registry: CollectorRegistry) -> Gauge:
        """The family in a registry, as a gauge."""
        return Gauge(self.name, self.text, tuple(self.labels), registry=registry)

    def counter(self, registry: CollectorRegistry) -> Counter:
        """The family in a registry, as a counter."""
        return Counter(self.name, self.text, tuple(self.labels), registry=registry)

    def histogram(self, registry: CollectorRegistry) -> Histogram:
        """The family in a registry, as a histogram."""
        return Histogram(self.name, self.text, tuple(self.labels), buckets=self.buckets, registry=registry)

    # --- for values that are made at a scrape -------------------------------------------------------------------------

    def collected(self) -> Any:
        """The family without samples: of the class in `prometheus_client.core` that its kind has."""
        made = {
            Kind.GAUGE: GaugeMetricFamily,
            Kind.COUNTER: CounterMetricFamily,
            Kind.HISTOGRAM: HistogramMetricFamily,
        }
        return made[self.kind](self.name, self.text, labels=tuple(self.labels))


class Buckets:
    """The values of one histogram series. One thread only; a tenth of what the client library's takes."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value, in the unit of its family."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Each upper bound with how many values are not above it, the last one `+Inf`."""
        total, buckets = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return buckets


def gauge(name: str, text: str, labels: Mapping[str, str] | None = None) -> Family:
    """A value that goes up and down."""
    return Family(name=name, kind=Kind.GAUGE, text=text, labels=labels or {})


def counter(name: str, text: str, labels: Mapping[str, str] | None = None) -> Family:
    """A count of what has happened since the process began."""
    return Family(name=name, kind=Kind.COUNTER, text=text, labels=labels or {})


def histogram(name: str, text: str, buckets: tuple[float, ...], labels: Mapping[str, str] | None = None) -> Family:
    """How values are distributed."""
    return Family(name=name, kind=Kind.HISTOGRAM, text=text, labels=labels or {}, buckets=buckets)
