"""manifests/monitoring/rules: the rules as a plain file, and as a PrometheusRule.

The rules are those of `alerts`, and those of `records`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from manifests.alerts import ALERTS, Alert
from manifests.records import RECORDS

FOLDER = Path(__file__).parent / "monitoring" / "rules"
HEADER = "# Made by `make manifests` of manifests/alerts.py and records.py: change it there.\n"
RUNBOOKS = "https://podslots.dev/docs/runbooks.md"
"""Where the runbooks are read. Each alert has a heading there."""

Json = dict[str, Any]


def rule(alert: Alert) -> Json:
    """An alert as Prometheus has it."""
    return {
        "alert": alert.name,
        "expr": alert.expr,
        "for": alert.after,
        "labels": {"severity": alert.severity.value},
        "annotations": {
            "summary": alert.summary,
            "description": alert.description,
            "runbook_url": f"{RUNBOOKS}#{alert.name.lower()}",
        },
    }


def groups() -> list[Json]:
    """All rules: the alerts are evaluated together, and the records."""
    return [
        {"name": "podslots", "rules": [rule(alert) for alert in ALERTS]},
        {"name": "podslots-records", "rules": [{"record": record.name, "expr": record.expr} for record in RECORDS]},
    ]


def documents() -> Iterator[tuple[Path, Json]]:
    """The files, and what stands in them."""
    yield FOLDER / "podslots.rules.yaml", {"groups": groups()}
    yield (
        FOLDER / "prometheusrule.yaml",
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": "podslots", "namespace": "podslots-system"},
            "spec": {"groups": groups()},
        },
    )


class _Dumper(yaml.SafeDumper):
    """Text of several lines as a block; nothing is an anchor."""

    def ignore_aliases(self, data: Any) -> bool:
        """Say everything where it is read."""
        del data
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def written(document: Json) -> str:
    """A file's text."""
    return HEADER + yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)


def files() -> Iterator[tuple[Path, str]]:
    """The files, and what is to stand in them."""
    for path, document in documents():
        yield path, written(document)
