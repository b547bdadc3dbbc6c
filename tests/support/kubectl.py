"""The real kubectl, from the development environment."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from controller import crds
from tests.support.repository import ROOT

KUBECTL = Path(sys.executable).with_name("kubectl")
TASK = """
apiVersion: podslots.dev/v1alpha1
kind: SlotTask
metadata: {name: net}
spec:
  pool: terraform
  type: plan
  steps: {plan: {command: ["true"]}}
"""
"""One that is there before any pool is."""


@dataclass
class Ran:
    """A call of kubectl that has ended."""

    status: int
    out: str
    err: str


class Kubectl:
    """Calls kubectl with one kubeconfig and a home of its own, which holds its discovery cache."""

    def __init__(self, kubeconfig: Path) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="kubectl-")
        self.environ = {"PATH": os.environ["PATH"], "HOME": self._home.name, "KUBECONFIG": str(kubeconfig)}

    def close(self) -> None:
        """Removes the home."""
        self._home.cleanup()

    async def run(self, *arguments: str, stdin: str = "", environ: dict[str, str] | None = None) -> Ran:
        """One call, however it ends."""
        process = await asyncio.create_subprocess_exec(
            *(str(KUBECTL), *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**self.environ, **(environ or {})},
        )
        async with asyncio.timeout(40):
            out, err = await process.communicate(stdin.encode())
        return Ran(process.returncode or 0, out.decode(), err.decode())

    async def __call__(self, *arguments: str, stdin: str = "", environ: dict[str, str] | None = None) -> str:
        """What a call prints that must succeed."""
        ran = await self.run(*arguments, stdin=stdin, environ=environ)
        assert ran.status == 0, f"kubectl {' '.join(arguments)}: {ran.out}{ran.err}"
        return ran.out


@asynccontextmanager
async def on_a_cluster(folder: Path) -> AsyncIterator[Kubectl]:
    """kubectl on an embedded cluster of its own, without a controller of podslots."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "controller.local", "--state-dir", str(folder / "cluster")),
        *("--crds", str(crds.folder()), "--roles", str(crds.roles_file()), "--stop-grace-seconds", "1"),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    caller: Kubectl | None = None
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            ready = json.loads(await process.stdout.readline())
        caller = Kubectl(Path(ready["kubeconfig"]))
        yield caller
    finally:
        if caller is not None:
            caller.close()
        process.send_signal(signal.SIGTERM)
        await process.wait()
