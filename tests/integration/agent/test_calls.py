"""Each entry of the table of calls: who may make the call, and that every answer it documents can be had."""

import io
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import hdrs
from aiohttp.test_utils import RawTestServer, TestClient

from agent.auth import Identity, Keyring, Kind
from agent.http.access import Access, Who
from agent.http.asked import Parts
from agent.http.calls import BYTES, CALLS, JSON, LINES, OPENMETRICS, TEXT, Call
from agent.http.routes import ROUTES, HttpApi
from agent.http.work_calls import read_kept_tasks
from agent.rules.tasks import assignment_of
from agent.wire import ErrorCode, TaskState, encode
from agent.workers import Workers
from tests.simulation.agent import AgentHome, SimAgent
from tests.support.documented import check_answer
from tests.support.fake_worker import DIGEST, one_step, two_steps
from tests.support.no_log import NoLog

TOKENS = {Kind.POOL: "pool", Kind.READER: "reader", Kind.LOCAL: "local", Kind.SLOT: "slot", Kind.CLOSE: "close"}
LAYOUT = (("plan", "plan_and_apply"), ("plan",))
NOW = "2026-01-31T12:00:00Z"

E = ErrorCode


@dataclass(frozen=True)
class Answer:
    """`error` is the code of a refusal, None of anything else."""

    status: int
    content_type: str
    error: str | None


class Site:
    """An agent's routes on a socket, over a disk in memory. Reads are locked."""

    def __init__(self, *, lost: bool = False, with_workers: bool = True) -> None:
        self.home = AgentHome("pod", "uid", "pool", LAYOUT, used=lost)
        self.agent = SimAgent(self.home, tokens=dict, now=lambda: datetime.now(UTC), rng=random.Random(1))
        service, outputs = self.agent.service, self.agent.desk_outputs
        own = {Identity(Kind.SLOT, 0): "slot", Identity(Kind.LOCAL): "local", Identity(Kind.CLOSE): "close"}
        access = Access(Keyring(own, {"1": "pool", "read-1": "reader"}), _unchanged, lock_reads=True)
        workers = Workers(service, outputs)
        parts = Parts(
            service=service,
            workers=workers,
            outputs=outputs,
            now=lambda: datetime.now(UTC),
            with_workers=with_workers,
        )
        self.api = HttpApi(parts, access, NoLog())
        self.client: TestClient[Any, Any] = TestClient(RawTestServer(self.api.handle))

    async def ask(
        self, method: str, path: str, body: bytes | None = None, *, token: str | None = None, accept: str = ""
    ) -> Answer:
        headers = {hdrs.ACCEPT: accept} if accept else {}
        if token is not None:
            headers[hdrs.AUTHORIZATION] = f"Bearer {token}"
        data = io.BytesIO(body) if body is not None else None
        async with self.client.request(method, path, data=data, headers=headers) as response:
            if response.content_type == LINES:
                return Answer(response.status, LINES, None)
            content = await response.read()
        check_answer(method, path, response.status, dict(response.headers), content)
        error = json.loads(content)["error"] if response.status != 200 else None
        return Answer(response.status, response.content_type, error)

    async def make(
        self,
        call: Call[Any],
        *,
        id_: str | None = None,
        query: str | None = None,
        raw: bytes | None = None,
        token: str | None = None,
        accept: str = "",
        **changes: Any,
    ) -> Answer:
        """Make a call as the table says that it is made, but for what is named."""
        path = call.path.replace("{id}", id_ or ("0" if call.path.startswith("/slots/") else "t.1"))
        if token is None and call.who is not Who.ANYBODY:
            token = TOKENS[call.who.value[0]]
        body = raw
        if raw is None and call.body is bytes:
            body = b"some"
        elif raw is None and call.body is not None:
            body = json.dumps({**BODIES.get(call.path, {}), **changes}).encode()
        target = f"{path}?{QUERIES.get(call.path, '') if query is None else query}".rstrip("?")
        return await self.ask(call.method, target, body, token=token, accept=accept)

    async def post(self, path: str, **changes: Any) -> None:
        """Make one of the calls on the way to what is tested; it has to work."""
        answer = await self.make(ROUTES[path]["POST"], **changes)
        assert answer.status == 200, (path, answer)

    async def open(self) -> None:
        await self.post("/open", drain_id=self.agent.service.state.drain_id)

    async def hold(self) -> None:
        """Task t.1 holds slot 1 without work, with fence 1."""
        await self.open()
        await self.post("/slots/acquire")

    async def reserve(self) -> None:
        """The same, reserved, with fence 2."""
        await self.hold()
        await self.post("/slots/{id}/reserve", id_="1")

    async def assign(self, *, steps: int = 2) -> None:
        """Task t.1 waits in slot 0 for its worker to start the plan, with fence 1."""
        await self.open()
        await self.post("/work/register")
        work = encode(two_steps() if steps == 2 else one_step())
        await self.post("/slots/acquire", task_type="plan_and_apply", work=work)

    async def plan(self, *, steps: int = 2) -> None:
        """Its plan has ended."""
        await self.assign(steps=steps)
        await self.post("/work/started")
        await self.post("/work/exit", **({"plan_digest": DIGEST} if steps == 2 else {}))

    async def end(self) -> None:
        await self.plan(steps=1)


async def _unchanged() -> None:
    pass


BODIES: dict[str, dict[str, Any]] = {
    "/slots/acquire": {"task_id": "t.1", "task_type": "plan"},
    **{f"/slots/{{id}}/{name}": {"task_id": "t.1", "fence": 1} for name in ("reserve", "resume", "release")},
    "/open": {"drain_id": "d"},
    "/drain": {"drain_id": "d"},
    "/tasks/{id}/approve": {"plan_digest": DIGEST, "attempt": 1},
    "/work/register": {"instance": "1-a"},
    "/work/started": {"instance": "1-a", "task_id": "t.1", "step": "plan", "fence": 1, "start_time": NOW},
    "/work/exit": {
        "instance": "1-a",
        "task_id": "t.1",
        "step": "plan",
        "fence": 1,
        "outcome": "succeeded",
        "end_time": NOW,
    },
}
QUERIES = {"/work": "instance=1-a", "/work/output": "instance=1-a&task_id=t.1&step=plan&offset=0"}

Scenario = Callable[[Site, Call[Any]], Awaitable[Answer]]
Prepare = Callable[[Site], Awaitable[None]]


async def nothing(_: Site) -> None:
    pass


def after(prepare: Prepare, **request: Any) -> Scenario:
    """The answer after something has happened."""

    async def scenario(site: Site, call: Call[Any]) -> Answer:
        await prepare(site)
        return await site.make(call, **request)

    return scenario


def on_a_full_disk(prepare: Prepare, **request: Any) -> Scenario:
    async def scenario(site: Site, call: Call[Any]) -> Answer:
        await prepare(site)
        site.home.disk.full = True
        return await site.make(call, **request)

    return scenario


async def with_an_old_stamp(site: Site, call: Call[Any]) -> Answer:
    await site.make(call, stamp={"term": 2, "counter": 1})
    return await site.make(call, stamp={"term": 1, "counter": 2})


async def malformed(site: Site, call: Call[Any]) -> Answer:
    if call.body is bytes:
        return await site.make(call, query="step=neither")
    if call.body is not None:
        return await site.make(call, raw=b"{")
    return await site.make(call, query="step=neither") if call.path == "/work" else await site.make(call, id_="!")


async def with_too_large_a_body(site: Site, call: Call[Any]) -> Answer:
    return await site.make(call, raw=b" " * (call.max_body_bytes + 1))


async def with_a_strange_token(site: Site, call: Call[Any]) -> Answer:
    return await site.make(call, token="nobody's")


async def by_another(site: Site, call: Call[Any]) -> Answer:
    return await site.make(call, token=next(TOKENS[kind] for kind in Kind if kind not in call.who.value))


async def opening(site: Site, call: Call[Any]) -> Answer:
    return await site.make(call, drain_id=site.agent.service.state.drain_id)


async def opening_on_a_full_disk(site: Site, call: Call[Any]) -> Answer:
    site.home.disk.full = True
    return await opening(site, call)


async def superseded(site: Site) -> None:
    await site.assign()
    await site.post("/work/register", instance="2-b")


async def closed(site: Site) -> None:
    await site.open()
    await site.post("/close")


async def acknowledged(site: Site) -> None:
    await site.end()
    await site.post("/tasks/{id}/ack")


async def filled(site: Site) -> None:
    await site.hold()
    await site.post("/slots/acquire", task_id="t.2")


async def handed_over(site: Site) -> None:
    await site.assign(steps=1)
    await site.post("/work/started")
    await site.post("/work/exit", outputs="eA==")


EVERY_CALL: dict[str, Scenario] = {
    E.BAD_REQUEST: malformed,
    E.UNAUTHORIZED: with_a_strange_token,
    E.FORBIDDEN: by_another,
    E.TOO_LARGE: with_too_large_a_body,
    E.WRONG_POD: after(nothing, pod_uid="another"),
    E.RESTARTED: after(nothing, incarnation="another"),
    E.STALE: with_an_old_stamp,
    E.NOT_FOUND: after(Site.open, id_="99"),
    E.UNREGISTERED: after(nothing),
    E.SUPERSEDED: after(superseded),
}
"""How to be refused with these, where a call documents it and nothing below says otherwise."""


def has_lost_its_journal(call: Call[Any], expected: str) -> bool:
    """Whether only an agent that has lost its journal gives this answer."""
    vouched = call.path.startswith("/slots/{id}/") and expected == E.INVALID
    return vouched or expected == E.NOT_READY or (call.path, expected) == ("/work/register", E.STORAGE)


NO_FENCE = 1 << 50
"""More than any agent gave out."""

ANSWERS: dict[str, dict[str, Scenario]] = {
    "GET /slots": {
        JSON: after(nothing),
        LINES: after(nothing, query="watch=true"),
        TEXT: after(nothing, accept=TEXT),
        E.BAD_REQUEST: after(nothing, query="watch=perhaps"),
    },
    "GET /tasks/{id}": {JSON: after(Site.assign), E.NOT_READY: after(nothing)},
    "GET /tasks/{id}/log": {
        TEXT: after(Site.end),
        BYTES: after(Site.end, query="part=page"),
        E.NOT_READY: after(nothing),
    },
    "GET /tasks/{id}/outputs": {BYTES: after(handed_over), E.NOT_READY: after(nothing)},
    "GET /metrics": {TEXT: after(nothing), OPENMETRICS: after(nothing, accept=f"{OPENMETRICS};version=1.0.0")},
    "GET /healthz": {TEXT: after(nothing)},
    "GET /readyz": {TEXT: after(nothing)},
    "GET /openapi.json": {JSON: after(nothing)},
    "POST /slots/acquire": {
        JSON: after(Site.open),
        E.NO_FREE_SLOT: after(filled, task_id="t.3"),
        E.DRAINED: after(nothing),
        E.CLOSING: after(closed),
        E.ILLEGAL: after(acknowledged),
        E.UNKNOWN_TASK_TYPE: after(Site.open, task_type="unheard-of"),
        E.INVALID: after(Site.open, work={"name": "n", "attempt": 1, "steps": {}}),
        E.NOT_READY: after(nothing),
        E.STORAGE: on_a_full_disk(Site.open),
    },
    "POST /slots/{id}/reserve": {
        JSON: after(Site.hold, id_="1"),
        E.MANAGED: after(Site.assign),
        E.FENCED: after(Site.hold, id_="1", fence=9),
        E.ILLEGAL: after(Site.reserve, id_="1", fence=2),
        E.INVALID: after(nothing, fence=NO_FENCE, token="local"),
        E.STORAGE: on_a_full_disk(Site.hold, id_="1"),
    },
    "POST /slots/{id}/resume": {
        JSON: after(Site.reserve, id_="1", fence=2),
        E.MANAGED: after(Site.assign),
        E.FENCED: after(Site.hold, id_="1", fence=9),
        E.ILLEGAL: after(Site.hold, id_="1"),
        E.INVALID: after(nothing, fence=NO_FENCE, token="local"),
        E.STORAGE: on_a_full_disk(Site.reserve, id_="1", fence=2),
    },
    "POST /slots/{id}/release": {
        JSON: after(Site.hold, id_="1"),
        E.MANAGED: after(Site.assign),
        E.FENCED: after(Site.hold, id_="1", fence=9),
        E.INVALID: after(nothing, fence=NO_FENCE, token="local"),
        E.STORAGE: on_a_full_disk(Site.hold, id_="1"),
    },
    "POST /open": {
        JSON: opening,
        E.DRAIN_MISMATCH: after(nothing),
        E.STORAGE: opening_on_a_full_disk,
    },
    "POST /drain": {
        JSON: after(Site.open),
        E.BUSY: after(Site.hold),
        E.STORAGE: on_a_full_disk(Site.open),
    },
    "POST /tasks/{id}/approve": {
        JSON: after(Site.plan),
        E.NOT_READY: after(nothing),
        E.DIGEST_MISMATCH: after(Site.plan, attempt=2),
        E.ILLEGAL: after(Site.assign),
        E.STORAGE: on_a_full_disk(Site.plan),
    },
    "POST /tasks/{id}/cancel": {
        JSON: after(Site.plan),
        E.NOT_READY: after(nothing),
        E.STORAGE: on_a_full_disk(Site.plan),
    },
    "POST /tasks/{id}/ack": {
        JSON: after(Site.end),
        E.ILLEGAL: after(Site.assign),
        E.STORAGE: on_a_full_disk(Site.end),
    },
    "GET /work": {JSON: after(Site.assign)},
    "POST /work/register": {
        JSON: after(nothing),
        E.SUPERSEDED: after(superseded),
        E.STORAGE: on_a_full_disk(nothing),  # with a lost journal: else there is nothing to write down
    },
    "POST /work/started": {
        JSON: after(Site.assign),
        E.NOT_FOUND: after(Site.assign, task_id="t.9"),
        E.FENCED: after(Site.assign, fence=9),
        E.STORAGE: on_a_full_disk(Site.assign),
    },
    "POST /work/output": {
        JSON: after(Site.assign),
        E.NOT_FOUND: after(Site.assign, query="instance=1-a&task_id=t.9&step=plan"),
    },
    "POST /work/exit": {
        JSON: after(Site.assign),
        E.NOT_FOUND: after(Site.assign, task_id="t.9"),
        E.FENCED: after(Site.assign, fence=9),
        E.INVALID: after(Site.assign, outcome="expired"),
        E.STORAGE: on_a_full_disk(Site.assign),
    },
    "POST /close": {JSON: after(nothing)},
}
"""How to get each of its answers from a call."""

DOCUMENTED = [(call, answer) for call in CALLS for answer in (*call.answers, *call.all_codes)]


@pytest.fixture
async def make_site() -> AsyncIterator[Callable[..., Awaitable[Site]]]:
    made: list[Site] = []

    async def make(**options: Any) -> Site:
        site = Site(**options)
        made.append(site)
        await site.client.start_server()
        return site

    yield make
    for site in made:
        site.agent.service.stop()
        site.agent.kill()
        await site.client.close()


def name_of(call: Call[Any]) -> str:
    return f"{call.method} {call.path}"


@pytest.mark.parametrize(
    ("call", "expected"), DOCUMENTED, ids=[f"{name_of(call)} {answer}" for call, answer in DOCUMENTED]
)
async def test_each_documented_answer_exists(
    make_site: Callable[..., Awaitable[Site]], monkeypatch: pytest.MonkeyPatch, call: Call[Any], expected: str
) -> None:
    """An answer that can't come misleads whoever writes a client."""
    lost = has_lost_its_journal(call, expected)
    site = await make_site(lost=lost, with_workers=not (lost and expected == E.INVALID))
    if expected == E.INTERNAL:
        monkeypatch.setitem(ROUTES[call.path], call.method, replace(call, handler=broken))
        answer = await site.make(call)
    else:
        scenarios = {**EVERY_CALL, **ANSWERS[name_of(call)]}
        assert expected in scenarios, "nobody knows how to get this answer"
        answer = await scenarios[expected](site, call)
    if expected in call.answers:
        assert (answer.status, answer.content_type) == (200, expected), answer
    else:
        assert answer.error == expected, answer


async def broken(_parts: object, _asked: object) -> Any:
    raise KeyError("a mistake in the handler")


@pytest.mark.parametrize("call", CALLS, ids=name_of)
async def test_each_call_lets_in_whom_it_says(make_site: Callable[..., Awaitable[Site]], call: Call[Any]) -> None:
    """With each kind of credential, with none, and with one that nobody has."""
    site = await make_site()
    refused = {}
    for kind, token in TOKENS.items():
        answer = await site.make(call, token=token, query="step=neither" if call.path == "/work" else None)
        if answer.error in {E.FORBIDDEN, E.UNAUTHORIZED}:
            refused[kind] = answer.error
    who = set(Kind) if call.who is Who.ANYBODY else set(call.who.value)
    assert refused == dict.fromkeys(set(Kind) - who, E.FORBIDDEN)
    path = call.path.replace("{id}", "0")
    for stranger in (None, "nobody's"):
        answer = await site.ask(call.method, path, token=stranger)
        assert (answer.error == E.UNAUTHORIZED) == (call.who is not Who.ANYBODY)


def test_the_table_gives_no_credential_more_than_it_is_for() -> None:
    """What docs/security.md promises of them."""
    makes = {kind: {name_of(call) for call in CALLS if kind in call.who.value} for kind in Kind}
    reads = {name_of(call) for call in CALLS if call.who is Who.READERS}
    assert all(name.startswith("GET ") for name in reads)
    assert makes[Kind.READER] == reads
    assert makes[Kind.CLOSE] - reads == {"POST /close"}
    assert {name.partition("/{id}")[0] for name in makes[Kind.LOCAL] - reads} == {"POST /slots/acquire", "POST /slots"}
    assert all(name.split()[1].startswith("/work") for name in makes[Kind.SLOT])
    assert not any(name.split()[1].startswith(("/work", "/close")) for name in makes[Kind.POOL])
    assert {call.path for call in CALLS if call.who is Who.ANYBODY} == {"/healthz", "/readyz"}


def test_no_call_stands_in_the_table_twice() -> None:
    assert len({(call.method, call.path) for call in CALLS}) == len(CALLS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"exit_code": 2**31},
        {"exit_code": -(2**31) - 1},
        {"log_bytes": -1},
        {"reason": "r" * 20_000},
        {"plan_digest": "sha256:x"},
        {"plan_digest": DIGEST + "\n"},
        {"plan_digest": "; rm -rf / #\x1b[2J"},
    ],
    ids=str,
)
async def test_an_end_that_no_status_can_hold_is_refused(
    make_site: Callable[..., Awaitable[Site]], wrong: dict[str, Any]
) -> None:
    """A task's code may have its slot's credential. Such an end could never be written down and acknowledged."""
    site = await make_site()
    await site.assign()
    await site.post("/work/started")
    answer = await site.make(ROUTES["/work/exit"]["POST"], **wrong)
    assert (answer.status, answer.error) == (400, E.BAD_REQUEST)
    task = site.agent.service.state.tasks["t.1"]
    assert task.state is TaskState.RUNNING
    kept = {
        "assignment": encode(assignment_of(site.agent.service.state, task)),
        "started": True,
        "exit": {**BODIES["/work/exit"], **wrong},
    }
    tasks, dropped = read_kept_tasks([kept], {"t.1"})
    assert not tasks, "nor does a registration bring it in"
    assert [each.task_id for each in dropped] == ["t.1"]
