"""Processes, as /proc and prctl show and govern them."""

import os
import signal
from collections.abc import Iterator

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_STARTED_FIELD = 19
"""Place of `starttime` among the fields of /proc/PID/stat that follow the name (field 22 of proc(5))."""


def _prctl(option: int, value: int) -> None:
    import ctypes  # noqa: PLC0415 - 2 ms that a start need not wait for

    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(option, value, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own parent, so that no process escapes by forking twice."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Have the kernel send SIGKILL to this process when its parent, or the thread that forked it, ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def start_ticks(pid: int) -> int | None:
    """When the process started, in ticks since boot: with its id, that names it for good. None if it is gone."""
    fields = _stat(pid)
    return None if fields is None else int(fields[_STARTED_FIELD])


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, zombies left out."""
    children: dict[int, list[int]] = {}
    for other in _pids():
        fields = _stat(other)
        if fields is not None:
            children.setdefault(int(fields[1]), []).append(-other if fields[0] in b"ZX" else other)
    found, pending = [], [pid]
    while pending:
        below = children.get(pending.pop(), [])
        found += [child for child in below if child > 0]
        pending += [abs(child) for child in below]
    return found


def with_environment(name: str, value: str) -> list[int]:
    """All processes that were started with this environment variable. Those of other users can't be seen."""
    wanted = b"\0" + os.fsencode(f"{name}={value}") + b"\0"
    found = []
    for pid in _pids():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if wanted in b"\0" + file.read() + b"\0":
                    found.append(pid)
        except OSError:
            continue
    return found


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process, which may be gone. One that stands still (SIGSTOP) goes on: else it could not act on it."""
    try:
        os.kill(pid, number)
        os.kill(pid, signal.SIGCONT)
    except (ProcessLookupError, PermissionError):
        return


def send_group(group: int, number: signal.Signals) -> None:
    """Signal a process group, which may be gone. What stands still goes on, as in `send`."""
    try:
        os.killpg(group, number)
        os.killpg(group, signal.SIGCONT)
    except (ProcessLookupError, PermissionError):
        return


def group_lives(group: int) -> bool:
    """Whether a process group has anybody left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def with_open_file(path: str) -> list[int]:
    """All processes but this one that have a file open. Those of other users can't be seen."""
    try:
        wanted = os.stat(path, follow_symlinks=False)
    except OSError:
        return []
    return [pid for pid in _pids() if pid != os.getpid() and _has_open(pid, wanted)]


def _has_open(pid: int, wanted: os.stat_result) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        for name in os.listdir(folder):
            try:
                found = os.stat(f"{folder}/{name}")
            except OSError:
                continue  # closed meanwhile
            if (found.st_ino, found.st_dev) == (wanted.st_ino, wanted.st_dev):
                return True
    except OSError:
        return False
    return False


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _stat(pid: int) -> list[bytes] | None:
    """The fields after the name, which may hold anything, brackets too. None if the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return None
