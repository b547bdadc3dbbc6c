"""Demand from a Prometheus: how many tasks arrived in each step of time, by a range query."""

import asyncio
import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import aiohttp

from controller.cli.verbs.simulate.durations import Durations
from controller.cli.verbs.simulate.trace import Arrival, Trace
from controller.errors import PodslotsError
from controller.unreached import why_unreached

DEFAULT_QUERY = 'sum(increase(podslots_pool_slot_wait_seconds_count{pool="{pool}"}[{step}s]))'
"""Tasks that got a slot of the pool, as the controller counts them. It knows no types: `sum by (type)` of a counter of
somebody else's does."""
STEP_MARK, POOL_MARK = "{step}", "{pool}"
TYPE_LABELS = ("type", "task_type")
DEFAULT_TYPE = "plan_and_apply"
MOST_POINTS = 10_000
"""Of one request: a Prometheus gives 11 000 at most."""
MOST_TASKS = 10_000_000
TIMEOUT_SECONDS = 60.0
_OK = 200
_MOST_SAID = 300


class NoDemand(PodslotsError):
    """Prometheus did not answer, or its answer can't be used as a trace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked, of which pool. Each point of the answer counts the tasks of the `step_seconds` before it."""

    url: str
    query: str
    pool: str
    begin: datetime
    end: datetime
    step_seconds: int = 60
    token: str | None = None
    default_type: str = DEFAULT_TYPE


def ask(question: Question, durations: Durations, *, seed: int) -> Trace:
    """A trace of what arrived. Raises NoDemand."""
    if question.begin >= question.end:
        raise NoDemand("--from is not before --to")
    return to_trace(asyncio.run(_series(question)), question, durations, seed=seed)


def to_trace(series: list[Any], question: Question, durations: Durations, *, seed: int) -> Trace:
    """Arrivals from a matrix of counts. A fraction that is left of a step goes into the next one. Raises NoDemand."""
    rng = random.Random(seed)  # noqa: S311 - repeatable, and no secret
    arrivals: list[Arrival] = []
    for found in series:
        task_type, points = _read(found, question)
        carried = 0.0
        for moment, value in points:
            carried += value
            number = math.floor(carried + 1e-9)
            carried -= number
            if len(arrivals) + number > MOST_TASKS:
                raise NoDemand(
                    f"more than {MOST_TASKS:,} tasks: the query counts something else, or needs a shorter time"
                )
            for _ in range(number):
                at = max(0.0, moment - question.begin.timestamp() - rng.random() * question.step_seconds)
                arrivals.append(durations.arrival(rng, round(at, 1), task_type))
    if not arrivals:
        raise NoDemand("no task arrived in that time, as far as the query tells")
    return Trace(tuple(sorted(arrivals, key=lambda arrival: arrival.at)), question.begin)


def _read(found: Any, question: Question) -> tuple[str, list[tuple[float, float]]]:
    try:
        labels: Mapping[str, str] = found["metric"]
        points = [(float(moment), float(value)) for moment, value in found["values"]]
    except (KeyError, TypeError, ValueError) as error:
        raise NoDemand("the answer is no matrix of numbers") from error
    counts = [(moment, value) for moment, value in points if math.isfinite(value)]
    if any(value < 0 for _, value in counts):
        raise NoDemand("the query counts fewer than no tasks: an increase() of a counter is needed")
    given = (labels[name] for name in TYPE_LABELS if labels.get(name))
    return next(given, question.default_type), counts


async def _series(question: Question) -> list[Any]:
    headers = {"Authorization": f"Bearer {question.token}"} if question.token else {}
    step = timedelta(seconds=question.step_seconds)
    first, found = question.begin + step, []
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    try:
        async with aiohttp.ClientSession(headers=headers, timeout=timeout, trust_env=True) as session:
            while first <= question.end:
                last = min(question.end, first + (MOST_POINTS - 1) * step)
                found += await _range(session, question, first, last)
                first = last + step
    except TimeoutError as error:
        raise NoDemand(f"{question.url} does not answer within {TIMEOUT_SECONDS:.0f} s") from error
    except (aiohttp.ClientError, ValueError) as error:
        raise NoDemand(f"{question.url}: {why_unreached(error)}") from error
    return found


async def _range(session: aiohttp.ClientSession, question: Question, first: datetime, last: datetime) -> list[Any]:
    query = question.query.replace(STEP_MARK, str(question.step_seconds)).replace(POOL_MARK, question.pool)
    form = {
        "query": query,
        "start": str(first.timestamp()),
        "end": str(last.timestamp()),
        "step": str(question.step_seconds),
    }
    async with session.post(f"{question.url.rstrip('/')}/api/v1/query_range", data=form) as response:
        text = await response.text()
    try:
        answer = json.loads(text)
        if response.status == _OK and answer["data"]["resultType"] == "matrix":
            return list(answer["data"]["result"])
        said = str(answer["error"])
    except (ValueError, KeyError, TypeError):
        said = text.strip()
    raise NoDemand(f"{question.url} answers {response.status}: {said[:_MOST_SAID] or 'nothing'}")
