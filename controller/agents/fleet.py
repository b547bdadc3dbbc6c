"""The last state of every agent: one watched stream for each agent, or polls where streams fail.

The Pod list is the registry, the stream is the heartbeat. An agent that was not heard of for `silence_seconds` is not
connected: its last state is kept, as the least that it may hold, and decisions treat it as busy. Reconnecting goes on
for as long as its Pod is followed, whatever went wrong before.

Streams always begin with the whole state. `revision=N` could save that, but a restarted agent counts anew, and its N
may be another state than the N known here.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import orjson

from agent.wire import AgentState, WatchLine, WireError, decode
from controller.agents.answers import misunderstood
from controller.agents.bounds import check_state
from controller.agents.client import AgentClient, Stamps
from controller.agents.tls import PodTls
from controller.agents.transport import Transport
from controller.breaks import Breaks
from controller.errors import AgentRefused, AgentUnreachable

log = logging.getLogger(__name__)

Changed = Callable[[str], None]
Tokens = Callable[[str, str], str | None]
"""The pool's token now, by namespace and pool."""
Secured = Callable[[str, PodTls], Transport]
"""A transport to agents of a namespace that speak TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """Seconds. Agents send a heartbeat every 5 s; two missed ones are a silence.

    `first_line_seconds` is short, for a stream begins with the state at once; a proxy that holds it back is noticed
    so before the silence is. A stream that gave nothing is tried again every `stream_retry_seconds`, polling between.
    """

    silence_seconds: float = 10.0
    first_line_seconds: float = 3.0
    request_timeout_seconds: float = 5.0
    poll_seconds: float = 4.0
    stream_retry_seconds: float = 30.0
    min_backoff_seconds: float = 0.2
    max_backoff_seconds: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentReport:
    """An agent's last state, and whether it is heard of now."""

    state: AgentState
    connected: bool


LINES_PER_SECOND = 50
"""Of one agent's stream; a second's worth may come at once. Of what comes faster the newest lines are taken.

So no agent, nor what imitates one, has the loop to itself, or its pool looked at all the time. A program that takes
slots itself may well cause some hundred changes a second.
"""

NEWEST = 3
"""Lines taken of those that came together: a state and the heartbeats after it. A third one would end a silence."""

_SAID_AT = (5, 50, 500)
"""Failures in a row that are worth a line: at back-off's pace after a few seconds, minutes, and most of an hour."""


class Fleet:
    """Follows agents. `on_change(pod_uid)` is called as a state changes and as an agent comes or goes."""

    def __init__(
        self,
        transport: Transport,
        *,
        tokens: Tokens,
        stamps: Stamps,
        rng: random.Random,
        on_change: Changed,
        secured: Secured | None = None,
        settings: FleetSettings | None = None,
    ) -> None:
        self._transport = transport
        self._tokens = tokens
        self._stamps = stamps
        self._rng = rng
        self._on_change = on_change
        self._secured = secured
        self._settings = settings or FleetSettings()
        self._followers: dict[str, _Follower] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for uid in list(self._followers):
            self.forget(uid)
        while self._ending:
            await asyncio.wait(self._ending)

    def add(
        self, pod_uid: str, url: str, namespace: str, pool: str, tls: PodTls | None = None, *, pod: str = ""
    ) -> None:
        """Follow one agent. A Pod that got another address (its sandbox was made anew) is followed there.

        `pod` is the Pod's name, for people.
        """
        if (known := self._followers.get(pod_uid)) is not None:
            if known.client.url == url:
                return
            self._end(known)
        transport = self._transport_to(namespace, tls)
        client = AgentClient(
            transport,
            url,
            pod_uid,
            token=lambda: self._tokens(namespace, pool),
            stamps=self._stamps,
            timeout_seconds=self._settings.request_timeout_seconds,
        )
        about = {"pool": f"{namespace}/{pool}", "pod": pod, "pod_uid": pod_uid}
        follower = _Follower(client, transport, self._rng, self._on_change, self._settings, about=about)
        if known is not None:
            follower.take_over(known)
        self._followers[pod_uid] = follower
        follower.task = asyncio.get_running_loop().create_task(follower.run(), name=f"follow {pod_uid}")

    def _transport_to(self, namespace: str, tls: PodTls | None) -> Transport:
        if tls is None:
            return self._transport
        if self._secured is None:
            raise NotImplementedError("this fleet was made without TLS")  # never plain instead
        return self._secured(namespace, tls)

    def forget(self, pod_uid: str) -> None:
        """Follow this Pod's agent no more: the Pod is gone."""
        if follower := self._followers.pop(pod_uid, None):
            self._end(follower)

    def client(self, pod_uid: str) -> AgentClient | None:
        """The client of a followed agent: one an agent, for its writes go one after the other."""
        follower = self._followers.get(pod_uid)
        return follower.client if follower else None

    def report(self, pod_uid: str) -> AgentReport | None:
        """What the agent last said; None if it was never heard of."""
        follower = self._followers.get(pod_uid)
        return follower.report() if follower else None

    def note(self, pod_uid: str, state: AgentState) -> None:
        """Take in a state that was read otherwise, as by `client(uid).state()`."""
        if follower := self._followers.get(pod_uid):
            follower.note(state)

    def _end(self, follower: "_Follower") -> None:
        if (task := follower.stop()) is not None:
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)


class _Follower:
    """Keeps one agent's state."""

    def __init__(
        self,
        client: AgentClient,
        transport: Transport,
        rng: random.Random,
        on_change: Changed,
        settings: FleetSettings,
        *,
        about: dict[str, str],
    ) -> None:
        self.client = client
        self._about = about
        self.task: asyncio.Task[None] | None = None
        self._transport = transport
        self._rng = rng
        self._on_change = on_change
        self._settings = settings
        self._state: AgentState | None = None
        self._heard_at = float("-inf")
        self._told_connected = False
        self._timer: asyncio.Handle | None = None
        self._stopped = False
        self._stream_failures = 0
        self._failures = 0
        self._stream_retry_at = 0.0

    def take_over(self, before: "_Follower") -> None:
        """Go on with what is known of the same Pod at another address."""
        self._state, self._heard_at = before._state, before._heard_at  # noqa: SLF001 - of the same class
        self._told_connected = before._told_connected  # noqa: SLF001
        self._watch_silence()

    def report(self) -> AgentReport | None:
        if self._state is None:
            return None
        return AgentReport(state=self._state, connected=self._is_connected())

    async def run(self) -> None:
        breaks = Breaks(log, "following an agent broke")
        while True:
            try:
                delay = await self._round()
            except Exception as error:  # noqa: BLE001 - without this loop nobody would hear the agent again
                breaks.say(error, **self._about)
                delay = self._settings.max_backoff_seconds
            await asyncio.sleep(delay)

    def stop(self) -> asyncio.Task[None] | None:
        """Tell nobody anything any more. Returns what is left to be awaited."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self.task is not None:
            self.task.cancel()
        return self.task

    async def _round(self) -> float:
        """Stream until that ends, or poll once. Returns the seconds to wait."""
        loop = asyncio.get_running_loop()
        error: AgentUnreachable | AgentRefused | None = None
        started = loop.time()
        if started >= self._stream_retry_at:
            lines, error = await self._stream()
            if lines:
                self._stream_failures = 0
                if loop.time() - started >= self._settings.silence_seconds / 2:
                    self._failures = 0
                return self._backoff(error)
            self._stream_failures += 1
        if self._stream_failures >= 2:  # noqa: PLR2004 - an agent that was just not up yet is streamed a moment later
            try:
                self._take(await self.client.state())
            except (AgentUnreachable, AgentRefused) as failed:
                error = failed
                self._stream_retry_at = 0.0
            else:
                self._failures = 0
                if loop.time() >= self._stream_retry_at:
                    self._stream_retry_at = loop.time() + self._settings.stream_retry_seconds
                return self._settings.poll_seconds * self._rng.uniform(0.8, 1.0)
        return self._backoff(error)

    def _backoff(self, error: AgentUnreachable | AgentRefused | None) -> float:
        self._failures += 1
        if self._failures in _SAID_AT:
            log.info("agent not reached", extra={**self._about, "error": str(error)})
        doubled = self._settings.min_backoff_seconds * 2.0 ** min(self._failures - 1, 10)
        return min(doubled, self._settings.max_backoff_seconds) * self._rng.uniform(0.5, 1.0)

    async def _stream(self) -> tuple[int, AgentUnreachable | AgentRefused | None]:
        """How many lines were taken, and what ended the stream."""
        lines = 0
        stream = self._transport.stream(
            f"{self.client.url}/slots?watch=true",
            headers=self.client.headers(),
            idle_timeout_seconds=self._settings.silence_seconds,
        )
        try:
            async with _closing(stream):
                async with asyncio.timeout(self._settings.first_line_seconds):
                    first = await anext(stream)
                pace = Pace(LINES_PER_SECOND)
                lines += await self._take_lines(first, pace, begins=True)
                async for more in stream:
                    lines += await self._take_lines(more, pace)
        except (AgentUnreachable, AgentRefused) as error:
            return lines, error
        except (TimeoutError, StopAsyncIteration):
            return lines, AgentUnreachable("the stream began with nothing")
        return lines, None

    async def _take_lines(self, come: bytes, pace: "Pace", *, begins: bool = False) -> int:
        """Take the newest of the lines that have come, and pause if it was too soon. Returns how many were taken.

        Each state is a whole one, so a later line makes up for those before it. What comes during the pause is read in
        one piece after it, so old news does not queue up.
        """
        newest = [line for line in come.split(b"\n") if line][-NEWEST:]
        for line in newest:
            self._take_line(line, begins=begins)
            begins = False
        if delay := pace.delay_seconds(asyncio.get_running_loop().time(), max(1, len(newest))):
            await asyncio.sleep(delay)
        return len(newest)

    def _take_line(self, line: bytes, *, begins: bool = False) -> None:
        document = None
        try:
            document = orjson.loads(line)
            decoded = decode(WatchLine, document)
            if decoded.state is not None:
                check_state(decoded.state)
        except (orjson.JSONDecodeError, WireError) as error:
            raise misunderstood(error, document) from error
        known = self._state
        if decoded.state is not None:
            if decoded.state.pod_uid != self.client.pod_uid:
                raise AgentUnreachable(f"{self.client.url} is another Pod's now: {decoded.state.pod_uid}")
            self._take(decoded.state)
        elif begins or known is None or decoded.revision > known.revision:
            raise AgentUnreachable("a heartbeat of a revision that never came")
        elif decoded.revision == known.revision:
            self._hear()
        # A lower revision was sent before the state that was read in between.

    def note(self, state: AgentState) -> None:
        """A state that was read elsewhere, perhaps a while ago: of another incarnation only the stream can tell."""
        if self._state is None or state.incarnation == self._state.incarnation:
            self._take(state)

    def _take(self, state: AgentState) -> None:
        known = self._state
        if known is not None and known.incarnation == state.incarnation and state.revision < known.revision:
            return  # overtaken
        self._state = state
        self._hear(changed=known != state)

    def _hear(self, *, changed: bool = False) -> None:
        if self._stopped:
            return
        self._heard_at = asyncio.get_running_loop().time()
        came = not self._told_connected
        self._told_connected = True
        if self._timer is None:
            self._watch_silence()
        if changed or came:
            self._on_change(self.client.pod_uid)

    def _is_connected(self) -> bool:
        return asyncio.get_running_loop().time() < self._heard_at + self._settings.silence_seconds

    def _watch_silence(self) -> None:
        """Have somebody told when the silence is reached. One timer, moved on only as it rings: it rings seldom."""
        self._timer = None
        if self._is_connected():
            at = self._heard_at + self._settings.silence_seconds
            self._timer = asyncio.get_running_loop().call_at(at, self._watch_silence)
        elif self._told_connected:
            self._told_connected = False
            self._on_change(self.client.pod_uid)


class Pace:
    """Holds back who goes on faster than so many times a second; one second's worth may come at once."""

    def __init__(self, per_second: float) -> None:
        self._each_seconds = 1 / per_second
        self._paid_until = float("-inf")

    def delay_seconds(self, now: float, count: int) -> float:
        """How long to wait after so many more."""
        self._paid_until = max(self._paid_until, now - 1) + count * self._each_seconds
        return max(0.0, self._paid_until - now)


@contextlib.asynccontextmanager
async def _closing(stream: AsyncIterator[bytes]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        if close := getattr(stream, "aclose", None):
            await close()
