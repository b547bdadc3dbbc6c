"""What Prometheus answered: a response of its `/api/v1/query`, as values."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from controller.errors import SignalError

MAX_TEXT_LENGTH = 1000
"""Characters of what Prometheus says in words: they become a condition's message, an Event and a line of the log."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of an instant vector."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one query. `at` is when it was evaluated, by the clock of Prometheus."""

    at: datetime
    samples: tuple[Sample, ...]
    partial: str | None = None
    """A warning that came with it: something was not asked, or did not answer."""
    _kept: dict[str, "ByPod"] = field(default_factory=dict, compare=False, repr=False)

    def by_pod(self, namespace: str) -> "ByPod":
        """The samples of a namespace by their label `pod`; sorted once, as an answer is looked at by many passes."""
        if namespace not in self._kept:
            self._kept[namespace] = _by_pod(self.samples, namespace)
        return self._kept[namespace]


@dataclass(frozen=True, slots=True)
class ByPod:
    """Values by Pod. `nameless`: a sample has no label `pod`. `twice`: a Pod that several samples are about."""

    values: Mapping[str, float]
    nameless: bool = False
    twice: str | None = None


def _by_pod(samples: Iterable[Sample], namespace: str) -> ByPod:
    values: dict[str, float] = {}
    nameless, twice = False, None
    for sample in samples:
        name = sample.labels.get("pod")
        if name is None:
            nameless = True
        elif sample.labels.get("namespace", namespace) == namespace:
            twice = name if name in values else twice
            values[name] = sample.value
    return ByPod(values, nameless, twice)


@dataclass(frozen=True, slots=True)
class Reading:
    """The last answers, and when they came by our clock; None if none ever came. `error`: why no newer ones did."""

    taken: datetime | None = None
    utilization: Answer | None = None
    queue: Answer | None = None
    error: str | None = None


def parse_answer(document: Any) -> Answer:
    """The answer in a response of Prometheus' `/api/v1/query`. Raises SignalError."""
    try:
        if document["status"] != "success":
            raise SignalError(f"{document['errorType']}: {document['error']}"[:MAX_TEXT_LENGTH])
        kind, result = document["data"]["resultType"], document["data"]["result"]
        if kind == "scalar":
            result = [{"metric": {}, "value": result}]
        elif kind != "vector":
            raise SignalError(f"the answer is a {kind}, not a vector")
        samples = tuple(Sample(_labels(entry["metric"]), float(entry["value"][1])) for entry in result)
        seconds = {float(entry["value"][0]) for entry in result}
        at = datetime.fromtimestamp(min(seconds), UTC) if seconds else datetime.fromtimestamp(0, UTC)
        warnings = document.get("warnings") or ()
        return Answer(at, samples, str(warnings[0])[:MAX_TEXT_LENGTH] if warnings else None)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, OverflowError, OSError) as error:
        raise SignalError("this is no answer of Prometheus") from error


def _labels(metric: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in metric.items()}
