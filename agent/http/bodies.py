"""Reading requests and writing answers: bodies, query parameters, JSON. What they mean is not known here."""

import asyncio
from typing import Any, TypeVar, cast

import orjson
from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestPayloadError

from agent.codec import decode, encode
from agent.errors import Refusal
from agent.wire import ErrorCode, Step

JSON_HEADERS = {hdrs.CONTENT_TYPE: "application/json"}

MAX_BODY_BYTES = 1 << 20
"""Of a body, unless its call says otherwise."""

BODY_SECONDS = 10.0
"""How long a request's body may take to arrive. Callers give up sooner. Without this limit a body that never ends would
keep a connection for ever."""

T = TypeVar("T")


async def read_body(request: web.BaseRequest, kind: type[T] | None, *, max_bytes: int, may_be_empty: bool) -> T:
    """The body as a `kind`: bytes as they are, a wire type from JSON; None: it is not read. Raises Refusal, WireError.

    Raises ConnectionResetError if the body does not come, to which there is no answer.
    """
    if kind is None:
        return cast("T", None)
    if kind is bytes:
        return cast("T", await _read_bytes(request, max_bytes))
    return decode(kind, await read_json(request, max_bytes=max_bytes, may_be_empty=may_be_empty), strict=True)


async def read_json(request: web.BaseRequest, *, max_bytes: int, may_be_empty: bool) -> Any:
    """The body as JSON values. Raises Refusal and ConnectionResetError, as `read_body` does."""
    body = await _read_bytes(request, max_bytes)
    if not body and may_be_empty:
        body = b"{}"
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(ErrorCode.BAD_REQUEST, f"body: not JSON: {error}") from error


async def _read_bytes(request: web.BaseRequest, max_bytes: int) -> bytes:
    length = request.content_length
    if length is not None and length > max_bytes:
        raise _too_large(max_bytes)
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue" and request.transport is not None:
        # curl waits a second for it.
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if max_bytes != request.client_max_size:
        request = request.clone(client_max_size=max_bytes)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError as error:
        # Not a refusal: a caller that was only paused, a worker say, must ask again and not give up.
        raise ConnectionResetError("the rest of the body did not come") from error
    except RequestPayloadError as error:
        raise Refusal(ErrorCode.BAD_REQUEST, "body: its coding is broken") from error
    except web.HTTPRequestEntityTooLarge as error:
        raise _too_large(max_bytes) from error


def prefers_text(accept: str) -> bool:
    """Whether an `Accept` header puts text/plain before JSON."""
    if "text/plain" not in accept.lower():
        return False
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


def _too_large(max_bytes: int) -> Refusal:
    return Refusal(ErrorCode.TOO_LARGE, f"a body may have {max_bytes} bytes")


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
