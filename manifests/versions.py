"""`python -m manifests.versions`: writes the version, which stands in agent/__init__.py, wherever else it is shown."""

import argparse
import re
import sys
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


def changes(version: str = __version__, root: Path = ROOT) -> Iterator[tuple[Path, str]]:
    """The files that show another version, and what should stand in them."""
    for pattern, places in PLACES.items():
        for path in sorted(root.glob(pattern)):
            text = wanted = path.read_text()
            for place in places:
                wanted = re.sub(place, version, wanted)
            if wanted != text:
                yield path, wanted


def main() -> int:
    """Write the files; returns the exit status. With --check: 1 if one shows another version."""
    text = "Write the version where it is shown."
    parser = argparse.ArgumentParser(prog="python -m manifests.versions", description=text)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file shows another version")
    options = parser.parse_args()
    status = 0
    for path, wanted in changes():
        if options.check:
            sys.stderr.write(f"shows another version than {__version__}; run `make manifests`: {path}\n")
            status = 1
        else:
            path.write_text(wanted)
    return status


if __name__ == "__main__":
    sys.exit(main())
