"""Answers that are small, whole and known at once, written to the connection in one piece.

aiohttp's `Response` assembles headers that are always the same, and costs a third of a request. This one goes through
the same two calls of the server, `prepare` and `write_eof`, with the bytes ready. It is for HTTP/1.1 connections that
are kept; for all others `answer` makes an ordinary response.
"""

from datetime import datetime
from email.utils import format_datetime
from http import HTTPStatus

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11

MAX_UNREAD_BYTES = 64 << 10
"""A reader that is this far behind gets ordinary responses: they wait for it."""

JSON_TYPE = "application/json"
JSON_HEADERS = {hdrs.CONTENT_TYPE: JSON_TYPE}


class WholeResponse(web.StreamResponse):
    """A response whose bytes are ready. `StreamResponse.__init__` is left out: it prepares what is not needed."""

    def __init__(self, data: bytes, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._data = data
        self._said = status

    @property
    def status(self) -> int:
        """For the server's log."""
        return self._said

    @property
    def keep_alive(self) -> bool:
        """`answer` makes one only if it is."""
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write everything."""
        transport = request.transport
        if transport is not None:
            transport.write(self._data)
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to be written."""


class Answers:
    """Makes JSON answers with status 200 or 409. Those are frequent: who finds all slots held asks again.

    Their heads hold the date, and are made when that is set.
    """

    def __init__(self) -> None:
        self._head = self._conflict_head = b""

    def set_date(self, now: datetime) -> None:
        """The time that answers say."""
        date = format_datetime(now, usegmt=True)
        rest = f"\r\nContent-Type: {JSON_TYPE}\r\nDate: {date}\r\nContent-Length: ".encode()
        self._head, self._conflict_head = b"HTTP/1.1 200 OK" + rest, b"HTTP/1.1 409 Conflict" + rest

    def answer(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        """A body for a request."""
        if not _takes_whole(request):
            return web.Response(body=body, headers=JSON_HEADERS)
        return WholeResponse(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))

    def conflict(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        """A body for a request that is refused with 409."""
        if not _takes_whole(request):
            return web.Response(status=HTTPStatus.CONFLICT, body=body, headers=JSON_HEADERS)
        return WholeResponse(b"%b%d\r\n\r\n%b" % (self._conflict_head, len(body), body), HTTPStatus.CONFLICT)


def _takes_whole(request: web.BaseRequest) -> bool:
    if request.version != HttpVersion11 or not request.keep_alive:
        return False
    transport = request.transport
    return transport is None or transport.get_write_buffer_size() <= MAX_UNREAD_BYTES
