"""A figure beside its reference; the two are measured in turn, so that what disturbs one disturbs the other."""

import gc
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import orjson


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. `bar` is what `ratio` must reach (`at_least`) or keep to.

    Without a reference the bar is for the value itself. `spread` is the lowest and the highest ratio of a round.
    `cpu_ratio` compares the CPU time that the servers used: other people's load does not get into it.
    """

    subject: str
    figure: str
    unit: str
    value: float
    reference_name: str = ""
    reference: float | None = None
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    cpu_ratio: float | None = None
    bar: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def judged(self) -> float:
        return self.value if self.ratio is None else self.ratio

    @property
    def met(self) -> bool | None:
        """None where there is no bar."""
        if self.bar is None:
            return None
        return self.judged >= self.bar if self.at_least else self.judged <= self.bar

    def to_json(self) -> bytes:
        document: dict[str, Any] = {**asdict(self), "met": self.met}
        return orjson.dumps({key: value for key, value in document.items() if value not in (None, "")})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measurement. `cpu` is the same in terms of CPU time that the measured processes used, where that is fair."""

    value: float
    cpu: float | None = None


Measure = Callable[[], Awaitable[Sample]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Rounds of two measurements, each pair taken one right after the other."""

    subject: Sequence[Sample]
    reference: Sequence[Sample]

    @property
    def value(self) -> float:
        """The subject's median."""
        return median(sample.value for sample in self.subject)

    def also(self, other: "Compared") -> "Compared":
        """With the rounds of another launch."""
        return Compared(subject=[*self.subject, *other.subject], reference=[*self.reference, *other.reference])

    def row(self, subject: str, figure: str, unit: str, **given: Any) -> Row:
        """The medians, and the median of the rounds' ratios."""
        pairs = list(zip(self.subject, self.reference, strict=True))
        ratios = [one.value / other.value for one, other in pairs]
        cpu = [one.cpu / other.cpu for one, other in pairs if one.cpu and other.cpu]
        return Row(
            subject=subject,
            figure=figure,
            unit=unit,
            value=self.value,
            reference=median(sample.value for sample in self.reference),
            ratio=median(ratios),
            spread=(min(ratios), max(ratios)),
            cpu_ratio=median(cpu) if cpu else None,
            **given,
        )


async def interleave(subject: Measure, reference: Measure, rounds: int) -> Compared:
    """A B B A A B …: neither has always the other's leftovers. One round of each before counting."""
    await reference()
    await subject()
    ours: list[Sample] = []
    theirs: list[Sample] = []
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            if number % 2:
                theirs.append(await reference())
                ours.append(await subject())
            else:
                ours.append(await subject())
                theirs.append(await reference())
    finally:
        gc.enable()
    return Compared(subject=ours, reference=theirs)


def slope(ys: Sequence[float]) -> float:
    """Of the least-squares line through evenly spaced values, per step."""
    count = len(ys)
    if count < 2:
        return 0.0
    middle, mean = (count - 1) / 2, sum(ys) / count
    above = sum((x - middle) * (y - mean) for x, y in enumerate(ys))
    return above / sum((x - middle) ** 2 for x in range(count))


def percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
