"""What a trace is made of that a Prometheus answered, and how bad answers are told."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from controller.cli.verbs.simulate.durations import Durations
from controller.cli.verbs.simulate.prometheus import DEFAULT_QUERY, MOST_POINTS, NoDemand, Question, ask, to_trace
from controller.cli.verbs.simulate.trace import Trace

BEGIN = datetime(2026, 3, 1, 8, tzinfo=UTC)


def question(url: str = "http://unused", **given: Any) -> Question:
    rest = {"query": DEFAULT_QUERY, "pool": "terraform", "begin": BEGIN, "end": BEGIN + timedelta(hours=1), **given}
    return Question(url=url, **rest)


def series(*values: float | str, **labels: str) -> dict[str, Any]:
    """One point for each minute from 08:01 on."""
    start = BEGIN.timestamp()
    return {"metric": labels, "values": [[start + 60 * n, str(value)] for n, value in enumerate(values, 1)]}


def trace(*found: dict[str, Any], **given: Any) -> Trace:
    return to_trace(list(found), question(**given), Durations(), seed=1)


def test_each_point_counts_the_tasks_of_the_step_before_it() -> None:
    made = trace(series(2, 0, 1, type="plan"))
    assert [int(arrival.at // 60) for arrival in made.arrivals] == [0, 0, 2]
    assert {arrival.type for arrival in made.arrivals} == {"plan"}
    assert made.start == BEGIN


def test_fractions_add_up() -> None:
    """increase() reaches to the ends of its range, and so gives fractions."""
    assert len(trace(series(*[1.2] * 10)).arrivals) == 12
    assert len(trace(series(*[0.1] * 10)).arrivals) == 1


def test_the_type_is_a_label_or_what_was_said() -> None:
    made = trace(series(1, type="plan"), series(1, task_type="apply"), series(1, pool="x"), default_type="lint")
    assert sorted(arrival.type for arrival in made.arrivals) == ["apply", "lint", "plan"]


def test_what_is_no_number_counts_nothing() -> None:
    assert len(trace(series("NaN", 1, "+Inf")).arrivals) == 1


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ([], "no task arrived"),
        ([series(0, 0)], "no task arrived"),
        ([series(-1)], "fewer than no tasks"),
        ([series("many")], "no matrix of numbers"),
        ([{"metric": {}}], "no matrix of numbers"),
        ([series(1e12)], "more than 10,000,000 tasks"),
    ],
)
def test_other_answers_are_refused(found: list[Any], problem: str) -> None:
    with pytest.raises(NoDemand, match=problem):
        trace(*found)


@asynccontextmanager
async def serving(handler: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/api/v1/query_range", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_long_time_is_asked_for_in_parts_with_the_token_and_the_pool() -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        form = await request.post()
        asked.append((float(str(form["start"])), float(str(form["end"]))))
        assert request.headers["Authorization"] == "Bearer secret"
        assert form["query"] == 'sum(increase(podslots_pool_slot_wait_seconds_count{pool="terraform"}[60s]))'
        point = [float(str(form["end"])), "1"]
        result = [{"metric": {}, "values": [point]}]
        return web.json_response({"status": "success", "data": {"resultType": "matrix", "result": result}})

    end = BEGIN + timedelta(minutes=MOST_POINTS + 5)
    async with serving(answer) as url:
        made = await asyncio.to_thread(ask, question(f"{url}/", end=end, token="secret"), Durations(), seed=1)
    assert len(made.arrivals) == 2
    first = BEGIN.timestamp() + 60
    middle = first + 60 * (MOST_POINTS - 1)
    assert asked == [(first, middle), (middle + 60, end.timestamp())]


@pytest.mark.parametrize(
    ("status", "text", "problem"),
    [
        (400, json.dumps({"status": "error", "error": "parse error: x"}), "answers 400: parse error: x"),
        (502, "<html>bad gateway</html>", "answers 502: <html>bad gateway"),
        (200, "", "answers 200: nothing"),
        (200, json.dumps({"data": {"resultType": "vector", "result": []}}), "answers 200"),
    ],
)
async def test_what_prometheus_refuses_is_told_in_its_words(status: int, text: str, problem: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text)

    async with serving(answer) as url:
        with pytest.raises(NoDemand, match=problem):
            await asyncio.to_thread(ask, question(url), Durations(), seed=1)


def test_the_times_have_to_be_in_order() -> None:
    with pytest.raises(NoDemand, match="--from is not before --to"):
        ask(question(end=BEGIN), Durations(), seed=1)
