"""How far the size may go towards what is asked for: windows and policies, as Kubernetes' autoscaling/v2 has them.

First the windows (`stabilizeRecommendationWithBehaviors` of its horizontal.go): up only as far as was asked for during
all of the window, down only as far as was enough during all of it. Then the policies
(`convertDesiredReplicasWithBehaviorRate`): each counts from the size at the beginning of its period.

Three things are different. Kubernetes samples a size every 15 seconds; here a size counts until another one is asked
for, so the result does not depend on when somebody looked. A percentage of zero Pods is one Pod, so a pool can grow
from zero by Percent alone. And a pool may always go to the size that it has, or was told to have before: that is not a
change.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise

from controller.objects.behavior import Behavior, PolicyType, ScalingPolicy, ScalingRules, SelectPolicy
from controller.objects.scaling_history import MOST, Entries, Entry, ScalingHistory


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the load asks for: `pods`. Of those, `at_once` are needed to place what waits, and the idle slots wanted.

    `size` is how many Pods there are.
    """

    pods: int
    at_once: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """The size that may be now, and the history with that.

    `stabilized`: a window holds it. `limited`: a policy does. `until` is when that changes first, None if it won't by
    itself.
    """

    pods: int
    history: ScalingHistory
    stabilized: bool = False
    limited: bool = False
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Case:
    """What is asked for, now, of a pool that was told to have `before` Pods."""

    asked: Asked
    before: int
    now: datetime


def allow(behavior: Behavior, history: ScalingHistory, asked: Asked, now: datetime) -> Allowed:
    """How far the size may go towards what is asked for."""
    history = _not_later(history, now)
    before = asked.size if history.desired is None else history.desired
    case = _Case(asked, before, now)
    history, low, high = _windows(behavior, history, case)
    if asked.pods > max(before, asked.size):
        return _up(behavior, history, low, case)
    if asked.pods < before:
        return _down(behavior.scale_down, history, high, case)
    return Allowed(pods=asked.pods, history=replace(history, desired=asked.pods))


def settled(history: ScalingHistory, pods: int) -> ScalingHistory:
    """The history after the size was decided on by something else than `behavior`."""
    return replace(history, desired=pods)


@dataclass(frozen=True, slots=True)
class _Bound:
    """How far a window lets the size go, and when it lets it go further."""

    pods: int
    until: datetime | None = None


def _up(behavior: Behavior, history: ScalingHistory, low: _Bound, case: _Case) -> Allowed:
    rules, asked, now = behavior.scale_up, case.asked, case.now
    base = max(case.before, asked.size)
    if not behavior.limits_queue:
        base = max(base, min(asked.at_once, asked.pods))
    target = max(base, min(asked.pods, low.pods))
    limit = _limit(rules, base, history.ups, history.downs, now, up=True)
    pods = min(target, max(base, limit))
    if pods > base:
        history = replace(history, ups=_counted(history.ups, pods - base, rules, now))
    limited, stabilized = pods < target, target < asked.pods
    return Allowed(
        pods=pods,
        history=replace(history, desired=pods),
        stabilized=stabilized and not limited,
        limited=limited,
        until=_next(rules, history.ups, now) if limited else low.until if stabilized else None,
    )


def _down(rules: ScalingRules, history: ScalingHistory, high: _Bound, case: _Case) -> Allowed:
    asked, before, now = case.asked, case.before, case.now
    target = min(before, max(asked.pods, high.pods))
    # Pods that are gone already, as when their node died, need no policy's leave, and no window's past those.
    base = before if rules.select is SelectPolicy.DISABLED else max(target, min(before, asked.size))
    limit = _limit(rules, base, history.downs, history.ups, now, up=False)
    pods = max(target, min(base, limit))
    if pods < base:
        history = replace(history, downs=_counted(history.downs, base - pods, rules, now))
    limited, stabilized = pods > target, target > asked.pods
    return Allowed(
        pods=pods,
        history=replace(history, desired=pods),
        stabilized=stabilized and not limited,
        limited=limited,
        until=_next(rules, history.downs, now) if limited else high.until if stabilized else None,
    )


# --- policies ---------------------------------------------------------------------------------------------------------


def _limit(rules: ScalingRules, base: int, same: Entries, opposite: Entries, now: datetime, *, up: bool) -> int:
    """How far the policies let the size go from `base`."""
    if rules.select is SelectPolicy.DISABLED:
        return base
    sign = 1 if up else -1
    proposals = []
    for policy in rules.policies:
        period = timedelta(seconds=policy.period_seconds)
        done = sum(entry.pods for entry in same if entry.time + period > now)
        undone = sum(entry.pods for entry in opposite if entry.time + period > now)
        proposals.append(_proposal(policy, base - sign * (done - undone), up=up))
    # Up, the largest change leads to the largest size; down to the least.
    largest_change = rules.select is SelectPolicy.MAX
    return max(proposals) if largest_change == up else min(proposals)


def _next(rules: ScalingRules, same: Entries, now: datetime) -> datetime | None:
    """When the first of these changes no longer counts."""
    if rules.select is SelectPolicy.DISABLED:
        return None
    periods = [timedelta(seconds=policy.period_seconds) for policy in rules.policies]
    moments = [entry.time + period for entry in same for period in periods]
    return min((moment for moment in moments if moment > now), default=None)


def _proposal(policy: ScalingPolicy, start: int, *, up: bool) -> int:
    if policy.type is PolicyType.PODS:
        return start + policy.value if up else start - policy.value
    if up:
        return max(start + 1, math.ceil(start * (100 + policy.value) / 100))
    return math.floor(start * (100 - policy.value) / 100)


def _counted(entries: Entries, pods: int, rules: ScalingRules, now: datetime) -> Entries:
    """With one change more, and without those that no policy looks at any longer."""
    longest = timedelta(seconds=max(policy.period_seconds for policy in rules.policies))
    kept = [entry for entry in entries if entry.time + longest > now]
    kept.append(Entry(now, pods))
    while len(kept) > MOST:
        # The two that lie closest together count as one at the later time.
        index = _closest([entry.time for entry in kept])
        kept[index : index + 2] = [Entry(kept[index + 1].time, kept[index].pods + kept[index + 1].pods)]
    return tuple(kept)


# --- windows ----------------------------------------------------------------------------------------------------------


def _windows(behavior: Behavior, history: ScalingHistory, case: _Case) -> tuple[ScalingHistory, _Bound, _Bound]:
    """The history with what is asked for now; the least that was asked for in the window up, the most in that down."""
    up = timedelta(seconds=behavior.scale_up.stabilization_window_seconds)
    down = timedelta(seconds=behavior.scale_down.stabilization_window_seconds)
    lows, low = _window(history.lows, up, case, stays=lambda old, new: old < new)
    highs, high = _window(history.highs, down, case, stays=lambda old, new: old > new)
    return replace(history, lows=lows, highs=highs), low, high


def _window(
    entries: Entries, length: timedelta, case: _Case, *, stays: Callable[[int, int], bool]
) -> tuple[Entries, _Bound]:
    """The entries with what is asked for as the last one, and what bounds it.

    `stays(old, new)`: an earlier entry goes on to bound the size beside a new one. The first time, the size before
    counts as what was asked for until then.
    """
    pods, now = case.asked.pods, case.now
    if not length:
        return (), _Bound(pods)
    kept = list(entries or (Entry(now, case.before),))
    if kept[-1].pods != pods:
        since = now
        while kept and not stays(kept[-1].pods, pods):
            since = kept.pop().time
        kept.append(Entry(since, pods))
        while len(kept) > 1 and kept[1].time + length <= now:
            del kept[0]
        while len(kept) > MOST:
            # An entry ends when the next one begins: without that one it lasts a little longer.
            del kept[_closest([entry.time for entry in kept[1:]]) + 1]
    held = [(entry, following.time + length) for entry, following in pairwise(kept) if following.time + length > now]
    bound = _Bound(held[0][0].pods, held[0][1]) if held else _Bound(pods)
    return tuple(kept), bound


def _closest(times: list[datetime]) -> int:
    """The place of the first of the two neighbours that are closest together."""
    return min(range(len(times) - 1), key=lambda index: times[index + 1] - times[index])


def _not_later(history: ScalingHistory, now: datetime) -> ScalingHistory:
    """A clock that was ahead has left times that are yet to come: without this they would hold the size until then."""
    lists = (history.ups, history.downs, history.lows, history.highs)
    if all(entries[-1].time <= now for entries in lists if entries):
        return history
    ups, downs, lows, highs = (tuple(replace(entry, time=min(entry.time, now)) for entry in part) for part in lists)
    return replace(history, ups=ups, downs=downs, lows=lows, highs=highs)
