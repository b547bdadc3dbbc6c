"""The agent's memory: an append-only file of checksummed frames, in a volume that outlives the container.

    magic line | frame(header) | frame(snapshot) | frame(records of one commit) | …
    frame:  length (u32) | crc32 of the length (u32) | crc32 of the payload (u32) | payload (JSON)

One commit is one frame, so its records are there together or not at all. Only an incomplete last frame (or a tail of
zeros, which a file system may leave after a power loss) was never acknowledged and is cut off. Anything else that does
not check is damage: the length has a checksum of its own, so that a flipped bit in it is not taken for a torn tail,
and a last frame that is complete but wrong may well have been acknowledged.

After a failed write nothing is known of the file's end (after a failed fsync, of none of its pages), so the next commit
first writes a new file from the state in memory, like a compaction. A disk that was only full is another matter: the
file is cut back and goes on. No I/O but through `Disk`.
"""

import errno
import os
import struct
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import orjson

from agent.codec import decode
from agent.errors import JournalDamagedError
from agent.rules.state import RECORD_TYPES, Record, SlotChanged, Snapshot, State, apply, snapshot_of
from agent.wire import WireError

VERSION = 2
READABLE = frozenset({1, VERSION})
"""Version 1 had no clock, and said in its snapshot whether a journal was lost before."""

NAME = "journal"
NEW_NAME = "journal.new"
RESERVE_NAME = "journal.reserve"
RESERVE_BYTES = 1 << 20
"""Room on the disk for the ends of what is held, should others fill it: some two hundred records."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
NOTHING = b"[]"
"""A commit without records."""
MAGIC = b"podslots-journal 1\n"
FRAME = struct.Struct("<III")
LENGTH = struct.Struct("<I")
OPTIONS = orjson.OPT_UTC_Z

COMPACT_BYTES = 1 << 20
"""Below this a replay takes well under a second, and compacting would cost more than it saves."""

COMPACT_FACTOR = 4
"""A file is compacted when it is this many times its own snapshot: the writes stay a fraction of the appends."""

_RECORD_NAMES = {kind: name for name, kind in RECORD_TYPES.items()}


class Disk(Protocol):
    """The folder of the journal. Everything may raise OSError; a write that returned has reached the disk."""

    def read(self, name: str) -> bytes | None:
        """The file's bytes; None if there is none."""

    def write(self, name: str, data: bytes) -> None:
        """Make or replace the file, synced. Not atomic: rename does that."""

    def append(self, name: str, data: bytes) -> None:
        """Add to the file's end, synced."""

    def truncate(self, name: str, size_bytes: int) -> None:
        """Cut the file, synced."""

    def rename(self, old: str, new: str) -> None:
        """Replace `new` by `old` atomically, the folder synced."""

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""

    def remove(self, name: str) -> None:
        """Remove the file, if it is there."""


class FolderDisk:
    """A real folder. Keeps the file that is appended to open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open_name: str | None = None
        self._fd = -1

    def read(self, name: str) -> bytes | None:
        """The file's bytes; None if there is none."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Make or replace the file, synced."""
        self.close()
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._folder / name, flags, 0o600)
        try:
            _write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)

    def append(self, name: str, data: bytes) -> None:
        """Add to the file's end, synced."""
        if self._open_name != name:
            self.close()
            flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self._folder / name, flags)
            self._open_name = name
        _write_all(self._fd, data)
        os.fdatasync(self._fd)

    def truncate(self, name: str, size_bytes: int) -> None:
        """Cut the file, synced."""
        fd = os.open(self._folder / name, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.ftruncate(fd, size_bytes)
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, old: str, new: str) -> None:
        """Replace `new` by `old` atomically, the folder synced."""
        self.close()
        (self._folder / old).rename(self._folder / new)
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self._folder / name).exists()

    def remove(self, name: str) -> None:
        """Remove the file, if it is there."""
        (self._folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file that is appended to."""
        if self._fd >= 0:
            fd, self._fd, self._open_name = self._fd, -1, None
            os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, data[written:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Whose journal this is. `slots` is the size of the layout it was written for."""

    version: int = VERSION
    pod_uid: str
    journal_id: str
    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What a journal's bytes say. `size_bytes` is where its last whole frame ends, `torn_bytes` what follows."""

    header: Header
    state: State
    size_bytes: int
    torn_bytes: int


def encode_frame(payload: bytes) -> bytes:
    """A payload with its length and checksums."""
    length = len(payload)
    return FRAME.pack(length, zlib.crc32(LENGTH.pack(length)), zlib.crc32(payload)) + payload


def encode_records(records: Iterable[Record]) -> bytes:
    """The payload of one commit."""
    return orjson.dumps([(_RECORD_NAMES[type(record)], _plain(record)) for record in records], option=OPTIONS)


def _plain(record: Record) -> Any:
    """A record for orjson. A dictionary takes half as long as an object, and every acquire writes one of these."""
    if not isinstance(record, SlotChanged):
        return record
    slot = record.entry
    entry = {
        "id": slot.id,
        "state": slot.state,
        "fence": slot.fence,
        "since": slot.since,
        "task_id": slot.task_id,
        "task_type": slot.task_type,
        "step": slot.step,
        "origin": slot.origin,
        "expires_at": slot.expires_at,
        "managed": slot.managed,
        "acquire_fence": slot.acquire_fence,
        "before": slot.before,
    }
    return {"event": record.event, "entry": entry}


def replay(data: bytes, empty: State) -> Replay:
    """The state that a journal's bytes describe, over `empty` for its layout. Raises JournalDamagedError."""
    if not data.startswith(MAGIC):
        raise JournalDamagedError("it does not begin as a journal does")
    payload, offset = _read_frame(data, len(MAGIC))
    if payload is None:
        raise JournalDamagedError("its header is incomplete")
    header = _parse(Header, payload)
    if header.version not in READABLE:
        raise JournalDamagedError(f"its format is version {header.version}")
    state, seen = empty, False
    while offset < len(data):
        payload, end = _read_frame(data, offset)
        if payload is None:
            break
        for record in _parse_records(payload, header.version):
            state = apply(state, record)
        offset, seen = end, True
    if not seen:
        raise JournalDamagedError("it has no snapshot")
    return Replay(header=header, state=state, size_bytes=offset, torn_bytes=len(data) - offset)


def _read_frame(data: bytes, offset: int) -> tuple[bytes | None, int]:
    """The payload at `offset` and where it ends; None if the frame is torn. Raises JournalDamagedError."""
    start = offset + FRAME.size
    if start > len(data):
        return None, offset
    length, length_crc, payload_crc = FRAME.unpack_from(data, offset)
    if zlib.crc32(LENGTH.pack(length)) != length_crc:
        if not any(data[offset:]):
            return None, offset
        raise JournalDamagedError(f"the frame header at byte {offset} does not check")
    payload = data[start : start + length]
    if len(payload) < length:
        return None, offset
    if zlib.crc32(payload) != payload_crc:
        raise JournalDamagedError(f"the frame at byte {offset} does not check")
    return payload, start + length


def _parse_records(payload: bytes, version: int) -> list[Record]:
    try:
        return [_parse_record(name, body, version) for name, body in orjson.loads(payload)]
    except (ValueError, TypeError) as error:
        raise JournalDamagedError(f"a record can't be read: {error}") from error


def _parse_record(name: str, body: Any, version: int) -> Record:
    kind = RECORD_TYPES.get(name)
    if kind is None:
        raise JournalDamagedError(f"there is no record {name!r} in this version")
    if version == 1 and kind is Snapshot:
        body = {field: value for field, value in body.items() if field != "lost"}
    record: Record = decode(kind, body, strict=True)
    return record


def _parse(kind: type[Header], payload: bytes) -> Header:
    try:
        return decode(kind, orjson.loads(payload), strict=True)
    except (orjson.JSONDecodeError, WireError) as error:
        raise JournalDamagedError(f"its header can't be read: {error}") from error


class Journal:
    """The open journal. One caller at a time; blocking, so call it off the event loop."""

    def __init__(self, disk: Disk, header: Header, *, size_bytes: int, broken: bool = False) -> None:
        self._disk = disk
        self._header = header
        self._size_bytes = size_bytes
        self._broken = broken
        self._next_compaction_bytes = COMPACT_BYTES
        self._has_reserve = disk.exists(RESERVE_NAME)
        self._short = False

    @property
    def size_bytes(self) -> int:
        """How long the file is."""
        return self._size_bytes

    @property
    def broken(self) -> bool:
        """Whether the last write failed."""
        return self._broken

    @property
    def short(self) -> bool:
        """Whether the disk was so full that the reserve had to be given up, and it could not be made again yet."""
        return self._short

    @property
    def wants_probe(self) -> bool:
        """Whether `probe` has something to do."""
        return self._broken or not self._has_reserve

    def commit(self, payload: bytes, base: State, *, urgent: bool = True) -> None:
        """Append one commit; `base` is the state before it. Raises OSError, and then nothing was committed.

        On a full disk an urgent one takes the reserve's place: the end of what is held, and not new work.
        """
        if self._broken:
            self.rewrite(base)
        elif self._size_bytes > self._next_compaction_bytes:
            self._compact(base)
        frame = encode_frame(payload)
        try:
            self._append(frame)
        except OSError as error:
            if not (urgent and error.errno in FULL and self._give_up_reserve()):
                raise
            if self._broken:
                self.rewrite(base)
            self._append(frame)

    def _append(self, frame: bytes) -> None:
        try:
            self._disk.append(NAME, frame)
        except OSError as error:
            # A write that found no room and was taken back leaves the file as it was. Of any other failure, that of a
            # sync above all, nothing is known but that it failed.
            self._broken = not (self._cut_back() and error.errno in FULL)
            raise
        self._size_bytes += len(frame)

    def probe(self, base: State) -> None:
        """Find out whether the journal can be written again, and make the reserve anew. Raises OSError if not."""
        if self._broken:
            self.rewrite(base)
        else:
            self._append(encode_frame(NOTHING))
        if not self._has_reserve:
            try:
                self._disk.write(RESERVE_NAME, bytes(RESERVE_BYTES))
            except OSError:
                self._remove(RESERVE_NAME)
                raise
            self._has_reserve, self._short = True, False

    def _give_up_reserve(self) -> bool:
        """Make room. False if there was no reserve."""
        had, self._has_reserve = self._has_reserve, False
        self._short = self._short or had
        self._remove(RESERVE_NAME)
        return had

    def _remove(self, name: str) -> None:
        """Half a file must not fill a full disk further."""
        with suppress(OSError):
            self._disk.remove(name)

    def rewrite(self, state: State) -> None:
        """Put a new file with nothing but `state` in the place of the old one. Raises OSError, and is then broken."""
        data = new_file(self._header, state)
        self._broken = True
        try:
            self._write_new(data)
        except OSError as error:
            if not (error.errno in FULL and self._give_up_reserve()):
                raise
            self._write_new(data)
        self._replace(data)

    def _write_new(self, data: bytes) -> None:
        try:
            self._disk.write(NEW_NAME, data)
        except OSError:
            self._remove(NEW_NAME)
            raise

    def _compact(self, base: State) -> None:
        data = new_file(self._header, base)
        try:
            self._write_new(data)
        except OSError:
            # The old file is whole, and a disk too full for a second one may still have room for a frame.
            self._next_compaction_bytes = self._size_bytes + COMPACT_BYTES
            return
        self._broken = True
        self._replace(data)

    def _replace(self, data: bytes) -> None:
        self._disk.rename(NEW_NAME, NAME)
        self._size_bytes = len(data)
        self._next_compaction_bytes = max(COMPACT_BYTES, COMPACT_FACTOR * len(data))
        self._broken = False

    def _cut_back(self) -> bool:
        """Remove what a failed append may have left, so that a crash now does not bring it back. False if it can't."""
        try:
            self._disk.truncate(NAME, self._size_bytes)
        except OSError:
            return False
        return True


def new_file(header: Header, state: State) -> bytes:
    """The bytes of a fresh or compacted journal."""
    payload = orjson.dumps(header, option=OPTIONS)
    return MAGIC + encode_frame(payload) + encode_frame(encode_records([snapshot_of(state)]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A journal ready for commits, the state it holds, and what people should know about it."""

    journal: Journal
    state: State
    warnings: tuple[str, ...] = ()


def open_journal(disk: Disk, header: Header, fresh: State, lost: State, *, used_before: bool) -> Opened:
    """Replay the journal, or set aside what can't be trusted and start a fresh one.

    `header` has a new journal id, in case one is needed. `fresh` and `lost` are the states of a new Pod's journal and
    of one whose predecessor is gone; `used_before` says that other traces show an agent ran here. A disk that can't be
    written gives a broken journal, which is tried again with every commit. Raises OSError if it can't be read: what is
    held is not known then, and must not be guessed.
    """
    with suppress(OSError):
        disk.remove(NEW_NAME)
    data = disk.read(NAME)
    if data is None:
        warnings = ("the journal is gone although an agent ran here before",) if used_before else ()
        return _start(disk, header, lost if used_before else fresh, warnings)
    try:
        found = replay(data, fresh)
        _check_owner(found, header)
    except JournalDamagedError as damage:
        return _start(disk, header, lost, (f"{_set_aside(disk)}: {damage}",))
    if found.header.version != VERSION:
        return _start(disk, replace(found.header, version=VERSION), found.state, ())
    if not found.torn_bytes:
        return Opened(journal=Journal(disk, found.header, size_bytes=len(data)), state=found.state)
    broken = False
    try:
        disk.truncate(NAME, found.size_bytes)
    except OSError:
        broken = True
    journal = Journal(disk, found.header, size_bytes=found.size_bytes, broken=broken)
    warning = f"an incomplete last write of {found.torn_bytes} bytes was cut off the journal"
    return Opened(journal=journal, state=found.state, warnings=(warning,))


def _start(disk: Disk, header: Header, state: State, warnings: tuple[str, ...]) -> Opened:
    journal = Journal(disk, header, size_bytes=0)
    try:
        journal.rewrite(state)
    except OSError as error:
        warnings = (*warnings, f"the journal can't be written: {error}")
    return Opened(journal=journal, state=state, warnings=warnings)


def _check_owner(found: Replay, expected: Header) -> None:
    if found.header.pod_uid != expected.pod_uid:
        raise JournalDamagedError(f"it belongs to the Pod with UID {found.header.pod_uid}")
    if found.header.slots != expected.slots or len(found.state.slots) != expected.slots:
        raise JournalDamagedError(f"it was written for {found.header.slots} slots, not {expected.slots}")


def _set_aside(disk: Disk) -> str:
    number = 1
    while disk.exists(f"{NAME}.aside-{number}"):
        number += 1
    try:
        disk.rename(NAME, f"{NAME}.aside-{number}")
    except OSError as error:
        return f"the journal can't be trusted, nor be set aside ({error})"
    return f"the journal was set aside as {NAME}.aside-{number}"
