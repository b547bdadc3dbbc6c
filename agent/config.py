"""The agent's settings, from its environment."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from agent.errors import ConfigError
from agent.wire import PORT

DEFAULT_LAYOUT: tuple[tuple[str, ...], ...] = (("plan", "apply", "plan_and_apply"), ("plan",), ("plan",))
MAX_SLOTS = 16
MAX_TASK_TYPE_LENGTH = 63

DEFAULT_GRACE_SECONDS = 30
"""The Pod's grace period if its spec does not set one."""

STOP_MARGIN_SECONDS = 15
"""Kept back of the grace: the journal's last write, the containers' ends and the kubelet's own delay fit in it."""

MAX_SHOWN = 200
"""Characters of a wrong value in its message."""

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one agent. Folders are given by the Pod's template."""

    pod: str
    pod_uid: str
    pool: str
    addresses: tuple[str, ...]
    port: int
    layout: tuple[tuple[str, ...], ...]
    grace_seconds: int
    state_dir: Path
    tokens_dir: Path
    credentials_dir: Path
    workers: bool
    lock_reads: bool
    tls_dir: Path | None

    @property
    def stop_seconds(self) -> int:
        """How long running steps may go on after the Pod was told to stop."""
        return max(0, self.grace_seconds - STOP_MARGIN_SECONDS)

    @property
    def logs_dir(self) -> Path:
        """Where the output of steps is kept until their task is acknowledged."""
        return self.state_dir / "logs"

    @property
    def credential_folders(self) -> tuple[Path, ...]:
        """What the Pod's own programs mount, one each: the slots' workers, and the local holders."""
        return tuple(self.credentials_dir / name for name in (*map(str, range(len(self.layout))), "local"))

    @property
    def certificate_folders(self) -> tuple[Path, ...]:
        """Where the agent puts its certificate for its callers: beside each credential."""
        return (*self.credential_folders, self.state_dir)

    @property
    def kept_client_ca_file(self) -> Path:
        """The client CA in use, kept for a restart."""
        return self.state_dir / "client-ca.crt"

    @property
    def close_token_file(self) -> Path:
        """The credential of `slot-agent close`, which runs in the agent's own container."""
        return self.state_dir / "close-token"


def from_environ(environ: Mapping[str, str]) -> Settings:
    """The settings that an environment gives. Raises ConfigError with every problem at once."""
    reader = _Reader(environ)
    address = reader.text("PODSLOTS_POD_IP", "127.0.0.1")
    state_dir = reader.folder("PODSLOTS_STATE_DIR")
    settings = Settings(
        pod=reader.text("PODSLOTS_POD", "local"),
        pod_uid=reader.text("PODSLOTS_POD_UID"),
        pool=reader.text("PODSLOTS_POOL", ""),
        addresses=reader.addresses(address),
        port=reader.integer("PODSLOTS_PORT", PORT, least=0, most=65535),
        layout=reader.layout("PODSLOTS_LAYOUT"),
        grace_seconds=reader.integer("PODSLOTS_GRACE_SECONDS", DEFAULT_GRACE_SECONDS, least=0, most=10**9),
        state_dir=state_dir,
        tokens_dir=reader.folder("PODSLOTS_TOKENS_DIR"),
        credentials_dir=reader.folder("PODSLOTS_CREDENTIALS_DIR"),
        workers=reader.flag("PODSLOTS_WORKERS", default=True),
        lock_reads=reader.flag("PODSLOTS_LOCK_READS", default=False),
        tls_dir=Path(environ["PODSLOTS_TLS_DIR"]) if environ.get("PODSLOTS_TLS_DIR") else None,
    )
    if reader.problems:
        raise ConfigError(reader.problems)
    return settings


def local_url(environ: Mapping[str, str]) -> str:
    """The address of the agent beside this process, for the sub-commands that call it."""
    if url := environ.get("PODSLOTS_URL"):
        return url.rstrip("/")
    host = environ.get("PODSLOTS_POD_IP") or "127.0.0.1"
    scheme = "https" if environ.get("PODSLOTS_TLS_DIR") else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{environ.get('PODSLOTS_PORT') or PORT}"


class _Reader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[str] = []

    def text(self, name: str, default: str | None = None) -> str:
        value = self._environ.get(name) or default
        if value is None:
            self.problems.append(f"{name} is required")
        elif any("\ud800" <= character <= "\udfff" for character in value):
            # Python has bytes that are not UTF-8 so. Answers and the log could not say it.
            self.problems.append(f"{name} must be text in UTF-8, not {_shown(value)}")
        return value or ""

    def folder(self, name: str) -> Path:
        return Path(self.text(name))

    def integer(self, name: str, default: int, *, least: int, most: int) -> int:
        text = self._environ.get(name) or str(default)
        if not re.fullmatch(r"[0-9]{1,12}", text) or not least <= int(text) <= most:
            self.problems.append(f"{name} must be a whole number from {least} to {most}, not {_shown(text)}")
            return default
        return int(text)

    def flag(self, name: str, *, default: bool) -> bool:
        text = self._environ.get(name) or ("1" if default else "0")
        if text not in {"0", "1"}:
            self.problems.append(f"{name} must be 0 or 1, not {_shown(text)}")
        return text == "1"

    def addresses(self, address: str) -> tuple[str, ...]:
        try:
            parsed = ip_address(address)
        except ValueError:
            self.problems.append(f"PODSLOTS_POD_IP must be an IP address, not {_shown(address)}")
            return ()
        # The Pod's containers share its loopback; on a machine, other agents have it.
        return (address,) if parsed.is_loopback else (address, "127.0.0.1", "::1")

    def layout(self, name: str) -> tuple[tuple[str, ...], ...]:
        text = self._environ.get(name)
        if not text:
            return DEFAULT_LAYOUT
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_SLOTS or not all(map(_is_accepts, value)):
            self.problems.append(
                f"{name} must be a JSON list of 1 to {MAX_SLOTS} lists of task types, not {_shown(text)}"
            )
            return DEFAULT_LAYOUT
        return tuple(tuple(accepts) for accepts in value)


def _shown(text: str) -> str:
    return ascii(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…")


def _is_accepts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_task_type, value))


def _is_task_type(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TASK_TYPE_LENGTH and _NAME.fullmatch(value) is not None
