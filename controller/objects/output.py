"""SlotTaskOutput: what one step of one attempt has written, compressed, and what of it is missing. Pure.

The kept bytes are the beginning and the end of the output, joined. `missing` says where they do not meet, as places in
the step's output: so a reader can put the pieces where they belong, and never takes a part for the whole.
"""

import base64
import binascii
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from agent.wire import Step
from controller.errors import InvalidObject
from controller.names import API_VERSION
from controller.objects.fields import Fields

KIND = "SlotTaskOutput"
ENCODING = "gzip"
MAX_NAME_LENGTH = 253
HASH_LENGTH = 16
"""Hex digits of the hash in a name that was cut: 64 bits."""
GZIP_WINDOW_BITS = 31
"""zlib's number for gzip with the largest window."""
LEVEL = 6
MARGIN = 0.95
"""What is cut is cut a little more than the size says: its two halves need not compress alike."""
MAX_KEPT_BYTES = 256 << 20
"""More is not unpacked. Agents keep less by far: an object that says more was not made by a controller."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes that the step wrote and that are not kept."""

    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A step's output as far as it is kept. `size_bytes` is what the step wrote in all."""

    kept: bytes
    size_bytes: int
    missing: tuple[Gap, ...] = ()

    @property
    def missing_bytes(self) -> int:
        """How much of it is not there."""
        return sum(gap.size_bytes for gap in self.missing)

    def pieces(self) -> Iterator[bytes | Gap]:
        """What is kept and what is missing, in the order in which the step wrote it."""
        place = taken = 0
        for gap in self.missing:
            if gap.offset > place:
                yield self.kept[taken : taken + gap.offset - place]
                taken += gap.offset - place
            yield gap
            place = gap.offset + gap.size_bytes
        if taken < len(self.kept):
            yield self.kept[taken:]

    def without(self, start: int, end: int) -> "Output":
        """The same with the kept bytes from `start` to `end` (places in `kept`) taken out as well."""
        if end <= start:
            return self
        gaps = sorted([*self.missing, *self._places(start, end)], key=lambda gap: gap.offset)
        kept = self.kept[:start] + self.kept[end:]
        return Output(kept=kept, size_bytes=self.size_bytes, missing=_joined(gaps))

    def _places(self, start: int, end: int) -> Iterator[Gap]:
        """Where in the step's output the kept bytes from `start` to `end` are."""
        place = taken = 0
        for piece in self.pieces():
            if isinstance(piece, Gap):
                place += piece.size_bytes
                continue
            first, last = max(start, taken), min(end, taken + len(piece))
            if first < last:
                yield Gap(place + first - taken, last - first)
            place += len(piece)
            taken += len(piece)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The task that the output is of."""

    namespace: str
    task: str
    task_uid: str
    attempt: int
    step: Step


def name_of(task: str, attempt: int, step: str) -> str:
    """The object's name. A task's name may be as long as any: then it is cut, and a hash keeps the names apart."""
    whole = f"{task}-{attempt}-{step}"
    if len(whole) <= MAX_NAME_LENGTH:
        return whole
    end = f"-{hashlib.sha256(whole.encode()).hexdigest()[:HASH_LENGTH]}-{attempt}-{step}"
    return task[: MAX_NAME_LENGTH - len(end)].rstrip("-.") + end


def packed(output: Output, limit_bytes: int) -> tuple[Output, bytes]:
    """What of the output is kept within so many bytes, compressed: all of it, or its beginning and its end."""
    compressed = _compress(output.kept)
    kept_bytes = len(output.kept)
    while len(compressed) > limit_bytes and kept_bytes:
        kept_bytes = int(min(kept_bytes * MARGIN, kept_bytes * MARGIN * limit_bytes / len(compressed)))
        start = kept_bytes // 2
        end = len(output.kept) - (kept_bytes - start)
        shorter = output.without(start, end)
        compressed = _compress(shorter.kept)
        if len(compressed) <= limit_bytes or not kept_bytes:
            return shorter, compressed
    return output, compressed


def document(source: Source, output: Output, compressed: bytes) -> dict[str, Any]:
    """The object, as it is created. It goes when its task goes."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": name_of(source.task, source.attempt, source.step),
            "namespace": source.namespace,
            "ownerReferences": [
                {"apiVersion": API_VERSION, "kind": "SlotTask", "name": source.task, "uid": source.task_uid}
            ],
        },
        "spec": {
            "task": source.task,
            "taskUID": source.task_uid,
            "attempt": source.attempt,
            "step": source.step.value,
            "sizeBytes": output.size_bytes,
            "keptBytes": len(output.kept),
            **(
                {"missing": [{"offset": gap.offset, "bytes": gap.size_bytes} for gap in output.missing]}
                if output.missing
                else {}
            ),
            "digest": _digest(output.kept),
            "encoding": ENCODING,
            "data": base64.b64encode(compressed).decode(),
        },
    }


def belongs_to(found: dict[str, Any], task_uid: str) -> bool:
    """Whether the object is of this task, and not of an earlier one with the same name."""
    return bool((found.get("spec") or {}).get("taskUID") == task_uid)


def parse(found: dict[str, Any]) -> Output:
    """The output that an object holds. Raises InvalidObject if it is not what it says it is."""
    spec = Fields(found, "").child("spec")
    kept_bytes = spec.integer("keptBytes", 0)
    if kept_bytes > MAX_KEPT_BYTES:
        raise spec.fail("keptBytes", "is too much to unpack")
    if spec.text("encoding") != ENCODING:
        raise spec.fail("encoding", f"is not {ENCODING}: a newer version wrote it")
    try:
        kept = _decompress(base64.b64decode(spec.text("data"), validate=True), kept_bytes)
    except (binascii.Error, zlib.error) as error:
        raise InvalidObject(spec.at("data"), f"can't be unpacked: {error}") from error
    if len(kept) != kept_bytes or _digest(kept) != spec.text("digest"):
        raise spec.fail("data", "is not what its digest says")
    missing = tuple(Gap(item.integer("offset", 0), item.integer("bytes", 0)) for item in spec.children("missing"))
    output = Output(kept=kept, size_bytes=spec.integer("sizeBytes", 0), missing=missing)
    if len(kept) + output.missing_bytes != output.size_bytes:
        raise spec.fail("missing", "does not add up to sizeBytes")
    return output


def _joined(gaps: list[Gap]) -> tuple[Gap, ...]:
    """Gaps that meet are one."""
    joined: list[Gap] = []
    for gap in gaps:
        if joined and joined[-1].offset + joined[-1].size_bytes == gap.offset:
            joined[-1] = Gap(joined[-1].offset, joined[-1].size_bytes + gap.size_bytes)
        else:
            joined.append(gap)
    return tuple(joined)


def _compress(data: bytes) -> bytes:
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP_WINDOW_BITS)
    return packer.compress(data) + packer.flush()


def _decompress(data: bytes, size_bytes: int) -> bytes:
    """At most a byte more than there should be: a small object can hold a very large one."""
    return zlib.decompressobj(GZIP_WINDOW_BITS).decompress(data, size_bytes + 1)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
