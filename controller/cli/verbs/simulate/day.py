"""A day of made-up work: few tasks at night, most in office hours, and approvals that only come the next morning."""

import random
from dataclasses import replace
from datetime import datetime

from controller.cli.verbs.simulate.durations import Durations
from controller.cli.verbs.simulate.trace import DEFAULT_START, Arrival, Trace
from controller.objects.pool import Layout

DAY_SECONDS = 86400
HOUR_WEIGHTS = (1, 1, 1, 1, 1, 1, 2, 5, 12, 16, 18, 16, 11, 15, 18, 17, 14, 9, 5, 3, 2, 2, 1, 1)
"""How many tasks come in each hour of the day, in proportion."""
TYPE_WEIGHTS = {"plan": 86, "plan_and_apply": 10, "apply": 4}
"""Most plans are those of merge requests, which nobody applies. A type of the layout's own weighs as an apply."""
OFFICE_HOURS = (8, 18)
TASKS_PER_KEY = 2.0
"""Tasks that may change things, per workspace and day: each workspace is a lockKey."""


def make_day(
    layout: Layout, *, tasks: int, seed: int, start: datetime = DEFAULT_START, durations: Durations | None = None
) -> Trace:
    """`tasks` tasks of types that the layout takes, within 24 hours. The same arguments give the same day."""
    rng, middle = random.Random(seed), durations or Durations()  # noqa: S311 - repeatable, and no secret
    accepted = sorted({name for accepts in layout for name in accepts})
    weights = [TYPE_WEIGHTS.get(name, TYPE_WEIGHTS["apply"]) for name in accepted]
    hours = rng.choices(range(24), HOUR_WEIGHTS, k=tasks)
    times = sorted(round(hour * 3600 + rng.uniform(0, 3600), 1) for hour in hours)
    types = rng.choices(accepted, weights, k=tasks)
    changing = sum(name in {"apply", "plan_and_apply"} for name in types)
    keys = max(1, round(changing / TASKS_PER_KEY))
    arrivals = []
    for at, name in zip(times, types, strict=True):
        key = f"workspace-{rng.randrange(keys)}" if name in {"apply", "plan_and_apply"} else None
        arrivals.append(_in_office_hours(rng, middle.arrival(rng, at, name, key)))
    return Trace(tuple(arrivals), start)


def _in_office_hours(rng: random.Random, arrival: Arrival) -> Arrival:
    """The arrival with its approval given while people work: one that falls into the night comes the next morning."""
    if arrival.approval_seconds is None or arrival.plan_seconds is None:
        return arrival
    asked = arrival.at + arrival.plan_seconds
    given = asked + arrival.approval_seconds
    opens, closes = (hour * 3600 for hour in OFFICE_HOURS)
    day, second = divmod(given, DAY_SECONDS)
    if opens <= second < closes:
        return arrival
    morning = (day + (second >= closes)) * DAY_SECONDS + opens + rng.uniform(0, 7200)
    return replace(arrival, approval_seconds=round(max(0.0, morning - asked), 1))
