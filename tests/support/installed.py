"""Manifests on the embedded cluster: what has no place there, or runs already, is left out."""

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.support.kubectl import KUBECTL, Kubectl

Json = dict[str, Any]

LEFT_OUT = {"Deployment", "NetworkPolicy", "PriorityClass"}


def built(folder: Path) -> list[Json]:
    """The objects that `kubectl kustomize` makes of a folder."""
    ran = subprocess.run([KUBECTL, "kustomize", str(folder)], check=True, capture_output=True, timeout=60)
    return list(yaml.safe_load_all(ran.stdout))


def served(documents: list[Json]) -> str:
    """What of it is applied to the embedded cluster, as one file. A controller runs there without a Deployment."""
    return yaml.safe_dump_all([document for document in documents if document["kind"] not in LEFT_OUT])


async def install(kubectl: Kubectl, folder: Path) -> None:
    """Apply a folder."""
    await kubectl("apply", "-f", "-", stdin=served(built(folder)))
