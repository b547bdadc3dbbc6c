"""Fake agents for a while: addresses that nobody has, and the process behind them."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tests.bench.machine import Cores, running_on
from tests.support.repository import ROOT

HOSTS = 250
TRIES = 20
START_SECONDS = 60.0


@asynccontextmanager
async def fake_agents(cores: Cores, number: int) -> AsyncIterator[tuple[list[str], asyncio.subprocess.Process]]:
    """Addresses of so many agents, which serve once they know their Pods' UIDs: see `begin`."""
    with running_on(cores.server):
        for attempt in range(TRIES):
            addresses = _addresses(16 + (os.getpid() * 7 + attempt * 13) % 200, number)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.bench.fake_fleet"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                cwd=ROOT,
            )
            if await _says(process, addresses) == b"bound\n":
                break
            await process.wait()
        else:
            raise AssertionError("no network with free addresses was found")
    try:
        yield addresses, process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def begin(process: asyncio.subprocess.Process, pod_uids: Sequence[str]) -> None:
    """Have the agents answer, the first for the first Pod."""
    if await _says(process, pod_uids) != b"ready\n":
        raise AssertionError("the fake agents did not come up")


def _addresses(second: int, number: int) -> list[str]:
    return [f"127.{second}.{1 + index // HOSTS}.{2 + index % HOSTS}" for index in range(number)]


async def _says(process: asyncio.subprocess.Process, words: Sequence[str]) -> bytes:
    assert process.stdin
    assert process.stdout
    process.stdin.write(" ".join(words).encode() + b"\n")
    await process.stdin.drain()
    async with asyncio.timeout(START_SECONDS):
        return await process.stdout.readline()
