"""A TMPDIR that is short enough for the sockets that programs make in it.

A Unix socket's path has at most 107 bytes, and a provider plugin of Terraform adds some 40 to TMPDIR. A folder whose
own path is too long is given a short name, a link in /tmp, if that can be written to.
"""

import binascii
import os
from contextlib import suppress

LONGEST = 64
_SHORT = "/tmp"  # noqa: S108 - a link of our own, whose owner and target are looked at
_TRIES = 8


def is_short(path: str) -> bool:
    """Whether there is room for a socket's name below it."""
    return len(os.fsencode(path)) <= LONGEST


def temporary_folder(path: str) -> str:
    """`path`, or a short name for it."""
    if is_short(path):
        return path
    for name in _names(path):
        with suppress(OSError):
            os.symlink(path, name)
            return name
        if _is_ours(name, path):
            return name
    return path


def forget_temporary(path: str) -> None:
    """Remove the short name, if it has one."""
    if not is_short(path):
        for name in _names(path):
            if _is_ours(name, path):
                with suppress(OSError):
                    os.unlink(name)


def _names(path: str) -> list[str]:
    number = binascii.crc32(os.fsencode(path))
    return [f"{_SHORT}/slot-{os.geteuid()}-{number:08x}-{again}" for again in range(_TRIES)]


def _is_ours(name: str, path: str) -> bool:
    try:
        return os.lstat(name).st_uid == os.geteuid() and os.readlink(name) == path
    except OSError:
        return False
