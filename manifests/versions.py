"""The version stands in agent/__init__.py, and is written from there wherever else it is shown."""

import re
from collections.abc import Iterator
from pathlib import Path

from agent import __version__

ROOT = Path(__file__).parent.parent
PLACES = {
    "Dockerfile.*": (r"(?m)(?<=^ARG VERSION=)\S+",),
    "README.md": (r"(?<=/agent:)\d[\w.]*", r"(?<=/controller:)\d[\w.]*"),
    "docs/*.md": (
        r"(?<=/agent:)\d[\w.]*",
        r"(?<=/controller:)\d[\w.]*",
        r"(?<=newTag: )\d[\w.]*",
        r"(?<=\?ref=v)\d[\w.]*",
        r"(?<=podslots-)\d[\w.]*(?=-py3-none-any)",
    ),
    "manifests/base/controller/*.yaml": (r"(?<=podslots/agent:)\S+", r"(?<=podslots/controller:)\S+"),
    "manifests/examples/*.yaml": (r"(?<=podslots/agent:)\S+",),
}
"""Where the version is shown: files, and what in them is the version."""


def files(version: str = __version__, root: Path = ROOT) -> Iterator[tuple[Path, str]]:
    """The files that show the version, and what is to stand in them."""
    for pattern, places in PLACES.items():
        for path in sorted(root.glob(pattern)):
            text = path.read_text()
            for place in places:
                text = re.sub(place, version, text)
            yield path, text
