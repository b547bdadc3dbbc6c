"""Readers of signals on virtual time: when they ask, whom, by what right, and what stays if no answer comes."""

import asyncio
import base64
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

from controller.decide.reading import Answer, Reading, Sample
from controller.decide.scaling.signal import POLL_SECONDS
from controller.errors import SignalError
from controller.kube.api import SECRETS, Object
from controller.objects.signal import Signal, SignalTls
from controller.prometheus.client import Server
from controller.prometheus.readers import Key, Readers
from tests.support import virtual_time
from tests.support.memory_api import MemoryApi

KEY = ("ns", "pool")
SIGNAL = Signal(url="http://prometheus:9090")


class Site:
    """Readers, and a Prometheus that says what it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[Server, str]] = []
        self.problem: Exception | None = None
        self.woken: list[Key] = []
        self.api = MemoryApi()
        self.readers = Readers(self.api, self.ask, now=now, on_change=self.woken.append)

    async def ask(self, server: Server, query: str) -> Answer:
        self.asked.append((server, query))
        if self.problem is not None:
            raise self.problem
        return Answer(now(), (Sample({}, float(len(self.asked))),))

    def want(self, signal: Signal | None = SIGNAL) -> Reading | None:
        return self.readers.want(KEY, signal)

    async def secret(self, name: str, **data: bytes) -> None:
        body: Object = {
            "metadata": {"name": name, "namespace": "ns"},
            "data": {key.replace("_", "."): base64.b64encode(value).decode() for key, value in data.items()},
        }
        await self.api.create(SECRETS, "ns", body)


def now() -> datetime:
    return datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=asyncio.get_running_loop().time())


def play(story: Callable[[Site], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        site = Site()
        owner = asyncio.create_task(site.readers.run())
        await asyncio.sleep(0.001)
        try:
            await story(site)
        finally:
            owner.cancel()
            await asyncio.gather(owner, return_exceptions=True)
        assert not [task for task in asyncio.all_tasks() if (task.get_name() or "").startswith("signal of")]

    virtual_time.run(main)


def test_a_pool_s_signal_is_read_at_once_and_then_again_and_again() -> None:
    async def story(site: Site) -> None:
        assert site.want() == Reading()
        await asyncio.sleep(1)
        first = site.want()
        assert first is not None
        assert first.utilization is not None
        assert first.queue is not None
        assert [query.partition("(")[0] for _, query in site.asked] == ["sum by ", "max"]
        assert site.woken == [KEY]
        await asyncio.sleep(4 * POLL_SECONDS)
        assert len(site.asked) == 10
        assert len(site.woken) == 5

    play(story)


def test_the_queries_are_filled_in() -> None:
    async def story(site: Site) -> None:
        site.want(
            Signal(
                url="http://p", utilization_query='x{n="$namespace",p=~"$pods",r="a$"}[$window]', queue_query="$pool"
            )
        )
        await asyncio.sleep(1)
        assert [query for _, query in site.asked] == ['x{n="ns",p=~"pool-[a-z0-9]{10}",r="a$"}[120s]', "pool"]

    play(story)


def test_what_was_read_last_stays_while_there_is_no_answer_and_why_is_said() -> None:
    async def story(site: Site) -> None:
        site.want()
        await asyncio.sleep(1)
        before = site.want()
        assert before is not None
        for problem, words in (
            (SignalError("http://p: connection refused"), "http://p: connection refused"),
            (RuntimeError("secret text"), "it can't be read: see the controller's log"),
        ):
            site.problem = problem
            await asyncio.sleep(POLL_SECONDS)
            during = site.want()
            assert during is not None
            assert (during.taken, during.utilization, during.error) == (before.taken, before.utilization, words)
        site.problem = None
        await asyncio.sleep(POLL_SECONDS)
        after = site.want()
        assert after is not None
        assert after.error is None
        assert after.taken is not None
        assert before.taken is not None
        assert after.taken > before.taken

    play(story)


def test_a_signal_that_is_another_one_begins_anew_and_one_that_is_no_more_is_not_read() -> None:
    async def story(site: Site) -> None:
        site.want()
        await asyncio.sleep(1)
        assert site.want(Signal(url="http://other")) == Reading(), "the old one's answers say nothing about the new one"
        await asyncio.sleep(1)
        assert [server.url for server, _ in site.asked] == ["http://prometheus:9090"] * 2 + ["http://other"] * 2
        assert site.want(None) is None
        await asyncio.sleep(10 * POLL_SECONDS)
        assert len(site.asked) == 4
        site.want()
        await asyncio.sleep(1)
        site.readers.forget_all()
        await asyncio.sleep(10 * POLL_SECONDS)
        assert len(site.asked) == 6

    play(story)


def test_the_token_is_read_from_its_secret_each_time() -> None:
    async def story(site: Site) -> None:
        signal = Signal(url="http://p", token_secret="t")
        site.want(signal)
        await asyncio.sleep(1)
        reading = site.want(signal)
        assert reading is not None
        assert "Secret t: 404" in str(reading.error)
        assert site.asked == []
        await site.secret("t", token=b"first\n")
        await asyncio.sleep(POLL_SECONDS)
        assert [server.token for server, _ in site.asked] == ["first", "first"]
        assert "first" not in repr(site.asked[0][0])
        await site.api.delete(SECRETS, "ns", "t")
        await site.secret("t", token=b"second")
        await asyncio.sleep(POLL_SECONDS)
        assert site.asked[-1][0].token == "second"

    play(story)


def test_a_secret_that_can_t_be_used_is_said_and_nobody_is_asked() -> None:
    async def story(site: Site) -> None:
        await site.secret("none", other=b"x")
        await site.secret("nonsense", ca_crt=b"not a certificate")
        cases = [
            (Signal(url="http://p", token_secret="none"), "Secret none lacks token"),
            (Signal(url="https://p", tls=SignalTls(secret="none")), "Secret none lacks ca.crt"),
            (Signal(url="https://p", tls=SignalTls(secret="nonsense")), "Secret nonsense can't be used"),
        ]
        for signal, words in cases:
            site.want(signal)
            await asyncio.sleep(1)
            reading = site.want(signal)
            assert reading is not None
            assert words in str(reading.error)
        assert site.asked == []

    play(story)


def test_without_a_way_to_ask_it_says_so() -> None:
    async def story(site: Site) -> None:
        readers = Readers(site.api, None, now=now, on_change=site.woken.append)
        readers.want(KEY, SIGNAL)
        await asyncio.sleep(1)
        reading = readers.want(KEY, SIGNAL)
        assert reading is not None
        assert reading.error == "this controller asks no Prometheus"
        readers.forget_all()

    play(story)
