"""The embedded API server without a kubelet: `python -m tests.bench.api_server STATE_DIR [AUDIT_FILE]`.

It says where it listens.
"""

import asyncio
import sys
from pathlib import Path

import uvloop

from controller import crds
from tests.support.api_client import make_server


async def main(state_dir: Path, audit_path: Path | None = None) -> None:
    server = make_server(state_dir, crds=crds.folder(), history_limit=65536, audit_path=audit_path)
    await server.start()
    sys.stdout.write(server.url + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(main(*map(Path, sys.argv[1:])))
