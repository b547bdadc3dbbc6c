"""The bytes of a journal: an append-only file of checksummed frames.

    magic line | frame(header) | frame(snapshot) | frame(records of one commit) | …
    frame:  length (u32) | crc32 of the length (u32) | crc32 of the payload (u32) | payload (JSON)

One commit is one frame, so its records are there together or not at all. Only an incomplete last frame (or a tail of
zeros, which a file system may leave after a power loss) was never acknowledged and is cut off. Anything else that does
not check is damage: the length has a checksum of its own, so that a flipped bit in it is not taken for a torn tail,
and a last frame that is complete but wrong may well have been acknowledged.
"""

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from agent.codec import decode
from agent.errors import JournalDamagedError
from agent.rules.state import RECORD_TYPES, Record, Snapshot, State, apply, snapshot_of
from agent.wire import WireError

VERSION = 2
READABLE = frozenset({1, VERSION})
"""Version 1 had no clock, and said in its snapshot whether a journal was lost before."""

NOTHING = b"[]"
"""A commit without records."""
MAGIC = b"podslots-journal 1\n"
FRAME = struct.Struct("<III")
LENGTH = struct.Struct("<I")
OPTIONS = orjson.OPT_UTC_Z

_RECORD_NAMES = {kind: name for name, kind in RECORD_TYPES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Which Pod's journal this is. `slots` is the size of the layout it was written for."""

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
    return orjson.dumps([(_RECORD_NAMES[type(record)], record) for record in records], option=OPTIONS)


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


def new_file(header: Header, state: State) -> bytes:
    """The bytes of a fresh or compacted journal."""
    payload = orjson.dumps(header, option=OPTIONS)
    return MAGIC + encode_frame(payload) + encode_frame(encode_records([snapshot_of(state)]))
