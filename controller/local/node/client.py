"""The kubelet's client of the Kubernetes API: requests with raw JSON, and the list → watch → re-list loop."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
import orjson

from controller.local.node.pods.pod_spec import Json
from controller.unreached import why_unreached

REQUEST_TIMEOUT_SECONDS = 10.0
WATCH_SECONDS = 240
WATCH_IDLE_SECONDS = 300.0  # past the server's own end of the watch: the connection is dead
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.1, 5.0
MERGE_PATCH = "application/merge-patch+json"

Key = tuple[str, str]  # namespace, name
_log = logging.getLogger(__name__)


class ApiRefusedError(Exception):
    """The API server answered with an error."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason


class ApiUnavailableError(Exception):
    """No usable answer: it may or may not have been done."""


class ApiClient:
    """Requests as one user."""

    def __init__(self, http: aiohttp.ClientSession, url: str, token: str) -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/json",
            "User-Agent": "podslots-local-node",
        }

    async def request(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """One request and its JSON answer. Raises ApiRefusedError, or ApiUnavailableError after 10 s."""
        headers = self._headers | ({"Content-Type": content_type} if body is not None else {})
        data = None if body is None else orjson.dumps(body)
        try:
            async with (
                asyncio.timeout(REQUEST_TIMEOUT_SECONDS),
                self._http.request(method, self._url + path, data=data, headers=headers, params=query) as response,
            ):
                content = await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiUnavailableError(f"{method} {path}: {why_unreached(error)}") from error
        document = _parse(content, status)
        if status >= 400:  # noqa: PLR2004 - HTTP's least error status
            raise ApiRefusedError(status, document.get("reason") or "", document.get("message") or "")
        return document

    async def watch(self, path: str, resource_version: str) -> AsyncIterator[dict[str, Any]]:
        """The events after a version, until the server ends the watch. Raises as `request`."""
        query = {
            "watch": "true",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_TIMEOUT_SECONDS, sock_read=WATCH_IDLE_SECONDS)
        try:
            async with self._http.get(
                self._url + path, params=query, headers=self._headers, timeout=timeout
            ) as response:
                if response.status != 200:  # noqa: PLR2004 - a watch has no other success
                    document = _parse(await response.read(), response.status)
                    raise ApiRefusedError(response.status, document.get("reason") or "", document.get("message") or "")
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        if line:
                            yield _parse(line, 200)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiUnavailableError(f"watch {path}: {why_unreached(error)}") from error


class Reflector:
    """Keeps a copy of all objects of one kind, and tells of each change: `changed(key, object or None)`."""

    def __init__(
        self, client: ApiClient, path: str, changed: Callable[[Key, Json | None], None], *, rng: random.Random
    ) -> None:
        self.objects: dict[Key, Json] = {}
        self.synced = asyncio.Event()
        self._client = client
        self._path = path
        self._changed = changed
        self._rng = rng

    async def run(self) -> None:
        """List, watch, and list again when the watch cannot go on. Ends only by cancellation."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                version = await self._list()
                pause = FIRST_PAUSE_SECONDS
                while True:
                    version = await self._follow(version)
            except (ApiRefusedError, ApiUnavailableError) as error:
                _log.warning("list and watch interrupted: path=%s error=%s", self._path, error)
            await asyncio.sleep(pause * (0.5 + self._rng.random()))
            pause = min(pause * 2, LAST_PAUSE_SECONDS)

    async def _list(self) -> str:
        document = await self._client.request("GET", self._path)
        found = {_key(item): item for item in document.get("items") or ()}
        gone = [key for key in self.objects if key not in found]
        for key in gone:
            self._apply(key, None)
        for key, item in found.items():
            self._apply(key, item)
        self.synced.set()
        return str(document["metadata"]["resourceVersion"])

    async def _follow(self, version: str) -> str:
        """Watch from a version to the watch's end; the version reached."""
        heard = False
        async for event in self._client.watch(self._path, version):
            item = event["object"]
            if event["type"] == "ERROR":
                raise ApiRefusedError(int(item.get("code") or 500), item.get("reason") or "", item.get("message") or "")
            heard = True
            version = str(item["metadata"]["resourceVersion"])
            if event["type"] == "BOOKMARK":
                continue
            self._apply(_key(item), None if event["type"] == "DELETED" else item)
        if not heard:  # a server that ends watches at once must not be asked in a loop
            await asyncio.sleep(FIRST_PAUSE_SECONDS)
        return version

    def _apply(self, key: Key, item: Json | None) -> None:
        if item is None:
            self.objects.pop(key, None)
        elif self.objects.get(key) == item:
            return
        else:
            self.objects[key] = item
        self._changed(key, item)


def _key(item: Json) -> Key:
    metadata = item["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


def _parse(content: bytes, status: int) -> dict[str, Any]:
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ApiUnavailableError(f"status {status}, and no JSON: {content[:200]!r}") from error
    if not isinstance(document, dict):
        raise ApiUnavailableError(f"status {status}, and no JSON object")
    return document
