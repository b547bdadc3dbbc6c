"""manifests/monitoring/dashboards: one file for each dashboard."""

import json
from collections.abc import Iterator
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from manifests.dashboards import approvals, fleet, pool, slots
from manifests.dashboards.panels import Board

FOLDER = Path(__file__).parent.parent / "monitoring" / "dashboards"
BOARDS: tuple[Board, ...] = (fleet.BOARD, pool.BOARD, slots.BOARD, approvals.BOARD)


def files() -> Iterator[tuple[Path, str]]:
    """The files and their content."""
    for board in BOARDS:
        yield FOLDER / f"{board.uid}.json", json.dumps(board.made(), cls=JSONEncoder, indent=1) + "\n"
