"""A real agent in this process: service, workers, journal and HTTP routes as they are, on a disk in memory.

What is simulated is the process (it can be killed at any instant, with its journal written or not) and the sockets.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import parse_qs

from aiohttp import web

from agent.auth import Identity, Keyring, Kind
from agent.clock import AgentClock
from agent.counters import Counters
from agent.http.access import Access
from agent.http.asked import Parts
from agent.http.calls import COUNTED
from agent.http.routes import HttpApi
from agent.http.streams import HEARTBEAT_SECONDS
from agent.nonces import Nonces
from agent.rules.report import Facts
from agent.rules.state import Record, State, initial_state
from agent.service import TICK_SECONDS, Service
from agent.store.journal import open_journal
from agent.store.journal_format import Header, replay
from agent.store.output import Outputs
from agent.wire import Step, WatchType
from agent.workers import Workers
from controller.errors import AgentUnreachable
from metrics.exposition import new_registry
from tests.support.no_log import NoLog

T = TypeVar("T")
Layout = tuple[tuple[str, ...], ...]
Published = Callable[[State, Sequence[Record]], None]
Answered = Callable[["SimAgent", str, bytes | None, int], None]
"""Agent, target, body and status of a write."""


class MemoryDisk:
    """`agent.store.disk.Disk`. `full`: writes fail halfway. `unsynced`: bytes are written, syncing fails."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.full = False
        self.unsynced = False
        self.trouble = False
        """Whether a write ever failed."""

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def write(self, name: str, data: bytes) -> None:
        self._check()
        self.files[name] = data

    def append(self, name: str, data: bytes) -> None:
        if self.full or self.unsynced:
            self.files[name] += data if self.unsynced else data[: len(data) // 2]
        self._check()
        self.files[name] += data

    def truncate(self, name: str, size_bytes: int) -> None:
        if self.unsynced:
            self._check()
        self.files[name] = self.files[name][:size_bytes]

    def rename(self, old: str, new: str) -> None:
        self._check()
        self.files[new] = self.files.pop(old)

    def exists(self, name: str) -> bool:
        return name in self.files

    def remove(self, name: str) -> None:
        self.files.pop(name, None)

    def _check(self) -> None:
        self.trouble = self.trouble or self.full or self.unsynced
        if self.full:
            raise OSError(28, "No space left on device")
        if self.unsynced:
            raise OSError(5, "Input/output error")


class MemoryFiles:
    """`agent.store.output.OutputFiles`."""

    def __init__(self) -> None:
        self.data: dict[tuple[str, Step], bytes] = {}
        self.handed_over: dict[str, bytes] = {}
        self.removing: Callable[[str], None] = lambda _task_id: None
        """Told of a task whose output is removed."""

    def size(self, task_id: str, step: Step) -> int:
        return len(self.data.get((task_id, step), b""))

    def append(self, task_id: str, step: Step, data: bytes) -> None:
        self.data[task_id, step] = self.data.get((task_id, step), b"") + data

    def read(self, task_id: str, step: Step, offset: int, size_bytes: int) -> bytes:
        return self.data.get((task_id, step), b"")[offset : offset + size_bytes]

    def remove(self, task_id: str) -> None:
        self.handed_over.pop(task_id, None)
        mine = [key for key in self.data if key[0] == task_id]
        if mine:
            self.removing(task_id)
        for key in mine:
            del self.data[key]

    def put(self, task_id: str, data: bytes) -> None:
        self.handed_over[task_id] = data

    def got(self, task_id: str) -> bytes | None:
        return self.handed_over.get(task_id)

    def has(self, task_id: str) -> bool:
        return task_id in self.handed_over

    def tasks(self) -> tuple[str, ...]:
        return tuple({task_id for task_id, _ in self.data})


@dataclass
class AgentHome:
    """What outlives an agent's process: its Pod's identity and volumes."""

    pod: str
    uid: str
    pool: str
    layout: Layout
    disk: MemoryDisk = field(default_factory=MemoryDisk)
    outputs: MemoryFiles = field(default_factory=MemoryFiles)
    used: bool = False
    """Whether an agent ever ran here."""

    @property
    def local_token(self) -> str:
        """The credential of programs that hold slots themselves."""
        return f"{self.uid}-local"

    def slot_token(self, slot: int) -> str:
        """The credential of a slot's worker."""
        return f"{self.uid}-slot-{slot}"

    def journaled(self) -> State:
        """The state that an agent would start from; raises JournalDamagedError where it would set that aside."""
        empty = initial_state(self.layout, drain_id="?", lost=False, now=datetime.fromtimestamp(0))  # noqa: DTZ006
        data = self.disk.read("journal")
        return replay(data, empty).state if data is not None else empty


class SimAgent:
    """One process of an agent."""

    def __init__(
        self,
        home: AgentHome,
        *,
        tokens: Callable[[], dict[str, str]],
        now: Callable[[], datetime],
        rng: random.Random,
        published: Published | None = None,
        answered: Answered | None = None,
    ) -> None:
        self.home = home
        self.alive = True
        self.promised: list[str] = []
        """Tasks that it said it had taken."""
        self._answered = answered
        self._rng = rng
        self._tokens = tokens
        self._tasks: set[asyncio.Task[Any]] = set()
        clock = AgentClock(now, asyncio.get_running_loop().time, "its machine's only boot")
        header = Header(pod_uid=home.uid, journal_id=f"{rng.getrandbits(64):x}", slots=len(home.layout))
        drain_id = f"born-{header.journal_id}"
        opened = open_journal(
            home.disk,
            header,
            initial_state(home.layout, drain_id=drain_id, lost=False, now=clock.now()),
            initial_state(home.layout, drain_id=drain_id, lost=True, now=clock.now()),
            used_before=home.used,
        )
        clock.resume(opened.state)
        home.used = True
        self.service = Service(
            facts=Facts(
                version="sim",
                pod=home.pod,
                pod_uid=home.uid,
                pool=home.pool,
                incarnation=f"{rng.getrandbits(64):016x}",
                first_revision=rng.getrandbits(40) << 10,
            ),
            state=opened.state,
            journal=opened.journal,
            submit=self._submit,
            now=clock.now,
            clock=clock,
            counters=Counters(new_registry(), COUNTED),
            log=NoLog(),
            warnings=opened.warnings,
        )
        if published is not None:
            self.service.on_publish(published)
        self.desk_outputs = Outputs(home.outputs, _at_once)
        self.workers = Workers(self.service, self.desk_outputs, Nonces(f"{home.uid}-secret"))
        own = {Identity(Kind.SLOT, slot): home.slot_token(slot) for slot in range(len(home.layout))}
        self._keyring = Keyring({**own, Identity(Kind.LOCAL): home.local_token}, tokens())
        self.service.set_tokens(self._keyring.pool_token_ids)
        parts = Parts(service=self.service, workers=self.workers, outputs=self.desk_outputs, now=now, with_workers=True)
        self._api = HttpApi(parts, Access(self._keyring, self._refresh_tokens), NoLog())
        self.spawn(self._tick())

    # --- the process --------------------------------------------------------------------------------------------------

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something that dies with the process."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def run(self, coroutine: Coroutine[Any, Any, T], timeout_seconds: float) -> T:
        """What somebody outside asks for: AgentUnreachable if it takes too long, or the process dies."""
        if not self.alive:
            coroutine.close()
            raise AgentUnreachable("nobody listens")
        task = self.spawn(coroutine)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # whether or not somebody waits
        await asyncio.wait({task}, timeout=timeout_seconds)
        if not task.done() or task.cancelled():
            raise AgentUnreachable("no answer")
        return task.result()

    @property
    def disk_trouble(self) -> bool:
        """Whether a write to its disk ever failed."""
        return self.home.disk.trouble

    def kill(self) -> None:
        """SIGKILL."""
        self.alive = False
        for task in list(self._tasks):
            task.cancel()

    async def _tick(self) -> None:
        while True:
            await self.service.tick()
            await self.workers.tidy_outputs()
            self.workers.tick()
            await self._refresh_tokens()
            await asyncio.sleep(TICK_SECONDS)

    async def _refresh_tokens(self) -> None:
        if self._keyring.replace_pool(self._tokens()):
            self.service.set_tokens(self._keyring.pool_token_ids)

    def _submit(self, work: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
        """The disk: what was handed to it may or may not be written when the process dies."""
        loop = asyncio.get_running_loop()

        def write() -> OSError | None:
            try:
                work()
            except OSError as error:
                return error
            return None

        delay = self._rng.uniform(0.0, 0.004)
        if self._rng.random() < 0.5:
            result = write()
            loop.call_later(delay, lambda: done(result) if self.alive else None)
        else:
            loop.call_later(delay, lambda: done(write()) if self.alive else None)

    # --- HTTP ---------------------------------------------------------------------------------------------------------

    async def request(self, method: str, target: str, headers: dict[str, str], body: bytes | None) -> tuple[int, bytes]:
        """A request that has arrived."""
        status, content = await self.answer(FakeRequest(method, target, headers, body))
        if method == "POST" and self._answered is not None and self.alive:
            self._answered(self, target, body, status)
        return status, content

    async def answer(self, request: "FakeRequest") -> tuple[int, bytes]:
        """The answer of the agent's routes."""
        response = await self._api.handle(request)  # type: ignore[arg-type]
        assert isinstance(response, web.Response)
        if response.status == 500 and self._answered is not None:
            self._answered(self, request.raw_path, None, 500)
        content = response.body
        assert content is None or isinstance(content, bytes)
        return response.status, content or b""

    async def watch(self) -> AsyncIterator[bytes]:
        """The lines of a watch, as `agent.http.streams.watch` writes them."""
        service = self.service
        revision = service.revision
        yield service.watch_line(WatchType.STATE)
        while self.alive:
            changed = await service.changed_since(revision, HEARTBEAT_SECONDS)
            if not self.alive:
                break
            revision = service.revision
            yield service.watch_line(WatchType.CHANGE if changed else WatchType.HEARTBEAT)


class FakeTransport:
    """A connection from the agent's own Pod."""

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else None


class FakeRequest:
    """As much of `aiohttp.web.BaseRequest` as the agent's routes look at."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes | None) -> None:
        self.method = method
        self.raw_path = target
        self.path, _, self.query_string = target.partition("?")
        self.query = {name: values[0] for name, values in parse_qs(self.query_string).items()}
        self.headers = headers
        self.content_length = len(body) if body is not None else None
        self.client_max_size = 1 << 20
        self.transport: Any = FakeTransport()
        """None once nobody waits for the answer any more."""
        self._body = body or b""

    async def read(self) -> bytes:
        return self._body

    def clone(self, **_: object) -> "FakeRequest":
        return self


async def _at_once(work: Callable[[], T], /) -> T:
    """`Offload` without a thread."""
    return work()
