"""Runs an embedded API server as a process of its own: `python -m tests.support.apiserver_process STATE_DIR`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop

from tests.support.api_client import make_server


async def main() -> None:
    """Serves until killed; the first line on stdout is the address."""
    server = make_server(Path(sys.argv[1]))
    await server.start()
    sys.stdout.write(server.url + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
