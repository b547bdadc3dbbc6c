"""Short names for long paths: a Unix socket's path has at most 107 bytes, and programs make sockets in their TMPDIR.

Terraform's providers, for one, do so and do not start below a folder whose path is long. A container's own folder in a
cluster's state is long by its Pod's UID alone.
"""

import contextlib
import os
import shutil
import stat
import tempfile
from hashlib import sha256
from pathlib import Path

PREFIX = "podslots-"
NAME_LENGTH = 10


class ShortPaths:
    """A folder of links, directly in the machine's temporary folder. `record` remembers it for the next kubelet."""

    def __init__(self, record: Path) -> None:
        self._record = record
        self._folder = self._remembered() or self._new()

    def link(self, target: Path) -> Path:
        """A short path of a folder, which is made if it is not there."""
        target.mkdir(parents=True, exist_ok=True)
        self._sweep()
        link = self._folder / sha256(bytes(target)).hexdigest()[:NAME_LENGTH]
        with contextlib.suppress(FileExistsError):
            link.symlink_to(target.absolute(), target_is_directory=True)
        return link

    def remove(self) -> None:
        """Remove all links. The folders that they led to are not touched."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._record.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Links to folders that are gone."""
        for link in self._folder.iterdir():
            if not link.exists():
                link.unlink(missing_ok=True)

    def _remembered(self) -> Path | None:
        """The folder of before, if it is still there and ours: temporary folders are cleaned, and open to all."""
        try:
            folder = Path(self._record.read_text())
            found = folder.lstat()
        except OSError:
            return None
        return folder if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() else None

    def _new(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_shortest_temporary_folder()))
        temporary = self._record.with_suffix(".tmp")
        temporary.write_text(str(folder))
        temporary.rename(self._record)
        return folder


def _shortest_temporary_folder() -> str:
    usable = [path for path in (tempfile.gettempdir(), "/tmp") if os.access(path, os.W_OK | os.X_OK)]  # noqa: S108
    return min(usable, key=len, default=tempfile.gettempdir())
