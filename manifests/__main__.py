"""`python -m manifests`: writes all generated files. With `--check` it writes nothing, and fails if one differs."""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from manifests import generate, metrics_page, reference, render, rules, versions
from manifests.dashboards import boards

Files = Callable[[], Iterator[tuple[Path, str]]]
"""Gives files, and their new content."""

ALL: tuple[Files, ...] = (
    versions.files,
    generate.files,
    render.files,  # of what the two before have written
    reference.files,
    metrics_page.files,
    rules.files,
    boards.files,
)
"""One begins when the one before has been written."""


def main() -> int:
    """Write what differs; returns the exit status. With --check: 1 if a file differs."""
    parser = argparse.ArgumentParser(prog="python -m manifests", description="Write the files that are made.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs")
    options = parser.parse_args()
    status = 0
    for files in ALL:
        for path, text in files():
            if path.is_file() and path.read_text() == text:
                continue
            if options.check:
                sys.stderr.write(f"not as `make manifests` writes it: {path}\n")
                status = 1
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
