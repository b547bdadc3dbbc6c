"""Manifests on the embedded cluster: it serves no Deployments and their like, so those are left out."""

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.support.kubectl import KUBECTL, Kubectl

Json = dict[str, Any]

NOT_SERVED = {"Deployment", "NetworkPolicy", "PriorityClass"}


def built(folder: Path) -> list[Json]:
    """The objects that `kubectl kustomize` makes of a folder."""
    ran = subprocess.run([KUBECTL, "kustomize", str(folder)], check=True, capture_output=True, timeout=60)
    return list(yaml.safe_load_all(ran.stdout))


def served(documents: list[Json]) -> str:
    """What of it the embedded cluster knows, as one file."""
    return yaml.safe_dump_all([document for document in documents if document["kind"] not in NOT_SERVED])


async def install(kubectl: Kubectl, folder: Path) -> None:
    """Apply a folder."""
    await kubectl("apply", "-f", "-", stdin=served(built(folder)))
