"""What all of a node's Pod workers share."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import aiohttp

from controller.local.api import ApiClient
from controller.local.config import KubeletConfig
from controller.local.events import EventRecorder
from controller.local.node_faults import NodeFaults
from controller.local.pod_spec import Json
from controller.local.volumes import AtomicWriter

ObjectSource = Callable[[str, str, str], Json | None]  # (kind, namespace, name): the copy kept by a watch


@dataclass(frozen=True)
class NodeContext:
    """The node's tools. `http` is for probes and hooks, `client` for the API."""

    config: KubeletConfig
    client: ApiClient
    http: aiohttp.ClientSession
    events: EventRecorder
    faults: NodeFaults
    writer: AtomicWriter
    objects: ObjectSource
    shim: Sequence[str]
    pods_folder: Path
    node_ip: str
    now: Callable[[], datetime]
    rng: random.Random
