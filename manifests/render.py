"""manifests/install.yaml: the base as one file."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent
FILE = FOLDER / "install.yaml"
KUBECTL = Path(sys.executable).parent / "kubectl"
HEADER = "# Made by `make manifests` of manifests/base: change it there.\n---\n"


def rendered(folder: Path = FOLDER / "base") -> str:
    """What `kubectl kustomize` makes of a folder. Raises CalledProcessError if it can't."""
    command = [str(KUBECTL), "kustomize", str(folder)]
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=60)  # noqa: S603 - our own folders
    return HEADER + ran.stdout.decode()


def files() -> Iterator[tuple[Path, str]]:
    """The file, and what is to stand in it."""
    yield FILE, rendered()
