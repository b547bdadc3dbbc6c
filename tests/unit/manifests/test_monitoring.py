"""manifests/monitoring: each alert fires and doesn't, has its runbook, and asks for what there is."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from manifests.alerts import ALERTS
from manifests.records import RECORDS
from manifests.render import KUBECTL
from manifests.rules import FOLDER, RUNBOOKS
from metrics import agent_families, controller_families
from metrics.families import Kind
from tests.support.promtool import found_by_files, promtool
from tests.support.repository import ROOT

RULES = FOLDER / "podslots.rules.yaml"
TESTS = ROOT / "tests" / "alerts"
NAMES = [alert.name for alert in ALERTS]
FAMILIES = {family.name: family for family in (*controller_families.FAMILIES, *agent_families.FAMILIES)}


def test_the_rules_are_rules() -> None:
    status, said = promtool("check", "rules", RULES)
    assert (status, f"{len(ALERTS) + len(RECORDS)} rules found" in said) == (0, True), said


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_fires_and_does_not(name: str) -> None:
    path = TESTS / f"{name.lower()}.rules.yaml"
    document = yaml.safe_load(path.read_text())
    cases = [case for test in document["tests"] for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases} == {name}
    assert {bool(case["exp_alerts"]) for case in cases} == {True, False}
    status, said = promtool("test", "rules", path)
    assert status == 0, said


def test_no_test_is_left_of_an_alert_that_is_gone() -> None:
    assert sorted(path.name for path in TESTS.iterdir()) == sorted(f"{name.lower()}.rules.yaml" for name in NAMES)


def test_what_is_recorded_is_added_up_over_agents() -> None:
    path = ROOT / "tests" / "records" / "podslots.rules.yaml"
    document = yaml.safe_load(path.read_text())
    asked = {case["expr"] for test in document["tests"] for case in test["promql_expr_test"]}
    assert asked == {record.name for record in RECORDS}
    status, said = promtool("test", "rules", path)
    assert status == 0, said


@pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
def test_an_alert_asks_for_what_is_shown(alert: Any) -> None:
    """A name that no process shows, or a label that its family has not, would never fire, and nobody would notice."""
    asked = re.findall(r"(podslots_\w+)(?:\{(\w+)(?:=|!=|=~|!~)\"[^\"]*\"\})?", alert.expr)
    assert asked
    for shown, label in asked:
        family = FAMILIES[shown.removesuffix("_total")]
        assert family.shown_name == shown
        assert family.kind is not Kind.HISTOGRAM
        assert not label or label in family.labels


@pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
def test_an_alert_has_a_runbook(alert: Any) -> None:
    """Its heading is the anchor of the link, and says what it means, what to look at, and what to do."""
    document = yaml.safe_load(RULES.read_text())
    (found,) = [rule for rule in document["groups"][0]["rules"] if rule["alert"] == alert.name]
    assert found["annotations"]["runbook_url"] == f"{RUNBOOKS}#{alert.name.lower()}"
    text = (ROOT / "docs" / "runbooks.md").read_text()
    section = re.search(rf"^## {alert.name}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert section, "no heading of this name"
    for part in ("**Means.**", "**Look.**", "**Do.**"):
        assert part in section[1], part


def test_both_forms_say_the_same() -> None:
    plain = yaml.safe_load(RULES.read_text())
    for_the_operator = yaml.safe_load((FOLDER / "prometheusrule.yaml").read_text())
    assert plain["groups"] == for_the_operator["spec"]["groups"]


def kinds(folder: Path) -> set[str]:
    ran = subprocess.run([KUBECTL, "kustomize", folder], check=True, stdout=subprocess.PIPE, timeout=60)
    return {document["kind"] for document in yaml.safe_load_all(ran.stdout)}


def test_monitoring_needs_no_operator() -> None:
    assert kinds(ROOT / "manifests" / "monitoring") == {"ConfigMap"}
    assert kinds(ROOT / "manifests" / "monitoring" / "operator") == {"PodMonitor", "PrometheusRule", "ConfigMap"}


def test_the_scrape_configuration_is_one(tmp_path: Path) -> None:
    """promtool reads it, but for the discovery of Pods: Debian's Prometheus is built without it."""
    token = tmp_path / "token"
    token.write_text("t")
    path = tmp_path / "prometheus.yml"
    path.write_text(yaml.safe_dump({"scrape_configs": found_by_files(tmp_path, token)}))
    status, said = promtool("check", "config", path)
    assert status == 0, said


def test_ports_are_named_as_in_the_pods() -> None:
    deployment = (ROOT / "manifests" / "base" / "controller" / "deployment.yaml").read_text()
    assert "{name: http, containerPort: 8080}" in deployment
    scraped = yaml.safe_load((ROOT / "manifests" / "monitoring" / "scrape" / "podslots.scrape.yaml").read_text())
    ports = [job["relabel_configs"][0]["regex"] for job in scraped["scrape_configs"]]
    assert ports == ["http", "slot-agent"]
