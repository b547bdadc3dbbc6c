"""A killed API server loses nothing it had acknowledged."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.api_client import MERGE, TOKEN, ApiClient, until
from tests.support.repository import ROOT

Json = dict[str, Any]

MAPS = "/api/v1/namespaces/default/configmaps"
GONE = -1


class Writers:
    """Clients that write as fast as they can, and remember what they were promised."""

    def __init__(self) -> None:
        # Name → the last value acknowledged, and the last one sent.
        self.acknowledged: dict[str, int] = {}
        self.attempted: dict[str, int] = {}
        self.highest_version = 0
        self.values = 0

    async def write(self, client: ApiClient, name: str, rng: random.Random) -> None:
        """Creates, changes and deletes one object until the server is gone."""
        with suppress(aiohttp.ClientError, OSError):
            while True:
                if self.acknowledged.get(name, GONE) != GONE and rng.random() < 0.2:
                    await self._delete(client, name)
                else:
                    await self._put(client, name)

    async def _delete(self, client: ApiClient, name: str) -> None:
        self.attempted[name] = GONE
        answer = await client.send("DELETE", f"{MAPS}/{name}")
        assert answer.status == 200, answer
        self.acknowledged[name] = GONE

    async def _put(self, client: ApiClient, name: str) -> None:
        self.values += 1
        value = self.attempted[name] = self.values
        body = {"metadata": {"name": name}, "data": {"value": str(value)}}
        if self.acknowledged.get(name, GONE) == GONE:
            answer = await client.send("POST", MAPS, body)
        else:
            answer = await client.send("PATCH", f"{MAPS}/{name}", body, content_type=MERGE)
        assert answer.status in (200, 201), answer
        self.acknowledged[name] = value
        self.highest_version = max(self.highest_version, int(answer.body["metadata"]["resourceVersion"]))

    def reached(self, version: int) -> Callable[[], Awaitable[bool]]:
        """The condition that this version was acknowledged."""

        async def condition() -> bool:
            return self.highest_version >= version

        return condition


async def start(folder: Path) -> tuple[asyncio.subprocess.Process, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.apiserver_process", str(folder), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(120):
        url = (await process.stdout.readline()).decode().strip()
    assert url
    return process, url


@pytest.mark.long
async def test_no_acknowledged_write_is_lost_by_a_kill(tmp_path: Path) -> None:
    """SIGKILL in the middle of a write loop, again and again on the same directory."""
    rng = random.Random(1)
    writers = Writers()
    rounds = 4
    for killed in range(rounds + 1):
        process, url = await start(tmp_path)
        try:
            async with aiohttp.ClientSession() as session:
                client = ApiClient(session, url, TOKEN)
                await check(client, writers)
                if killed == rounds:
                    break
                async with asyncio.TaskGroup() as group:
                    for name in "abcdefgh":
                        group.create_task(writers.write(client, name, rng))
                    before = writers.highest_version
                    await until(writers.reached(before + rng.randint(20, 200)), every_seconds=0.001)
                    process.kill()
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
    assert writers.highest_version > 80


async def check(client: ApiClient, writers: Writers) -> None:
    """What was acknowledged is there; what was only sent may be."""
    listed = await client.get(MAPS)
    assert int(listed["metadata"]["resourceVersion"]) >= writers.highest_version
    stored = {item["metadata"]["name"]: int(item["data"]["value"]) for item in listed["items"]}
    for name, value in writers.acknowledged.items():
        assert stored.get(name, GONE) in (value, writers.attempted[name]), name
    # What is there now is what the writers know from now on.
    writers.acknowledged = {name: stored.get(name, GONE) for name in writers.attempted}
