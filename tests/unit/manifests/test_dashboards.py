"""manifests/monitoring/dashboards: they load, ask for what is shown, and lead to each other.

That their queries find something is tried in tests/integration/cluster/test_dashboards.py.
"""

import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from manifests.dashboards.boards import BOARDS
from manifests.records import RECORDS
from manifests.render import KUBECTL
from metrics import agent_families, controller_families
from metrics.families import Kind
from tests.support.dashboards import BUILT_IN, FILES, Asked, panels, queries, read
from tests.support.promtool import MONITORING, promtool

NAMES = [path.stem for path in FILES]
EVERY_FILE = pytest.mark.parametrize("path", FILES, ids=NAMES)
TARGETS = {"cluster", "namespace", "pool", "pod", "job"}
"""Labels that the scrape sets, or that several clusters' Prometheus has."""
OTHERS = {"ALERTS": {"alertname", "alertstate", "severity"}, "process_resident_memory_bytes": set[str]()}
RECORDED = {record.name: set(re.findall(r"\w+", record.expr.split("(")[1].split(")")[0])) for record in RECORDS}
LAST_APPLIED_BYTES = 262_144
"""What an annotation may hold: `kubectl apply` keeps the whole object in one."""


def test_there_are_four() -> None:
    assert NAMES == ["podslots-approvals", "podslots-fleet", "podslots-pool", "podslots-slots"]
    assert sorted(board.uid for board in BOARDS) == NAMES


@EVERY_FILE
def test_a_dashboard_is_one_to_grafana(path: Path) -> None:
    """Read into Grafana's own types and written again, nothing is lost: no field is one that Grafana does not know."""
    board = read(path)
    again = json.loads(json.dumps(Dashboard.from_json(read(path)), cls=JSONEncoder))
    assert again == board
    assert board["uid"] == path.stem
    assert board["description"]


@EVERY_FILE
def test_a_panel_says_what_it_is(path: Path) -> None:
    board = read(path)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    assert 0 not in ids
    titles = [panel["title"] for panel in board["panels"]]
    assert len(set(titles)) == len(titles)
    for panel in panels(board):
        assert len(panel["description"]) > len(panel["title"]) / 2
        assert panel["description"].endswith(".")
        assert panel["targets"]
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["thresholds"]["steps"][0] == {"value": None, "color": "green"}
        assert "unit" in defaults or panel["type"] == "table", "a table's columns have units of their own"


@EVERY_FILE
def test_panels_fill_the_grid_without_overlap(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in read(path)["panels"]:
        at = panel["gridPos"]
        cells = set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def values_of(node: Any, key: str) -> Iterator[Any]:
    if isinstance(node, dict):
        if key in node:
            yield node[key]
        for value in node.values():
            yield from values_of(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from values_of(value, key)


@EVERY_FILE
def test_prometheus_is_chosen_by_a_variable(path: Path) -> None:
    board = read(path)
    found = list(values_of(board, "datasource"))
    expected = {"type": "prometheus", "uid": "${datasource}"}
    assert [each for each in found if each != expected] == []
    asked = sum(1 + len(panel["targets"]) for panel in panels(board))
    by_query = [variable for variable in board["templating"]["list"] if variable["type"] == "query"]
    assert len(found) == asked + len(by_query)


@EVERY_FILE
def test_each_variable_is_there(path: Path) -> None:
    board = read(path)
    variables = {variable["name"] for variable in board["templating"]["list"]}
    assert {"datasource", "cluster", "namespace", "pool"} <= variables
    queried = [query["query"] for query in values_of(board["templating"], "query") if isinstance(query, dict)]
    asked = [*queried, *(asked.expr for asked in queries() if asked.board == path.stem)]
    used = {name for expr in asked for name in re.findall(r"\$(\w+)", expr)}
    assert used <= variables | BUILT_IN
    assert variables - {"datasource"} <= used


def test_links_lead_to_dashboards_and_choose_what_they_have() -> None:
    lead = set()
    for path in FILES:
        for url in filter(None, values_of(read(path), "url")):
            found = re.fullmatch(r"/d/([\w-]+)\?\$\{datasource:queryparam\}&\$\{__url_time_range\}(&.*)?", url)
            assert found, url
            variables = {variable["name"] for variable in read(path.with_stem(found[1]))["templating"]["list"]}
            own = {variable["name"] for variable in read(path)["templating"]["list"]}
            assert set(re.findall(r"\$\{(\w+):queryparam\}", url)) <= variables & own
            assert set(re.findall(r"&var-(\w+)=", url)) <= variables
            lead.add((path.stem, found[1]))
    fleet, pool = "podslots-fleet", "podslots-pool"
    assert {(fleet, pool), (pool, "podslots-slots"), (pool, "podslots-approvals")} <= lead


def known() -> dict[str, set[str]]:
    """The names that a query can ask for, each with its labels."""
    found = {name: labels | TARGETS for name, labels in (OTHERS | RECORDED).items()}
    for family in (*controller_families.FAMILIES, *agent_families.FAMILIES):
        histogram = family.kind is Kind.HISTOGRAM
        name = f"{family.name}_bucket" if histogram else family.shown_name
        found[name] = {*family.labels, *TARGETS, *(["le"] if histogram else [])}
    return found


@pytest.mark.parametrize("asked", list(queries()), ids=lambda asked: f"{asked.board}: {asked.panel}")
def test_a_panel_asks_for_what_is_shown(asked: Asked) -> None:
    """A name that no process shows, or a label that its family has not, would be an empty panel."""
    labels_of = known()
    series = re.findall(r"([\w:]+)\{([^}]*)\}", asked.expr)
    assert series
    names = {name for name, _ in series}
    assert names <= labels_of.keys()
    for name, matchers in series:
        assert set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", matchers)) <= labels_of[name]
        assert 'cluster=~"$cluster"' in matchers
    grouped = {label for by in re.findall(r"by \(([^)]*)\)", asked.expr) for label in by.split(", ")}
    assert grouped <= set().union(*(labels_of[name] for name in names)) | (
        {"of"} if "label_join" in asked.expr else set()
    )


def test_the_queries_are_promql(tmp_path: Path) -> None:
    variables = dict.fromkeys(("cluster", "namespace", "pool", "pod"), ".*") | dict.fromkeys(BUILT_IN, "5m")
    rules = [{"record": f"q{number}", "expr": asked.filled_in(variables)} for number, asked in enumerate(queries())]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    status, said = promtool("check", "rules", path)
    assert (status, f"{len(rules)} rules found" in said) == (0, True), said


@pytest.mark.parametrize("folder", [MONITORING, MONITORING / "operator"], ids=["plain", "operator"])
def test_grafanas_sidecar_finds_each(folder: Path) -> None:
    ran = subprocess.run([KUBECTL, "kustomize", folder], check=True, stdout=subprocess.PIPE, timeout=60)
    found = [
        document
        for document in yaml.safe_load_all(ran.stdout)
        if document["metadata"].get("labels", {}).get("grafana_dashboard") == "1"
    ]
    assert sorted(name for document in found for name in document["data"]) == [path.name for path in FILES]
    for document in found:
        assert document["kind"] == "ConfigMap"
        ((name, text),) = document["data"].items()
        assert text == (MONITORING / "dashboards" / name).read_text()
        assert len(json.dumps(document)) < LAST_APPLIED_BYTES


@pytest.mark.parametrize(
    ("leads", "said"),
    [
        ({"podslots-system": "1", "team": "1"}, 1),
        ({"podslots-system": "1", "team": "0"}, 0),
        ({}, 0),
    ],
    ids=["all lead", "one of two installations has no leader", "nothing is scraped"],
)
def test_whether_a_controller_leads_is_said_of_each_installation(
    tmp_path: Path, leads: dict[str, str], said: int
) -> None:
    (asked,) = [each for each in queries() if each.panel == "Does a controller lead?"]
    series = [
        {"series": f'podslots_controller_leader{{namespace="{name}", job="j", instance="{name}"}}', "values": value}
        for name, value in leads.items()
    ]
    found = [{"expr": asked.filled_in({"cluster": ".*"}), "exp_samples": [{"labels": "{}", "value": said}]}]
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump({"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": found}]}))
    status, words = promtool("test", "rules", path)
    assert status == 0, words
