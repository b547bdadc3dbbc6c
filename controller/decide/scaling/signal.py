"""What Prometheus says of a pool, and how far that can be believed.

It is joined with the Pods there are: series of others count for nothing. An answer that is missing, old, empty, no
number, not about every Pod, or at odds with what agents report, is no answer. What agents report as running or reserved
outranks all of it: it can say that more is in use than that, never that less is.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from controller.decide.reading import Answer, Reading
from controller.decide.scaling.matching import SlotClass
from controller.decide.view import Alike, PodState, PodView, PoolView
from controller.objects.signal import Fallback, Signal

POLL_SECONDS = 15.0
"""How often Prometheus is asked."""
OLD = timedelta(seconds=3 * POLL_SECONDS)
"""An answer is good until two that should have come after it have not."""
LATE = timedelta(seconds=60)
"""From a slot's change until a scrape has it, at the longest; by so much clocks may differ, too."""
MAX_WAITING = 10**9
"""Tasks that can wait, by what a queue query says: more is a mistake, and would be too much for the status."""
_NAMED = 5
_ROUGHLY = 0.05
"""Averages of samples are not exact: a slot that was taken between two scrapes counts from the second one."""


class SignalWord(StrEnum):
    """The reason why a signal can't be used."""

    UNAVAILABLE = "SignalUnavailable"
    STALE = "SignalStale"
    AWAITED = "SignalAwaited"
    EMPTY = "SignalEmpty"
    INVALID = "SignalInvalid"
    PARTIAL = "SignalPartial"
    CONTRADICTORY = "SignalContradictory"


@dataclass(frozen=True, slots=True)
class SignalProblem:
    """Why a signal can't be used, for people."""

    reason: SignalWord
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a signal adds to the agents' reports.

    `used` slots of all Pods that count, and `rest_used` of those without a reservation, as fractions; `waiting` tasks
    by type. `held`: the utilisation is not known, so thresholds do not apply.
    """

    used: float = 0.0
    rest_used: float = 0.0
    waiting: Mapping[str, int] = field(default_factory=dict)
    problem: SignalProblem | None = None
    held: bool = False


def judge(view: PoolView) -> Judged:
    """What the signal of a pool says, if it has one and that can be believed."""
    signal = view.spec.signal
    if signal is None or view.deleting:
        return Judged()
    found = _judge(view, signal, view.reading or Reading())
    if isinstance(found, SignalProblem):
        return Judged(problem=found, held=signal.fallback is Fallback.HOLD)
    return found


def _judge(view: PoolView, signal: Signal, reading: Reading) -> Judged | SignalProblem:
    if reading.taken is None or reading.utilization is None or reading.queue is None:
        if reading.error is None:
            return SignalProblem(SignalWord.AWAITED, "Prometheus is being asked for the first time")
        return SignalProblem(SignalWord.UNAVAILABLE, reading.error)
    if abs(view.now - reading.taken) > OLD:
        return SignalProblem(
            SignalWord.UNAVAILABLE if reading.error else SignalWord.STALE,
            reading.error or f"the last answer is {(view.now - reading.taken).total_seconds():.0f} s old",
        )
    for name, answer in (("utilization", reading.utilization), ("queue", reading.queue)):
        if answer.partial is not None:
            return SignalProblem(SignalWord.PARTIAL, f"the {name} query: {answer.partial}")
        if answer.samples and abs(reading.taken - answer.at) > timedelta(seconds=signal.window_seconds) + LATE:
            off = (reading.taken - answer.at).total_seconds()
            return SignalProblem(SignalWord.STALE, f"the answer to the {name} query is of {off:.0f} s before it came")
    waiting = _waiting(view, reading.queue)
    if isinstance(waiting, SignalProblem):
        return waiting
    used = _used(view, signal, reading.utilization)
    return used if isinstance(used, SignalProblem) else Judged(used=used[0], rest_used=used[1], waiting=waiting)


def _waiting(view: PoolView, answer: Answer) -> dict[str, int] | SignalProblem:
    """How many tasks wait, by type. Tasks without a type count as the type that most slots accept; its key is ""."""
    if not answer.samples:
        return SignalProblem(SignalWord.EMPTY, "the queue query finds nothing")
    found: Counter[str] = Counter()
    for sample in answer.samples:
        if not 0 <= sample.value <= MAX_WAITING:
            return SignalProblem(SignalWord.INVALID, f"the queue query finds {sample.value:g}")
        kind = sample.labels.get("type", "")
        if not kind or view.spec.accepts(kind):
            found[kind] += math.ceil(sample.value)
    if (total := found.total()) > MAX_WAITING:
        return SignalProblem(SignalWord.INVALID, f"the queue query finds {total} tasks")
    return dict(found)


def _used(view: PoolView, signal: Signal, answer: Answer) -> tuple[float, float] | SignalProblem:
    """Slots in use, of all Pods that count and of those without a reservation."""
    shares = _shares(view, answer)
    if isinstance(shares, SignalProblem):
        return shares
    expected_since = view.now - timedelta(seconds=signal.window_seconds) - LATE
    used = rest_used = 0.0
    unfound: list[PodView] = []
    looked_for = 0
    for load, pods in _alike(view):
        held = load.running + load.reserved
        slots = held + len(load.free)
        sum_of_shares = 0.0
        for pod in pods:
            share = shares.get(pod.name)
            if share is None:
                unfound.append(pod)
                share = held / slots
            elif (
                not held / slots - _ROUGHLY <= share <= 1 + _ROUGHLY
                and (problem := _doubt(pod, share, expected_since)) is not None
            ):
                return problem
            sum_of_shares += share
        looked_for += len(pods)
        used += sum_of_shares * slots
        if not load.reserved:
            rest_used += sum_of_shares * slots
    return _missing(unfound, expected_since, found=len(unfound) < looked_for) or (used, rest_used)


def _alike(view: PoolView) -> Iterable[Alike]:
    """The Pods that count and whose agents were heard. Of 10 000 nearly all just serve, and are looked at in groups."""
    others = (
        Alike(pod.load, [pod]) for pod in view.others if pod.counts and not pod.retiring and pod.agent is not None
    )
    return (*view.serving, *others)


def _shares(view: PoolView, answer: Answer) -> Mapping[str, float] | SignalProblem:
    """The share that is in use, by Pod. Whether it is of a Pod that is there, nobody knows here."""
    found = answer.by_pod(view.namespace)
    if found.nameless:
        return SignalProblem(SignalWord.INVALID, "the utilization query finds a series without the label pod")
    if found.twice is not None:
        return SignalProblem(SignalWord.CONTRADICTORY, f"the utilization query finds Pod {found.twice} twice")
    return found.values


def _missing(unfound: Iterable[PodView], expected_since: datetime, *, found: bool) -> SignalProblem | None:
    """Pods are not there that every scrape of the window must have had; or no Pod at all is there."""
    serving = [pod for pod in unfound if pod.state is PodState.ACTIVE]
    missing = sorted(pod.name for pod in serving if pod.opened is not None and pod.opened <= expected_since)
    if missing and found:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        return SignalProblem(SignalWord.PARTIAL, f"the utilization query lacks {', '.join(missing[:_NAMED])}{more}")
    if missing:
        return SignalProblem(SignalWord.EMPTY, "the utilization query finds none of the pool's Pods")
    if serving and not found:
        return SignalProblem(SignalWord.AWAITED, "the utilization query finds none of the pool's Pods yet")
    return None


def _doubt(pod: PodView, share: float, since: datetime) -> SignalProblem | None:
    """Why a Pod's value can't be right: it is missing, or lower than its agent has held at every moment `since`."""
    if not 0 <= share <= 1 + _ROUGHLY:
        text = f"the utilization query finds {share:g} for Pod {pod.name}, not 0 to 1"
        return SignalProblem(SignalWord.INVALID, text)
    if not pod.held or pod.agent is None:
        return None
    long, slots = sum(slot.since <= since for slot in pod.held), len(pod.agent.slots)
    if share + _ROUGHLY >= long / slots:
        return None
    text = f"Pod {pod.name} has held {long} of {slots} slots all the while, and the utilization query finds {share:g}"
    return SignalProblem(SignalWord.CONTRADICTORY, text)


def demand_with(own: Counter[str], judged: Judged, layout: tuple[SlotClass, ...]) -> Counter[str]:
    """What waits for a slot: what is known here, and of what the signal says as much as goes beyond that."""
    if not judged.waiting:
        return own
    result = Counter(own)
    for kind, count in judged.waiting.items():
        if kind:
            result[kind] = max(result[kind], count)
    beyond = judged.waiting.get("", 0) - result.total()
    if beyond > 0:
        takers = Counter(kind for accepts in layout for kind in accepts)
        result[min(takers, key=lambda kind: (-takers[kind], kind))] += beyond
    return +result
