"""HTTP/1.1 to the agent, without waiting: one connection a channel, driven by `loop`'s poll.

http.client would block, and brings in ssl and email: 25 ms and 4 MiB, as much as all the rest of the worker. This
speaks the little that is needed: requests with a length, answers with a length, chunked, or ended by the connection's
end. A request is sent once: whether to repeat it is for `core` to say. TLS is in `tls`, which is imported if needed.
"""

import json
import os
from typing import Any

from agent.codec import WireError, decode, encode
from agent.work_messages import Empty, OutputAnswer, WorkAnswer
from agent.worker.errors import LinkError
from agent.worker.http.connection import Connection
from agent.worker.rules.ports import Answer, Call, Channel, Clock, Request

CALL_TIMEOUT_SECONDS = 10.0
POLL_TIMEOUT_SECONDS = 35.0
"""The agent holds a poll for 20 s."""

_PATHS = {
    Call.REGISTER: ("POST", "/work/register"),
    Call.POLL: ("GET", "/work"),
    Call.STARTED: ("POST", "/work/started"),
    Call.OUTPUT: ("POST", "/work/output"),
    Call.EXIT: ("POST", "/work/exit"),
}
_ANSWERS: dict[Call, type[Any]] = {Call.REGISTER: WorkAnswer, Call.POLL: WorkAnswer, Call.OUTPUT: OutputAnswer}


class RefusedError(Exception):
    """The agent answered with an error."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code


class Link:
    """The two connections to the agent. The credential is read anew for each request: it may come late, or change."""

    def __init__(self, host: str, port: int, credential_dir: str, clock: Clock, *, tls: bool = False) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._credential_dir = credential_dir
        self._credential = os.path.join(credential_dir, "token")
        self._clock = clock
        self._connections: dict[Channel, Connection] = {}
        self._calls: dict[Channel, tuple[Call, float]] = {}

    def send(self, channel: Channel, request: Request) -> None:
        """Begin a request. Raises LinkError."""
        try:
            with open(self._credential, encoding="ascii") as file:
                token = file.read().strip()
        except (OSError, ValueError) as error:
            raise LinkError(f"the credential can't be read: {error}") from error
        content = _compose(request, f"{self._host}:{self._port}", token)
        connection = self._connections.get(channel)
        if connection is None or not connection.reusable():
            self._drop(channel)
            connection = self._connections[channel] = self._connect()
        timeout = POLL_TIMEOUT_SECONDS if request.call is Call.POLL else CALL_TIMEOUT_SECONDS
        self._calls[channel] = (request.call, self._clock.monotonic() + timeout)
        connection.send(content)

    def waits(self) -> list[tuple[int, int, Channel]]:
        """What to poll for: descriptor, events, and the channel to call `ready` with."""
        return [
            (self._connections[channel].fd, self._connections[channel].events, channel)
            for channel in self._calls
            if channel in self._connections
        ]

    def ready(self, channel: Channel) -> Answer | None:
        """Go on with a channel's request; None while there is no answer yet. Raises LinkError and RefusedError."""
        call, _ = self._calls[channel]
        try:
            answer = self._connections[channel].advance()
        except (OSError, LinkError) as error:
            self._drop(channel)
            raise LinkError(str(error)) from error
        if answer is None:
            return None
        del self._calls[channel]
        return _understand(call, *answer)

    def expired(self) -> list[Channel]:
        """The channels with a request that took too long. That request is given up."""
        now = self._clock.monotonic()
        late = [channel for channel, (_, until) in self._calls.items() if now >= until]
        for channel in late:
            self._drop(channel)
        return late

    def deadline(self) -> float | None:
        """When the next request will have taken too long, on monotonic time."""
        return min((until for _, until in self._calls.values()), default=None)

    def _connect(self) -> "Connection":
        if not self._tls:
            return Connection(self._host, self._port)
        from agent.worker.http.tls import TlsConnection  # noqa: PLC0415 - 4 MiB that a plain agent's worker does without

        return TlsConnection(self._host, self._port, self._credential_dir)

    def _drop(self, channel: Channel) -> None:
        self._calls.pop(channel, None)
        if connection := self._connections.pop(channel, None):
            connection.close()


def _compose(request: Request, host: str, token: str) -> bytes:
    """The request's bytes. Parameters hold ids and numbers only, so that nothing needs escaping."""
    method, path = _PATHS[request.call]
    body = request.data if request.message is None else json.dumps(encode(request.message)).encode()
    kind = "application/octet-stream" if request.message is None else "application/json"
    query = "&".join(f"{name}={value}" for name, value in request.params.items())
    if request.message is not None or not query:
        query = ""
    lines = [
        f"{method} {path}{'?' if query else ''}{query} HTTP/1.1",
        f"Host: {host}",
        f"Authorization: Bearer {token}",
    ]
    if method == "POST":
        lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _understand(call: Call, status: int, body: bytes) -> Answer:
    try:
        data = json.loads(body) if body else {}
    except ValueError as error:
        if status >= 400:  # noqa: PLR2004 - HTTP's own number
            raise RefusedError(status, "") from error
        raise LinkError(f"the answer is not JSON: {error}") from error
    if status >= 400:  # noqa: PLR2004 - HTTP's own number
        code = data.get("error") if isinstance(data, dict) else None
        raise RefusedError(status, code if isinstance(code, str) else "")
    if status >= 300:  # noqa: PLR2004 - HTTP's own number
        raise LinkError(f"unexpected status {status}")
    try:
        answer: Answer = decode(_ANSWERS.get(call, Empty), data)
    except WireError as error:
        raise LinkError(f"the answer is not understood: {error}") from error
    return answer
