"""docs/status-page.md names every call of the page's API, every parameter and every field."""

import re
from dataclasses import fields
from typing import Any

import pytest

from controller.act.recent import Decision
from controller.status_page import model
from controller.status_page.schema import document
from tests.support.repository import ROOT

TEXT = (ROOT / "docs" / "status-page.md").read_text()
ENTRIES = {
    "`replica`": model.Replica,
    "a pool": model.PoolSaid,
    "a condition": model.ConditionSaid,
    "a plan": model.PlanSaid,
    "a queued task": model.WaitingSaid,
    "a Pod": model.PodSaid,
    "a slot": model.SlotSaid,
    "a decision": Decision,
}


def test_every_call_is_told() -> None:
    told = set(re.findall(r"^\| `(/api/v1/[a-z.]+)` \|", TEXT, re.MULTILINE))
    assert told == {*document("1")["paths"], "/api/v1/openapi.json"}


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_field_is_told_and_no_other(entry: str) -> None:
    row = next(line for line in TEXT.splitlines() if line.startswith(f"| {entry} |"))
    assert re.findall("`([a-z_]+)`", row.split("|")[2]) == [field.name for field in fields(ENTRIES[entry])]


def test_every_parameter_is_told() -> None:
    calls: Any = document("1")["paths"].values()
    parameters = {parameter["name"] for call in calls for parameter in call["get"]["parameters"]}
    assert not {name for name in parameters if f"`{name}`" not in TEXT and f"?{name}=" not in TEXT}
