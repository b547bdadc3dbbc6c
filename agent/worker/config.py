"""The worker's settings, from the environment that the Pod's template gives it."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from agent.work_messages import PORT
from agent.worker.errors import ConfigError

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    from agent.record import dataclass

MAX_DIGITS = 10
MAX_PORT = 65535
MAX_SHOWN = 200
"""Characters of a wrong value in its message."""
DEFAULT_GRACE_SECONDS = 30
"""Kubernetes' own default of terminationGracePeriodSeconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where the agent is, which slot this is, and where things lie.

    `grace_seconds` is the Pod's; `secrets` and `config_maps` say where each is mounted.
    """

    host: str
    port: int
    tls: bool
    slot: int
    credential_dir: str
    work_dir: str
    grace_seconds: int
    secrets: dict[str, str]
    config_maps: dict[str, str]


def from_environ(environ: Mapping[str, str]) -> Settings:
    """The settings. Raises ConfigError, naming the variable."""
    tls, host, port = _address(_required(environ, "PODSLOTS_URL"))
    return Settings(
        host=host,
        port=port,
        tls=tls,
        slot=_integer(environ, "PODSLOTS_SLOT", None),
        credential_dir=_required(environ, "PODSLOTS_CREDENTIAL_DIR"),
        work_dir=_required(environ, "PODSLOTS_WORK_DIR"),
        grace_seconds=_integer(environ, "PODSLOTS_GRACE_SECONDS", DEFAULT_GRACE_SECONDS),
        secrets=_paths(environ, "PODSLOTS_SECRETS"),
        config_maps=_paths(environ, "PODSLOTS_CONFIG_MAPS"),
    )


def _required(environ: Mapping[str, str], name: str) -> str:
    if value := environ.get(name, ""):
        return value
    raise ConfigError(f"{name} is not set")


def _integer(environ: Mapping[str, str], name: str, default: int | None) -> int:
    text = environ.get(name, "")
    if not text and default is not None:
        return default
    if not text.isdecimal() or len(text) > MAX_DIGITS:
        raise ConfigError(f"{name} must be a whole number, not {text[:MAX_SHOWN]!r}")
    return int(text)


def _address(url: str) -> tuple[bool, str, int]:
    """Whether it is TLS, host and port of `http[s]://HOST[:PORT]`. By hand: urllib.parse costs 4 ms at start."""
    scheme, separator, rest = url.partition("://")
    host, port = rest.rstrip("/"), str(PORT)
    if host.startswith("["):
        host, _, after = host[1:].partition("]")
        port = after.removeprefix(":") or port
    elif host.count(":") > 1:  # an IPv6 address as Kubernetes puts it into a variable, and the port
        host, _, port = host.rpartition(":")
    elif ":" in host:
        host, _, port = host.partition(":")
    if scheme not in {"http", "https"} or not separator or not host or "/" in host or not _is_port(port):
        raise ConfigError(f"PODSLOTS_URL must be http://HOST:PORT or https://HOST:PORT, not {url[:MAX_SHOWN]!r}")
    return scheme == "https", host, int(port)


def _is_port(text: str) -> bool:
    return text.isdecimal() and len(text) <= MAX_DIGITS and int(text) <= MAX_PORT


def _paths(environ: Mapping[str, str], name: str) -> dict[str, str]:
    try:
        paths = json.loads(environ.get(name) or "{}")
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name} is not JSON: {error}") from error
    if not isinstance(paths, dict) or not all(isinstance(path, str) for path in paths.values()):
        raise ConfigError(f"{name} must be an object of names and paths")
    return paths
