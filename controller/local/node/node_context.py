"""What all of a node's Pod workers share."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import aiohttp

from controller.local.node.client import ApiClient
from controller.local.node.config import KubeletConfig
from controller.local.node.events import EventRecorder
from controller.local.node.node_faults import NodeFaults
from controller.local.node.pods.pod_spec import Json
from controller.local.node.pods.volumes import AtomicWriter
from controller.local.node.short_paths import ShortPaths

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
    short_paths: ShortPaths
    node_ip: str
    now: Callable[[], datetime]
    rng: random.Random
