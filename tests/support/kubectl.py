"""The real kubectl, from the development environment."""

import asyncio
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

KUBECTL = Path(sys.executable).with_name("kubectl")


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
        self._environ = {"PATH": os.environ["PATH"], "HOME": self._home.name, "KUBECONFIG": str(kubeconfig)}

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
            env={**self._environ, **(environ or {})},
        )
        async with asyncio.timeout(40):
            out, err = await process.communicate(stdin.encode())
        return Ran(process.returncode or 0, out.decode(), err.decode())

    async def __call__(self, *arguments: str, stdin: str = "", environ: dict[str, str] | None = None) -> str:
        """What a call prints that must succeed."""
        ran = await self.run(*arguments, stdin=stdin, environ=environ)
        assert ran.status == 0, f"kubectl {' '.join(arguments)}: {ran.out}{ran.err}"
        return ran.out
