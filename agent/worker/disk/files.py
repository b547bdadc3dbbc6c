"""Files that a task names: written and opened beneath its directory, and nowhere else.

Each part of a path is opened on its own without following links, so a link that points out of the directory is an
error and not a way out. A Secret's or ConfigMap's mounted folder is read here too.
"""

import binascii
import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping

from agent.paths import PATH_RULE, folder_among, is_folder_path, is_path
from agent.work_messages import File
from agent.worker.errors import StepRefusedError

MAX_SAID = 100
"""Of a path that is refused, in characters."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def write_files(directory: str, files: Mapping[str, str | File]) -> None:
    """Write a task's files, with the folders they need. Raises StepRefusedError for a path that leads elsewhere."""
    if (folder := folder_among(files)) is not None:
        raise StepRefusedError(f"file {folder!r} is the folder of another file")
    for path, content in files.items():
        file = File(text=content) if isinstance(content, str) else content
        folders, name = split(path)
        try:
            with _folder(directory, folders, create=True) as parent:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
                with open(os.open(name, flags, file.mode, dir_fd=parent), "wb") as target:
                    os.fchmod(target.fileno(), file.mode)
                    target.write(_content(path, file))
        except OSError as error:
            raise StepRefusedError(f"file {path!r} can't be written: {error.strerror}") from error


def _content(path: str, file: File) -> bytes:
    if file.base64 is None:
        return (file.text or "").encode("utf-8", "surrogatepass")
    try:
        return binascii.a2b_base64(file.base64, strict_mode=True)
    except ValueError as error:
        raise StepRefusedError(f"file {path!r} is not in base64: {error}") from error


def resolve_folder(directory: str, path: str) -> str:
    """The real path of a folder below `directory`.

    Raises StepRefusedError if it is not a folder, or if links lead out of `directory`.
    """
    if not is_folder_path(path):
        raise StepRefusedError(f"workingDir {path[:MAX_SAID]!r} {PATH_RULE}")
    root = os.path.realpath(directory)
    found = os.path.realpath(os.path.join(root, path))
    if found != root and not found.startswith(root + "/"):
        raise StepRefusedError(f"workingDir {path!r} leads out of the task's directory")
    if not os.path.isdir(found):
        raise StepRefusedError(f"workingDir {path!r} is no folder of the task's directory")
    return found


def open_plain(directory: str, path: str) -> int | None:
    """A descriptor of a plain file beneath `directory`, to read and to close; None if there is none.

    Raises StepRefusedError for a path that leads elsewhere and for anything but a plain file.
    """
    folders, name = split(path)
    try:
        with _folder(directory, folders, create=False) as folder:
            # O_NONBLOCK: a pipe with nobody at its other end would be waited for.
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StepRefusedError(f"{path!r} is not a plain file: symbolic links are not followed") from error
        raise StepRefusedError(f"file {path!r} can't be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise StepRefusedError(f"{path!r} is not a plain file")
    return fd


def split(path: str) -> tuple[list[str], str]:
    """The folders and the name of a path that a task names. Raises StepRefusedError if it may not name it."""
    if not is_path(path):
        raise StepRefusedError(f"path {path[:MAX_SAID]!r} {PATH_RULE}")
    *folders, name = path.split("/")
    return folders, name


@contextlib.contextmanager
def _folder(directory: str, folders: list[str], *, create: bool) -> Iterator[int]:
    current = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in folders:
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=current)
            following = os.open(name, _FOLDER, dir_fd=current)
            os.close(current)
            current = following
        yield current
    finally:
        os.close(current)


class FolderMounts:
    """Secrets or ConfigMaps as the kubelet mounts them: a folder each, a file per key, `..data` links beside them."""

    def __init__(self, paths: Mapping[str, str]) -> None:
        self._paths = paths

    def keys(self, name: str) -> list[str] | None:
        """The keys of one of them; None if it isn't mounted. Raises StepRefusedError if it can't be read."""
        path = self._paths.get(name)
        if path is None:
            return None
        try:
            return sorted(key for key in os.listdir(path) if not key.startswith(".."))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StepRefusedError(f"{name} is mounted and can't be read: {error.strerror}") from error

    def read(self, name: str, key: str) -> str | None:
        """One value, its bytes as they are (surrogateescape); None if there is no such key.

        Raises StepRefusedError if it can't be read: a command must not run as if it had never been there.
        """
        path = self._paths.get(name)
        if path is None or "/" in key or key.startswith(".."):
            return None
        try:
            with open(os.path.join(path, key), "rb") as file:
                return os.fsdecode(file.read())
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            raise StepRefusedError(f"key {key} of {name} is mounted and can't be read: {error.strerror}") from error
