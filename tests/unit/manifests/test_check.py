"""Kubernetes' own schemas: of what is applied by people, and of what the controller makes."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.objects.disruption import budget
from controller.objects.pool import PoolSpec
from controller.objects.template import TokenSecret, build_pod
from manifests.check import FOLDER, documents, main, problems

Json = dict[str, Any]

GOOD: Json = {
    "apiVersion": "policy/v1",
    "kind": "PodDisruptionBudget",
    "metadata": {"name": "b"},
    "spec": {"minAvailable": 1, "selector": {}},
}
WRONG: dict[str, tuple[Json, str]] = {
    "a field that there is not": ({"spec": {"minAvailabel": 1}}, ".spec: "),
    "a value of another type": ({"spec": {"selector": []}}, ".spec.selector: "),
    "a version that there is not": ({"apiVersion": "policy/v2"}, "Couldn't find schema for kind PodDisruptionBudget"),
}


@pytest.mark.long  # `make lint` does the same
def test_every_manifest_is_as_kubernetes_wants_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0, capsys.readouterr().err


def test_every_folder_of_manifests_is_looked_at() -> None:
    found = {path.relative_to(FOLDER).parts[0] for path, _ in documents(FOLDER)}
    assert found == {"base", "components", "examples", "install.yaml", "overlays", "protection"}


@pytest.mark.parametrize(("change", "text"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_found_and_named(
    change: Json, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not list(problems(GOOD))
    (tmp_path / "b.yaml").write_text(yaml.safe_dump({**GOOD, **change}))
    assert main(tmp_path) == 1
    said = capsys.readouterr().err
    assert said.startswith("b.yaml: PodDisruptionBudget b: ")
    assert text in said


def test_what_the_controller_makes_is_as_kubernetes_wants_it() -> None:
    assert not list(problems(budget("ns", "p")))
    pool = yaml.safe_load((FOLDER / "examples" / "pool.yaml").read_text())
    pool["metadata"] |= {"namespace": "ns", "uid": "u"}
    for mode in ({}, {"auth": {"tls": {"secretName": "t", "clientAuth": {"secretName": "c"}}}}):
        spec = PoolSpec.parse({**pool, "spec": {**pool["spec"], **mode}})
        made = build_pod(pool, spec, name="p-1", token_secret=TokenSecret(name="s", uid="u"), agent_image="a")
        assert not list(problems(made))
