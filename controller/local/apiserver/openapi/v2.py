"""`/openapi/v2`: kubectl asks for it about a kind that version 3 does not have, before it says that there is none.

Version 3 has every kind that is served, so what is asked for here is not: the document has no paths and no definitions.
"""

from __future__ import annotations

import orjson
from aiohttp import web

from controller.local.apiserver.discovery import VERSION

PATH = "/openapi/v2"
_INFO = {"title": "Kubernetes", "version": VERSION["gitVersion"]}
_ASKED = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
_ANSWERED = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_LENGTH_DELIMITED = 2
"""The wire type of strings and messages."""


def answer(accept: str) -> web.Response:
    """The document as the client takes it: protobuf by name, else JSON."""
    if _ASKED in accept:
        return web.Response(body=_protobuf(), content_type=_ANSWERED)
    document = {"swagger": "2.0", "info": _INFO, "paths": {}}
    return web.Response(body=orjson.dumps(document), content_type="application/json")


def _protobuf() -> bytes:
    """A message `openapi.v2.Document`: 1 is swagger, 2 info (of title and version), 8 paths."""
    info = _field(1, _INFO["title"].encode()) + _field(2, _INFO["version"].encode())
    return _field(1, b"2.0") + _field(2, info) + _field(8, b"")


def _field(number: int, content: bytes) -> bytes:
    # Both numbers are below 128: a byte each.
    return bytes([number << 3 | _LENGTH_DELIMITED, len(content)]) + content
