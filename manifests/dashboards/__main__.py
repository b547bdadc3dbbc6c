"""`python -m manifests.dashboards`: writes manifests/monitoring/dashboards, one file for each dashboard."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from manifests.dashboards import approvals, fleet, pool, slots
from manifests.dashboards.panels import Board

FOLDER = Path(__file__).parent.parent / "monitoring" / "dashboards"
BOARDS: tuple[Board, ...] = (fleet.BOARD, pool.BOARD, slots.BOARD, approvals.BOARD)


def files() -> Iterator[tuple[Path, str]]:
    """The files, and what stands in them."""
    for board in BOARDS:
        yield FOLDER / f"{board.uid}.json", json.dumps(board.made(), cls=JSONEncoder, indent=1) + "\n"


def main() -> int:
    """Write the files; returns the exit status. With --check: 1 if one is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m manifests.dashboards", description="Write the dashboards.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs")
    options = parser.parse_args()
    status = 0
    for path, text in files():
        if path.is_file() and path.read_text() == text:
            continue
        if options.check:
            sys.stderr.write(f"not as `python -m manifests.dashboards` writes it: {path}\n")
            status = 1
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
