"""Reading requests and writing answers: bodies, query parameters, JSON. What they mean is not known here."""

import asyncio
from typing import Any, TypeVar

import orjson
from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestPayloadError

from agent.codec import decode, encode
from agent.errors import Refusal
from agent.http.ready_answers import JSON_HEADERS
from agent.wire import ErrorCode, Step

MAX_BODY_BYTES = 1 << 20
"""Also what aiohttp reads of a body unless it is told otherwise."""

SMALL_BODY_BYTES = 64 << 10
"""A body up to this size is there as soon as its head is, as a rule: then there is nothing to wait for."""

BODY_SECONDS = 10.0
"""How long a body may take to come. Callers give up sooner; who never ends would keep a connection for ever."""

T = TypeVar("T")


async def read_body(request: web.BaseRequest, kind: type[T], *, may_be_empty: bool = False) -> T:
    """The body as a `kind`. Raises Refusal, WireError."""
    return decode(kind, await read_json(request, may_be_empty=may_be_empty), strict=True)


async def read_json(request: web.BaseRequest, *, may_be_empty: bool = False) -> Any:
    """The body as JSON values. Raises Refusal."""
    content = request.content
    there = content.is_eof() and content.total_bytes <= SMALL_BODY_BYTES
    body = content.read_nowait() if there else await read_bytes(request)
    if not body and may_be_empty:
        body = b"{}"
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(ErrorCode.BAD_REQUEST, f"body: not JSON: {error}") from error


async def read_bytes(request: web.BaseRequest) -> bytes:
    """The body as it is. Raises Refusal; ConnectionResetError if it does not come, to which there is no answer."""
    length = request.content_length
    if length is not None and length > request.client_max_size:
        raise too_large()
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue" and request.transport is not None:
        # curl waits a second for it.
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError as error:
        # Not a refusal: a caller that was only paused, a worker say, must ask again and not give up.
        raise ConnectionResetError("the rest of the body did not come") from error
    except RequestPayloadError as error:
        raise Refusal(ErrorCode.BAD_REQUEST, "body: its coding is broken") from error


def prefers_text(accept: str) -> bool:
    """Whether an `Accept` header puts text/plain before JSON."""
    weights: dict[str, tuple[float, int]] = {}
    for position, entry in enumerate(accept.lower().split(",")):
        name, *parameters = (piece.strip() for piece in entry.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        weights[name] = (weight, -position)
    text = weights.get("text/plain", (0.0, 0))
    return text[0] > 0 and text > weights.get("application/json", (0.0, 0))


def respond(value: Any) -> web.Response:
    """A message as the answer with status 200."""
    return web.Response(body=dump(value), headers=JSON_HEADERS)


def dump(value: Any) -> bytes:
    """A message as a line of JSON."""
    return orjson.dumps(encode(value), option=orjson.OPT_APPEND_NEWLINE)


def too_large() -> Refusal:
    """What a body over the limit is told."""
    return Refusal(ErrorCode.TOO_LARGE, f"a body may have {MAX_BODY_BYTES} bytes")


def read_flag(text: str | None, name: str) -> bool:
    """A query parameter that is true or false. Raises Refusal."""
    if text is None or text in {"false", "0"}:
        return False
    if text in {"true", "1", ""}:
        return True
    raise Refusal(ErrorCode.BAD_REQUEST, f"{name}: must be true or false")


def read_integer(text: str | None, name: str) -> int | None:
    """A query parameter that is a whole number. Raises Refusal."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):  # noqa: PLR2004 - well inside 64 bits
        raise Refusal(ErrorCode.BAD_REQUEST, f"{name}: must be a whole number")
    return int(text)


def read_step(text: str) -> Step:
    """A query parameter that names a step. Raises Refusal."""
    try:
        return Step(text)
    except ValueError:
        raise Refusal(ErrorCode.BAD_REQUEST, f"step: must be one of {', '.join(Step)}") from None
