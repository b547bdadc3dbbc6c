"""Whether memory ran out: the kernel counts the processes that it killed for it in this container's group.

The whole container may be killed as one (`memory.oom.group`); then there is nobody left to look, and the container's
last state says it.
"""

_ROOT = "/sys/fs/cgroup"
_MEBIBYTE = 1 << 20


class MemoryWatch:
    """Compares the count before and after."""

    def __init__(self, root: str = _ROOT) -> None:
        self._folder = _folder(root)
        self._before = self._kills()

    def ran_out(self) -> str | None:
        """What to say if memory ran out since this was made."""
        if self._kills() <= self._before:
            return None
        limit = _read(f"{self._folder}/memory.max") or _read(f"{self._folder}/memory.limit_in_bytes")
        known = limit.strip()
        return f"memory ran out (limit {int(known) // _MEBIBYTE} MiB)" if known.isdecimal() else "memory ran out"

    def _kills(self) -> int:
        text = _read(f"{self._folder}/memory.events") or _read(f"{self._folder}/memory.oom_control")
        for line in text.splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill" and value.isdecimal():
                return int(value)
        return 0


def _folder(root: str) -> str:
    """Our group's folder: in a container the root, unless the machine's whole tree is mounted there."""
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in {"", "memory"}:
            for base in (root, f"{root}/memory"):
                if _read(f"{base}{path}/memory.events") or _read(f"{base}{path}/memory.oom_control"):
                    return base + path.rstrip("/")
    return root if _read(f"{root}/memory.events") else f"{root}/memory"


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except (OSError, ValueError):
        return ""
