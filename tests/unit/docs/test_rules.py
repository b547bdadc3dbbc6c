"""docs/rules.md is the legend of the ids of rules that tests and comments name."""

import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.repository import ROOT

FOLDERS = ("agent", "controller", "metrics", "tests")
TAG = re.compile(r"(?<![%\w.-])[TARHGKDOBNP][1-9]\d?(?![\w-])")
ROW = re.compile(r"^\| ([A-Z]\d+) \| (.+) \|$", re.MULTILINE)


def sources() -> Iterator[Path]:
    for folder in FOLDERS:
        yield from (ROOT / folder).rglob("*.py")


def test_every_rule_that_is_named_is_in_the_legend() -> None:
    legend = dict(ROW.findall((ROOT / "docs" / "rules.md").read_text()))
    unknown = {
        f"{path.relative_to(ROOT)}: {tag}"
        for path in sources()
        for tag in TAG.findall(path.read_text())
        if tag not in legend
    }
    assert not unknown


def test_a_rule_stands_once_and_says_something() -> None:
    rows = ROW.findall((ROOT / "docs" / "rules.md").read_text())
    assert len({name for name, _ in rows}) == len(rows) > 50
    assert len({text for _, text in rows}) == len(rows)
