"""Answers to requests below `/openapi/v3`: by address, by hash, by what the client has."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from aiohttp import web

from controller.local.apiserver.openapi.documents import PREFIX, Documents

_FOR_EVER = {"Cache-Control": "public, immutable", "Vary": "Accept"}
_KEPT = timedelta(days=365)
_ASK_AGAIN = {"Cache-Control": "no-cache, private", "Vary": "Accept"}


def answer(
    documents: Documents, path: str, query: Mapping[str, str], headers: Mapping[str, str], now: datetime
) -> web.Response | None:
    """The index or a document; None where there is none."""
    wanted = path.removeprefix(PREFIX).strip("/")
    if not wanted:
        return web.Response(body=documents.index(), content_type="text/plain")
    document = documents.find(wanted)
    if document is None:
        return None
    etag = f'"{document.hash}"'
    asked = query.get("hash", "")
    if asked and asked != document.hash:
        location = f"{PREFIX}/{wanted}?hash={document.hash}"
        return web.Response(status=301, headers={"Location": location}, content_type="application/json")
    if headers.get("If-None-Match") == etag:
        return web.Response(status=304, headers={"Etag": etag, **_ASK_AGAIN})
    expires = format_datetime(now.astimezone(UTC) + _KEPT, usegmt=True)
    cache = {**_FOR_EVER, "Expires": expires} if asked else _ASK_AGAIN
    return web.Response(body=document.body, content_type="application/json", headers={"Etag": etag, **cache})
