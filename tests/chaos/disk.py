"""A small disk of their own for the volumes of a run's Pods, so that it can be filled. Needs the right to mount."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

SIZE = "96m"
LEFT_BYTES = (0, 4096, 65536)
"""What is left on a disk that was filled: nothing, a page, room for some records."""


class Disk:
    """Filled by a file beside the Pods' folders, where no kubelet looks."""

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / "ballast"

    def fill(self, left_bytes: int) -> int:
        """Leave only so much of it free; returns how much that took. Raises OSError."""
        found = os.statvfs(self._ballast.parent)
        taken = max(0, found.f_bavail * found.f_frsize - left_bytes)
        with self._ballast.open("wb") as file:
            if taken:
                os.posix_fallocate(file.fileno(), 0, taken)
        return taken

    def empty(self) -> None:
        """Take that away again."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def own_disk(folder: Path, beside: Path) -> Iterator[Disk | None]:
    """A tmpfs mounted at `beside`, and a folder of it at `folder`; None where this process may not mount."""
    inner = beside / "pods"
    folder.mkdir(parents=True, exist_ok=True)
    beside.mkdir(parents=True, exist_ok=True)
    with ExitStack() as mounted:
        try:
            _run("mount", "-t", "tmpfs", "-o", f"size={SIZE}", "podslots-chaos", str(beside))
            mounted.callback(_run, "umount", "--lazy", str(beside))
            inner.mkdir()
            _run("mount", "--bind", str(inner), str(folder))
            mounted.callback(_run, "umount", "--lazy", str(folder))
        except (OSError, subprocess.CalledProcessError):
            yield None
            return
        yield Disk(beside)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
