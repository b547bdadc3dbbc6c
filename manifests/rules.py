"""`python -m manifests.rules`: writes manifests/monitoring/rules, plain and as a PrometheusRule.

The rules are those of `alerts`, and those of `records`.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from manifests.alerts import ALERTS, Alert
from manifests.records import RECORDS

FOLDER = Path(__file__).parent / "monitoring" / "rules"
HEADER = "# Made by `python -m manifests.rules` of manifests/alerts.py and records.py: change it there.\n"
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


def main() -> int:
    """Write the files; returns the exit status. With --check: 1 if one is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m manifests.rules", description="Write the rules.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs")
    options = parser.parse_args()
    status = 0
    for path, document in documents():
        text = written(document)
        if path.is_file() and path.read_text() == text:
            continue
        if options.check:
            sys.stderr.write(f"not as `python -m manifests.rules` writes it: {path}\n")
            status = 1
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
