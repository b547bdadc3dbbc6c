"""Who may call what: the pool's tokens, one credential per slot, the local one, and that of `slot-agent close`.

Tokens are compared in constant time. A token that is not valid is compared with all of them. The pool's tokens are a
mounted Secret that the kubelet replaces while the agent runs; they are read again from time to time, and once more when
an unknown one is shown.
"""

import asyncio
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from hmac import compare_digest
from pathlib import Path

from agent.config import Settings
from agent.wire import READERS_PREFIX

MIN_TOKEN_LENGTH = 32
"""In characters. Credentials made here have 43; a shorter file was not written by an agent."""

MAX_TOKEN_BYTES = 4096

FOLDER_MODE = 0o750

REREAD_SECONDS = 1.0
"""The pool's tokens are read at most this often, however many unknown ones callers show."""


class Kind(StrEnum):
    """What a credential is good for."""

    POOL = "pool"
    READER = "reader"
    SLOT = "slot"
    LOCAL = "local"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller. `slot` is the number of the slot if a slot's credential was shown."""

    kind: Kind
    slot: int = -1


@dataclass(frozen=True, slots=True)
class _Credential:
    token: bytes = field(repr=False)
    identity: Identity


POOL, READER = Identity(Kind.POOL), Identity(Kind.READER)


class Keyring:
    """Every token that is valid now. `own` are those the agent made, by identity; they do not change."""

    def __init__(self, own: Mapping[Identity, str], pool: Mapping[str, str]) -> None:
        self._own = tuple(_Credential(token.encode(), identity) for identity, token in own.items())
        self._pool: dict[str, str] = {}
        self._all: tuple[_Credential, ...] = ()
        self.replace_pool(pool)

    @property
    def pool_token_ids(self) -> tuple[str, ...]:
        """The ids of the pool tokens, sorted. Those that are good for reading alone are not among them."""
        return tuple(sorted(name for name in self._pool if not name.startswith(READERS_PREFIX)))

    def pool_tokens(self, ids: Iterable[str]) -> dict[str, str]:
        """Those of the pool's tokens that have one of these ids."""
        return {name: self._pool[name] for name in ids if name in self._pool}

    def replace_pool(self, pool: Mapping[str, str]) -> bool:
        """Make these the pool's tokens. Returns whether anything changed."""
        changed = dict(pool) != self._pool or not self._all
        self._pool = dict(pool)
        shared = (
            _Credential(token.encode(), READER if name.startswith(READERS_PREFIX) else POOL)
            for name, token in pool.items()
        )
        self._all = (*shared, *self._own)
        return changed

    def identify(self, authorization: str | None) -> Identity | None:
        """The caller with this `Authorization` header. None if its token is not valid."""
        if authorization is None or authorization[:7].lower() != "bearer ":
            return None
        shown = authorization[7:].strip().encode("utf-8", "surrogateescape")
        for credential in self._all:
            if compare_digest(shown, credential.token):
                return credential.identity
        return None


class TokenFolder:
    """Keeps a keyring's pool tokens as the mounted folder has them. What can't be read changes nothing."""

    def __init__(
        self,
        folder: Path,
        keyring: Keyring,
        on_change: Callable[[], None],
        on_problem: Callable[[tuple[str, ...]], None],
    ) -> None:
        self._folder = folder
        self._on_problem = on_problem
        self._problems: tuple[str, ...] = ()
        self._keyring = keyring
        self._on_change = on_change
        self._read_at = float("-inf")

    async def refresh(self) -> None:
        """Read the folder, unless that was done a moment ago."""
        now = asyncio.get_running_loop().time()
        if now - self._read_at < REREAD_SECONDS:
            return
        self._read_at = now
        try:
            found = await asyncio.to_thread(read_pool_tokens, self._folder)
        except OSError as error:
            self._say((f"the folder: {error.strerror}",))
            return
        self._say(found.problems)
        if self._keyring.replace_pool(found.tokens | self._keyring.pool_tokens(found.unreadable)):
            self._on_change()

    def _say(self, problems: tuple[str, ...]) -> None:
        if problems != self._problems:
            self._problems = problems
            if problems:
                self._on_problem(problems)


@dataclass(frozen=True, slots=True)
class TokenFiles:
    """The tokens in a folder. `unreadable`: ids of the files that could not be read."""

    tokens: dict[str, str] = field(repr=False)
    unreadable: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def read_pool_tokens(folder: Path) -> TokenFiles:
    """The tokens of a mounted Secret by their ids. Raises OSError if the folder can't be listed.

    Entries beginning with `..` are the kubelet's own. A file that is gone is a token that was revoked; one that can't
    be read says nothing. An empty file, or one that is not text, is ignored: an empty token would let everybody in.
    """
    tokens: dict[str, str] = {}
    unreadable: list[str] = []
    problems: list[str] = []
    for name in sorted(os.listdir(folder)):  # noqa: PTH208 - names are what is wanted
        if name.startswith(".."):
            continue
        try:
            with (folder / name).open("rb") as file:
                token = file.read(MAX_TOKEN_BYTES).decode("ascii").strip()
        except (FileNotFoundError, IsADirectoryError):
            continue
        except OSError as error:
            unreadable.append(name)
            problems.append(f"{name}: {error.strerror}")
            continue
        except UnicodeDecodeError:
            token = ""
        if token:
            tokens[name] = token
        else:
            problems.append(f"{name}: empty, or not text")
    return TokenFiles(tokens, tuple(unreadable), tuple(problems))


def own_credentials(settings: Settings) -> dict[Identity, str]:
    """Make the credentials that are not there yet, and read the others. Raises OSError."""
    folder = settings.credentials_dir
    own = {
        Identity(Kind.SLOT, slot): ensure_credential(folder / str(slot) / "token")
        for slot in range(len(settings.layout))
    }
    own[Identity(Kind.LOCAL)] = ensure_credential(folder / "local" / "token")
    own[Identity(Kind.CLOSE)] = ensure_credential(settings.close_token_file, mode=0o400)
    return own


def has_credentials(settings: Settings) -> bool:
    """Whether an agent ran here before: credentials are made after the journal."""
    return settings.close_token_file.exists() or (settings.credentials_dir / "0" / "token").exists()


def ensure_credential(file: Path, *, mode: int = 0o440) -> str:
    """The token in `file`, made anew if it is not there, not well-formed or not to be read.

    A credential that can't be read is replaced: its users read the new one. Links are not followed: others may write
    there.
    """
    _make_folder(file.parent)
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return _make_credential(file, mode)
    with os.fdopen(fd, "rb") as opened:
        text = opened.read(MAX_TOKEN_BYTES).decode("ascii", "replace").strip()
    well_formed = len(text) >= MIN_TOKEN_LENGTH and text.replace("-", "").replace("_", "").isalnum() and text.isascii()
    return text if well_formed else _make_credential(file, mode)


def _make_credential(file: Path, mode: int) -> str:
    token = secrets.token_urlsafe(32)
    write_beside(file, token.encode(), mode=mode)
    return token


def write_beside(file: Path, data: bytes, *, mode: int) -> None:
    """Write a new file beside `file`, and rename it to `file`. The umask does not change its mode.

    Raises OSError, and then leaves nothing behind.
    """
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as opened:
            opened.write(data)
            opened.flush()
            os.fchmod(fd, mode)
            os.fsync(fd)
        temporary.rename(file)
    except OSError:
        # A full volume must not fill further with what could not be written.
        with suppress(OSError):
            temporary.unlink()
        raise


def _make_folder(folder: Path) -> None:
    """A folder that its group can enter: a container with another uid shares the Pod's fsGroup, and nothing else.

    The bits above the permissions stay: by setgid the volume's group is handed on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o777 != FOLDER_MODE:
        # Only the owner of a folder can change its mode.
        with suppress(PermissionError):
            folder.chmod((mode & ~0o777) | FOLDER_MODE)
