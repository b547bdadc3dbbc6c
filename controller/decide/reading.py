"""What Prometheus answered: a response of its `/api/v1/query`, as values."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from controller.errors import SignalError


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
            raise SignalError(f"{document['errorType']}: {document['error']}")
        kind, result = document["data"]["resultType"], document["data"]["result"]
        if kind == "scalar":
            result = [{"metric": {}, "value": result}]
        elif kind != "vector":
            raise SignalError(f"the answer is a {kind}, not a vector")
        samples = tuple(Sample(_labels(entry["metric"]), float(entry["value"][1])) for entry in result)
        seconds = {float(entry["value"][0]) for entry in result}
        at = datetime.fromtimestamp(min(seconds), UTC) if seconds else datetime.fromtimestamp(0, UTC)
        warnings = document.get("warnings") or ()
        return Answer(at, samples, str(warnings[0]) if warnings else None)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, OverflowError, OSError) as error:
        raise SignalError("this is no answer of Prometheus") from error


def _labels(metric: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in metric.items()}
