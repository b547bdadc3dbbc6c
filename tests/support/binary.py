"""The binary under test, and other systems' roots to run it in."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.agent_process import AgentProcess, wait_for
from tests.support.repository import ROOT
from tests.support.worker_process import WorkerProcess

BINARY = ROOT / "dist" / "slot-agent"
OLD_ROOT = ROOT / "build" / "roots" / "bullseye"
"""A Debian whose C library is older than any that Python could be built with: `make roots`."""

NOBODY = 65532
IS_ROOT = os.geteuid() == 0
NEEDS_ROOT = "needs root, to change the root folder and mount"
NEEDS_OLD_ROOT = "needs build/roots/bullseye: run `make roots` as root (debootstrap, and a mirror of Debian)"
NEEDS_MUSL = "needs musl-gcc (Debian's musl-tools)"


def built() -> Path:
    """dist/slot-agent as the sources are now. Built once, whichever test process comes first."""
    BINARY.parent.mkdir(exist_ok=True)
    with BINARY.with_name(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return build(BINARY)


def build(target: Path, sources: Path = ROOT) -> Path:
    """What `make binary` does, with another place for the result."""
    command = [sys.executable, "-m", "binary", "--output", str(target)]
    subprocess.run(command, cwd=sources, check=True, stdout=subprocess.DEVNULL)
    return target


def installed(folder: Path) -> Path:
    """FOLDER/slot-agent, as containers get it."""
    subprocess.run([built(), "install", folder], check=True)
    return folder / "slot-agent"


_INSIDE = """
set -e
root=$1 user=$2; shift 2
mount --bind "$root" "$root"
mount --bind /proc "$root/proc"
mount --bind /dev "$root/dev"
while [ "$1" != -- ]; do mount --bind "$1" "$root$2"; shift 2; done; shift
mount -o remount,ro,bind "$root"
exec chroot --userspec="$user:$user" "$root" "$@"
"""


def inside(
    root: Path, command: Sequence[str | Path], *, mounts: Mapping[Path, str] | None = None, user: int = NOBODY
) -> list[str]:
    """The command line that runs `command` with `root` as its root, read-only but for `mounts` (folder: path there)."""
    pairs = []
    for folder, path in (mounts or {}).items():
        root.joinpath(path.lstrip("/")).mkdir(parents=True, exist_ok=True)
        pairs += [str(folder), path]
    for given in ("proc", "dev"):  # as every container runtime does
        root.joinpath(given).mkdir(exist_ok=True)
    words = [str(word) for word in command]
    return ["unshare", "--mount", "sh", "-c", _INSIDE, "sh", str(root), str(user), *pairs, "--", *words]


def compile_step(target: Path, source: str, compiler: str = "gcc", *options: str) -> None:
    """A program for tasks to run."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([compiler, *options, "-x", "c", "-o", target, "-"], input=source, text=True, check=True)


def musl_root(root: Path) -> Path:
    """A root with musl as its C library, as Alpine has it, and nothing else."""
    loader = next(Path("/lib").glob("ld-musl-*.so.1"))
    target = root / "lib" / loader.name
    target.parent.mkdir(parents=True)
    shutil.copyfile(loader.resolve(), target)
    target.chmod(0o755)
    return root


class BinaryAgent(AgentProcess):
    """`slot-agent serve` by another command line than that of the sources."""

    command: Sequence[str | Path] = (BINARY, "serve")

    def start(self) -> "BinaryAgent":
        """Start it and wait until it serves."""
        with (self.folder / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(self.command, env=self.environ, stdout=log, stderr=log)
        wait_for(self._serves, f"the agent serves; its log: {self.folder / 'agent.log'}")
        return self


class BinaryWorker(WorkerProcess):
    """`slot-agent work` by another command line than that of the sources."""

    def run(self, *command: str | Path, **environ: str) -> None:
        """Start it; `environ` in place of some of its variables."""
        self._command = tuple(map(str, command))
        del self.environ["PYTHONPATH"]
        self.environ |= environ
        self.start()
