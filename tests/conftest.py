"""What holds for all tests: the event loops they run on, and that none is judged by the machine it runs on."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, settings

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

TESTS = Path(__file__).parent


def uvloop_that_stops_at_a_timeout() -> asyncio.AbstractEventLoop:
    """uvloop hands what a signal handler raises to the exception handler and goes on: a test's timeout too."""
    loop = uvloop.new_event_loop()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if isinstance(context.get("exception"), pytest.fail.Exception):
            loop.stop()
        loop.default_exception_handler(context)

    loop.set_exception_handler(handle)
    return loop


ON_ASYNCIO: Mapping[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
ON_UVLOOP: Mapping[str, LoopFactory] = {"uvloop": uvloop_that_stops_at_a_timeout}

# Whether a change is well must not depend on luck: every run tries the same examples. New ones are sought by
# `make soak`, with `--hypothesis-profile=search`.
settings.register_profile("same", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, LoopFactory]:
    """Tests run on the loop that what they test runs on in production.

    Agent, controller and embedded cluster run on uvloop, the command line on asyncio's own loop. Modules alone must
    work on both: their tests run twice.
    """
    folders = item.path.relative_to(TESTS).parts
    if "cli" in folders:
        return ON_ASYNCIO
    if folders[0] == "unit":
        return {**ON_ASYNCIO, **ON_UVLOOP}
    return ON_UVLOOP
