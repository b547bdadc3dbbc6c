"""The agent's memory: the journal, in a volume that outlives the container. Its bytes are those of `journal_format`.

After a failed write the end of the file is unknown; after a failed fsync all of its pages are. So the next commit first
writes a new file from the state in memory, as a compaction does. If the disk was only full, the file is cut back and
used again. No I/O but through `Disk`.
"""

import errno
from contextlib import suppress
from dataclasses import dataclass, replace

from agent.errors import JournalDamagedError
from agent.rules.state import State
from agent.store.disk import Disk
from agent.store.journal_format import NOTHING, VERSION, Header, Replay, encode_frame, new_file, replay

NAME = "journal"
NEW_NAME = "journal.new"
RESERVE_NAME = "journal.reserve"
RESERVE_BYTES = 1 << 20
"""Room on the disk for the ends of what is held, should others fill it: some two hundred records."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

COMPACT_BYTES = 1 << 20
"""Below this a replay takes well under a second, and compacting would cost more than it saves."""

COMPACT_FACTOR = 4
"""A file is compacted when it is this many times its own snapshot: the writes stay a fraction of the appends."""


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
    written gives a broken journal, which is tried again with every commit. Raises OSError if it can't be read: then it
    is not known which slots are held, and the agent must not guess.
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
