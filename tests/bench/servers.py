"""The processes under load: a real agent with its journal in memory, and a bare server beside it."""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.load import Client
from tests.bench.machine import IN_MEMORY, Cores, cpu_seconds, running_on
from tests.support.agent_process import AgentProcess, free_port, own_address
from tests.support.repository import ROOT


@dataclass(frozen=True, slots=True)
class Served:
    """A process that answers."""

    pid: int
    client: Client

    def cpu(self) -> float:
        return cpu_seconds(self.pid)


@asynccontextmanager
async def agent(cores: Cores, *, on_disk: bool = False, **options: Any) -> AsyncIterator[tuple[AgentProcess, Served]]:
    """An agent that serves and is open, journaled on a file system in memory where there is one, or beside the code."""
    parent = _on_disk() if on_disk else IN_MEMORY if IN_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="podslots-bench-", dir=parent) as folder:
        process = AgentProcess(Path(folder), **options)
        with running_on(cores.server):
            await asyncio.to_thread(process.start)
        try:
            assert process.process
            process.open()
            yield process, Served(process.process.pid, Client(process.address, process.port))
        finally:
            process.stop()


def _on_disk() -> Path:
    folder = ROOT / "build" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@asynccontextmanager
async def bare(cores: Cores, mode: str, body: bytes = b"") -> AsyncIterator[Served]:
    """One of the servers in `tests.bench.bare`."""
    host = own_address()
    port = free_port(host)
    process = _start(cores, [sys.executable, "-m", "tests.bench.bare", host, str(port), mode])
    try:
        assert process.stdin
        process.stdin.write(body)
        process.stdin.close()
        await _listening(host, port)
        yield Served(process.pid, Client(host, port))
    finally:
        process.kill()
        process.wait()


def _start(cores: Cores, command: list[str]) -> subprocess.Popen[bytes]:
    with running_on(cores.server):
        return subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT)


async def _listening(host: str, port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, port)
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return
