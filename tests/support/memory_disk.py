"""A journal's folder in memory, whose operations can be told to fail."""

import errno


class MemoryDisk:
    """`faults` are taken in order, one for each operation that changes something; past their end all is well.

    `fail`: nothing happens. `torn`: half of it happens. Both raise OSError.
    """

    def __init__(self, files: dict[str, bytes] | None = None, *, faults: list[str] | None = None) -> None:
        self.files: dict[str, bytes] = dict(files or {})
        self.faults: list[str] = faults if faults is not None else []
        self.log: list[str] = []

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def exists(self, name: str) -> bool:
        return name in self.files

    def remove(self, name: str) -> None:
        self.files.pop(name, None)

    def write(self, name: str, data: bytes) -> None:
        fault = self._fault(name)
        if fault == "torn":
            self.files[name] = data[: len(data) // 2]
        elif fault == "ok":
            self.files[name] = data
        self._raise(fault)

    def append(self, name: str, data: bytes) -> None:
        fault = self._fault(name)
        if name not in self.files:
            raise FileNotFoundError(errno.ENOENT, name)
        if fault == "torn":
            self.files[name] += data[: len(data) // 2]
        elif fault == "ok":
            self.files[name] += data
        self._raise(fault)

    def truncate(self, name: str, size_bytes: int) -> None:
        fault = self._fault(name)
        if fault == "ok" and name in self.files:
            self.files[name] = self.files[name][:size_bytes]
        self._raise(fault)

    def rename(self, old: str, new: str) -> None:
        fault = self._fault(new)
        if fault != "fail" and old in self.files:
            # Torn: renamed, and the folder's sync failed.
            self.files[new] = self.files.pop(old)
        self._raise(fault)

    def _fault(self, name: str) -> str:
        self.log.append(name)
        return self.faults.pop(0) if self.faults else "ok"

    def _raise(self, fault: str) -> None:
        if fault != "ok":
            raise OSError(errno.ENOSPC, "an injected fault")
