"""The dashboards as they are shipped: their panels, and their queries with the variables filled in as Grafana does."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.promtool import MONITORING

FILES = sorted((MONITORING / "dashboards").glob("*.json"))
BUILT_IN = {"__rate_interval", "__range"}
"""Grafana's own, that our queries use."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One query of a panel. `instant`: only its value now is looked at."""

    board: str
    panel: str
    expr: str
    instant: bool

    def filled_in(self, variables: dict[str, str]) -> str:
        """The query that Prometheus gets. An unknown variable is a KeyError."""
        return re.sub(r"\$(\w+)", lambda found: variables[found[1]], self.expr)


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """All but the titles of rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries() -> Iterator[Asked]:
    """All queries of all dashboards."""
    for path in FILES:
        for panel in panels(read(path)):
            for target in panel["targets"]:
                yield Asked(path.stem, panel["title"], target["expr"], target.get("instant", False))
