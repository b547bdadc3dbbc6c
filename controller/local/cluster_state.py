"""What a cluster keeps about itself: its lock, its users' tokens, its port, the kubeconfigs it hands out."""

import base64
import fcntl
import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

# Context → user name at the API server. The first is kubectl's default. The controller is who it is in a cluster: the
# admission policies name it.
CONTROLLER_USER = "system:serviceaccount:podslots-system:podslots-controller"
PEOPLE = {"admin": "admin", "podslots-controller": CONTROLLER_USER, "demo": "demo"}
NODE_CONTEXT, SCHEDULER_CONTEXT = "node", "scheduler"
SCHEDULER_USER = "system:kube-scheduler"


class AlreadyRunningError(Exception):
    """Another process runs a cluster on this folder."""


@dataclass(frozen=True)
class Identity:
    """A cluster's memory of itself: the port it had last, and a token for each context."""

    port: int
    tokens: Mapping[str, str]


def lock(folder: Path) -> int:
    """Claim a state folder until the descriptor is closed or we end. AlreadyRunningError if another has it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 32).decode().strip()
        os.close(descriptor)
        raise AlreadyRunningError(f"a cluster already runs on {folder} (process {holder})") from error
    os.truncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def load(folder: Path, contexts: Sequence[str], rng: random.Random) -> Identity:
    """The cluster's identity, with new random tokens for contexts it has none for."""
    try:
        record = json.loads((folder / "cluster.json").read_text())
    except FileNotFoundError:
        record = {"port": 0, "tokens": {}}
    tokens = {context: record["tokens"].get(context) or f"{rng.getrandbits(256):064x}" for context in contexts}
    return Identity(record["port"], tokens)


def save(folder: Path, identity: Identity) -> None:
    """Remember it, readable by its owner alone."""
    write_private(folder / "cluster.json", json.dumps({"port": identity.port, "tokens": dict(identity.tokens)}))


def kubeconfig(url: str, tokens: Mapping[str, str], current: str, *, ca: bytes | None) -> str:
    """A kubeconfig with a context for each token."""
    cluster = {"server": url}
    if ca is not None:
        cluster["certificate-authority-data"] = base64.b64encode(ca).decode()
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": cluster}],
        "users": [{"name": name, "user": {"token": token}} for name, token in tokens.items()],
        "contexts": [
            {"name": name, "context": {"cluster": "local", "user": name, "namespace": "default"}} for name in tokens
        ],
        "current-context": current,
        "preferences": {},
    }
    return yaml.safe_dump(document, sort_keys=False)


def write_private(path: Path, text: str) -> None:
    """Atomically, mode 0600 from the first byte."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.rename(path)
