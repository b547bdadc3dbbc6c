"""Talk to one agent: typed calls over a transport, each write stamped, one after the other.

A write that got no answer may have taken effect, and may still arrive: it is asked again of the same agent, and its
stamp keeps it from taking effect after a later one. Nothing here repeats a write by itself: agents' writes are POSTs,
which aiohttp sends once.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import orjson

from agent.wire import (
    PORT,
    AckRequest,
    AcquireAnswer,
    AcquireRequest,
    AgentState,
    ApproveRequest,
    CancelRequest,
    DrainRequest,
    Empty,
    PhaseAnswer,
    Stamp,
    Step,
    Task,
    WireError,
    Work,
    decode,
    encode,
)
from controller.agents.answers import OK, misunderstood, refusal
from controller.agents.bounds import check_state, check_task
from controller.agents.transport import Transport
from controller.errors import AgentUnreachable

T = TypeVar("T")
Token = Callable[[], str | None]


class Stamps:
    """The stamps of one process' writes. `term` raises NotLeader where nothing may be written."""

    def __init__(self, term: Callable[[], int]) -> None:
        self._term = term
        self._counter = 0

    def next(self) -> Stamp:
        """A stamp above every one before."""
        term = self._term()
        self._counter += 1
        return Stamp(term=term, counter=self._counter)


class AgentClient:
    """The calls to one agent. Writes name the Pod, and the incarnation of the agent that they were decided on."""

    def __init__(
        self,
        transport: Transport,
        url: str,
        pod_uid: str,
        *,
        token: Token,
        stamps: Stamps,
        timeout_seconds: float = 5.0,
    ) -> None:
        self.url = url
        self.pod_uid = pod_uid
        self._transport = transport
        self._token = token
        self._stamps = stamps
        self._timeout_seconds = timeout_seconds
        self._turn = asyncio.Lock()
        self._last_state: tuple[bytes, AgentState] | None = None
        """The last state and its bytes: most reads find it unchanged, and decoding costs a third of a read."""

    async def state(self) -> AgentState:
        """`GET /slots`. An answer of another Pod's agent, behind a reused address, is no answer."""
        status, body = await self._get("/slots")
        known = self._last_state
        if known is not None and status == OK and body == known[0]:
            return known[1]
        state = _answer(status, body, AgentState, check_state)
        if state.pod_uid != self.pod_uid:
            raise AgentUnreachable(f"{self.url} is another Pod's now: {state.pod_uid}")
        self._last_state = (body, state)
        return state

    async def task(self, task_id: str) -> Task:
        """`GET /tasks/{id}`."""
        status, body = await self._get(f"/tasks/{task_id}")
        return _answer(status, body, Task, partial(check_task, task_id=task_id))

    async def output_page(self, task_id: str, step: Step, offset: int) -> bytes:
        """`GET /tasks/{id}/log?part=page`: a part of a step's output as it is kept; empty at its end."""
        return await self._bytes(f"/tasks/{task_id}/log?step={step.value}&part=page&offset={offset}")

    async def output_end(self, task_id: str, step: Step) -> bytes:
        """`GET /tasks/{id}/log?part=end`: the end of output that was too much to keep."""
        return await self._bytes(f"/tasks/{task_id}/log?step={step.value}&part=end")

    async def outputs(self, task_id: str) -> bytes:
        """`GET /tasks/{id}/outputs`: the file that an ended task handed over."""
        return await self._bytes(f"/tasks/{task_id}/outputs")

    async def acquire(self, incarnation: str, task_id: str, task_type: str, work: Work | None = None) -> AcquireAnswer:
        """`POST /slots/acquire`. The same task again gets the same answer."""
        return await self._write(
            "/slots/acquire",
            lambda stamp: AcquireRequest(
                pod_uid=self.pod_uid,
                incarnation=incarnation,
                stamp=stamp,
                task_id=task_id,
                task_type=task_type,
                work=work,
            ),
            AcquireAnswer,
        )

    async def open(self, incarnation: str, drain_id: str) -> PhaseAnswer:
        """`POST /open`: take back exactly this drain."""
        return await self._write("/open", self._drain_request(incarnation, drain_id), PhaseAnswer)

    async def drain(self, incarnation: str, drain_id: str) -> PhaseAnswer:
        """`POST /drain`: granted only if nothing is held and every result was acknowledged."""
        return await self._write("/drain", self._drain_request(incarnation, drain_id), PhaseAnswer)

    async def approve(self, incarnation: str, task_id: str, *, plan_digest: str, attempt: int) -> Task:
        """`POST /tasks/{id}/approve`."""
        return await self._write(
            f"/tasks/{task_id}/approve",
            lambda stamp: ApproveRequest(
                pod_uid=self.pod_uid,
                incarnation=incarnation,
                stamp=stamp,
                plan_digest=plan_digest,
                attempt=attempt,
            ),
            Task,
        )

    async def cancel(self, incarnation: str, task_id: str) -> Task:
        """`POST /tasks/{id}/cancel`."""
        return await self._write(
            f"/tasks/{task_id}/cancel",
            lambda stamp: CancelRequest(pod_uid=self.pod_uid, incarnation=incarnation, stamp=stamp),
            Task,
        )

    async def ack(self, incarnation: str, task_id: str) -> None:
        """`POST /tasks/{id}/ack`: the result is stored elsewhere."""
        await self._write(
            f"/tasks/{task_id}/ack",
            lambda stamp: AckRequest(pod_uid=self.pod_uid, incarnation=incarnation, stamp=stamp),
            Empty,
        )

    def headers(self) -> dict[str, str]:
        """The headers of a read: reads may be locked too."""
        token = self._token()
        return {"Accept": "application/json", "Authorization": f"Bearer {token}"} if token else _ACCEPT

    def _drain_request(self, incarnation: str, drain_id: str) -> Callable[[Stamp], DrainRequest]:
        return lambda stamp: DrainRequest(pod_uid=self.pod_uid, incarnation=incarnation, stamp=stamp, drain_id=drain_id)

    async def _get(self, path: str) -> tuple[int, bytes]:
        return await self._transport.request(
            "GET", self.url + path, headers=self.headers(), body=None, timeout_seconds=self._timeout_seconds
        )

    async def _bytes(self, path: str) -> bytes:
        status, body = await self._get(path)
        if status != OK:
            raise refusal(status, body)
        return body

    async def _write(self, path: str, message: Callable[[Stamp], Any], kind: type[T]) -> T:
        # The stamp is drawn in turn, so that stamps rise in the order in which they are sent.
        async with self._turn:
            body = orjson.dumps(encode(message(self._stamps.next())))
            status, answer = await self._transport.request(
                "POST",
                self.url + path,
                headers={**self.headers(), "Content-Type": "application/json"},
                body=body,
                timeout_seconds=self._timeout_seconds,
            )
        return _answer(status, answer, kind)


_ACCEPT = {"Accept": "application/json"}


def agent_url(pod_ip: str, port: int = PORT, *, tls: bool = False) -> str:
    """The address of a Pod's agent."""
    host = f"[{pod_ip}]" if ":" in pod_ip else pod_ip
    return f"http{'s' if tls else ''}://{host}:{port}"


def _anything(answer: object) -> None:
    """No bounds of its own: nothing of it is kept."""


def _answer(status: int, body: bytes, kind: type[T], check: Callable[[T], None] = _anything) -> T:
    if status != OK:
        raise refusal(status, body)
    document: Any = None
    try:
        document = orjson.loads(body)
        answer = decode(kind, document)
        check(answer)
    except (orjson.JSONDecodeError, WireError) as error:
        raise misunderstood(error, document) from error
    return answer
