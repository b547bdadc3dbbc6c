"""Finds a run's output among all that its worker printed, by the marks of `agent/worker/step/marks.py`. Pure."""

from binascii import crc32
from dataclasses import dataclass
from enum import Enum, auto

NOTE = b": note "


class Kind(Enum):
    """What a line of a run is."""

    TEXT = auto()
    BEGINS = auto()
    ENDED = auto()
    NOTE = auto()


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a run. `text` is what the step wrote, its line end included if there was one; of a note its words."""

    kind: Kind
    text: bytes = b""


class RunLines:
    """The lines of one step of one attempt."""

    def __init__(self, name: str, step: str, task_id: str) -> None:
        self._mark = f"[{name} {step} {crc32(task_id.encode()):08x}]".encode()

    def read(self, line: bytes) -> Line | None:
        """What a line of the container's log, without its end, is; None if it is of something else."""
        if not line.startswith(self._mark):
            return None
        rest = line[len(self._mark) :]
        match rest[:1]:
            case b" " | b"":
                return Line(Kind.TEXT, rest[1:] + b"\n")
            case b"+":
                return Line(Kind.TEXT, rest[1:])
            case b":":
                if rest.startswith(NOTE):
                    return Line(Kind.NOTE, rest.removeprefix(NOTE))
                return {b": begins": Line(Kind.BEGINS), b": ended": Line(Kind.ENDED)}.get(rest)
        return None
