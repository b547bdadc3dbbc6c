"""Small HTTP clients for tests of the API server: the embedded one, or a real one named by a kubeconfig."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import random
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from controller.local.apiserver.server import ApiServer

Json = dict[str, Any]

TOKEN = "the-admin-token"
MERGE = "application/merge-patch+json"


@dataclass
class Answer:
    """A response, read."""

    status: int
    content_type: str
    headers: dict[str, str]
    body: Any


class ApiClient:
    """Sends requests with one user's credentials."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str | None) -> None:
        self.session = session
        self.url = url.rstrip("/")
        self.token = token

    def headers(self, *, anonymous: bool = False) -> dict[str, str]:
        """The headers every request of this client has."""
        return {"Authorization": f"Bearer {self.token}"} if self.token and not anonymous else {}

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
        anonymous: bool = False,
        events: bool = False,
        more_headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request; `events` reads the answer as a list of JSON lines. Text and bytes are sent as they are."""
        headers = {**self.headers(anonymous=anonymous), "Accept": accept, **(more_headers or {})}
        data = None
        if body is not None:
            headers["Content-Type"] = content_type
            raw = body if isinstance(body, (str, bytes)) else json.dumps(body)
            data = io.BytesIO(raw.encode() if isinstance(raw, str) else raw)
        async with self.session.request(
            method,
            self.url + path,
            data=data,
            headers=headers,
            timeout=aiohttp.ClientTimeout(30),
            allow_redirects=False,
        ) as response:
            text = await response.text()
            parsed: Any = text
            if events:
                parsed = [json.loads(line) for line in text.splitlines() if line]
            elif response.content_type == "application/json" and text:
                parsed = json.loads(text)
            return Answer(response.status, response.content_type, dict(response.headers), parsed)

    async def get(self, path: str) -> Any:
        """The body of a GET that succeeds."""
        answer = await self.send("GET", path)
        assert answer.status == 200, answer
        return answer.body

    async def post(self, path: str, body: Any) -> Any:
        """The body of a POST that succeeds."""
        answer = await self.send("POST", path, body)
        assert answer.status == 201, answer
        return answer.body

    async def merge(self, path: str, body: Any) -> Any:
        """The body of a merge patch that succeeds."""
        answer = await self.send("PATCH", path, body, content_type=MERGE)
        assert answer.status == 200, answer
        return answer.body


def utc_now() -> datetime:
    """The time, for servers under test."""
    return datetime.now(UTC)


def make_server(state_dir: Path | None = None, **options: Any) -> ApiServer:
    """An embedded server with one admin."""
    options.setdefault("users", {TOKEN: "admin"})
    return ApiServer(state_dir, now=utc_now, rng=random.Random(), **options)


async def until(
    condition: Callable[[], Awaitable[bool]], *, seconds: float = 60.0, every_seconds: float = 0.02
) -> None:
    """Returns once the condition holds; fails when it doesn't in time."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        if await condition():
            return
        assert asyncio.get_running_loop().time() < deadline, f"{condition} did not hold within {seconds} s"
        await asyncio.sleep(every_seconds)


@asynccontextmanager
async def running_server(state_dir: Path | None = None, **options: Any) -> AsyncIterator[tuple[ApiServer, ApiClient]]:
    """An embedded server on a free port, and a client of it."""
    server = make_server(state_dir, **options)
    await server.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield server, ApiClient(session, server.url, TOKEN)
    finally:
        await server.stop()


@asynccontextmanager
async def real_cluster(kubeconfig: Path) -> AsyncIterator[ApiClient]:
    """A client of the current context of a kubeconfig: tokens and client certificates."""
    config = yaml.safe_load(await asyncio.to_thread(kubeconfig.read_text))
    context = _named(config["contexts"], config["current-context"])["context"]
    cluster = _named(config["clusters"], context["cluster"])["cluster"]
    user = _named(config["users"], context["user"])["user"]
    with tempfile.TemporaryDirectory() as folder:
        authority = _file(cluster, "certificate-authority", Path(folder))
        tls = ssl.create_default_context(cafile=authority)
        if cluster.get("insecure-skip-tls-verify"):
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        certificate = _file(user, "client-certificate", Path(folder))
        if certificate is not None:
            tls.load_cert_chain(certificate, _file(user, "client-key", Path(folder)))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:
            yield ApiClient(session, cluster["server"], user.get("token"))


def _named(entries: list[Json], name: str) -> Json:
    return next(entry for entry in entries if entry["name"] == name)


def _file(entry: Json, name: str, folder: Path) -> str | None:
    if f"{name}-data" in entry:
        path = folder / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.b64decode(entry[f"{name}-data"]))
        return str(path)
    return entry.get(name)
