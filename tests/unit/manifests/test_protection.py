"""The policies' files: as they are generated, complete, and about the controller that the base installs."""

import json
import subprocess
from typing import Any

import yaml

from controller import names
from controller.decide.pools.protection import POLICIES
from controller.local.cluster_state import CONTROLLER_USER
from manifests.generate import FOLDER, policies
from tests.support.kubectl import KUBECTL
from tests.support.repository import ROOT

Json = dict[str, Any]


def built(path: str) -> list[Json]:
    ran = subprocess.run([KUBECTL, "kustomize", str(ROOT / path)], check=True, capture_output=True, timeout=30)
    return list(yaml.safe_load_all(ran.stdout))


def test_all_of_them_are_installed_with_the_base() -> None:
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert {*listed, "kustomization.yaml"} == {path.name for path in FOLDER.glob("*.yaml")}
    installed = {d["metadata"]["name"] for d in built("manifests/base") if d["kind"] == "ValidatingAdmissionPolicy"}
    assert installed == {policy.name for policy in policies()} == set(POLICIES)


def test_each_policy_is_bound_and_refuses_what_it_can_not_decide() -> None:
    for policy in policies():
        made, bound = policy.documents()
        assert made["spec"]["failurePolicy"] == "Fail"
        assert bound["spec"]["policyName"] == made["metadata"]["name"]
        assert bound["spec"]["validationActions"] == ["Deny"]
        for validation in made["spec"]["validations"]:
            assert validation["reason"] in {"Forbidden", "Invalid"}
            assert validation["message"]


def test_the_authorizer_is_never_asked_about_a_deletion_of_pods() -> None:
    """Collectors and administrators hold every verb, and would pass unnoticed."""
    for policy in policies():
        if "DELETE" in policy.operations and "leases" not in policy.resources:
            assert "authorizer" not in json.dumps(policy.documents())


def test_the_controller_is_who_the_base_runs() -> None:
    account = next(d for d in built("manifests/base") if d["kind"] == "ServiceAccount")
    where = account["metadata"]
    assert f"system:serviceaccount:{where['namespace']}:{where['name']}" == names.CONTROLLER_USER


def test_the_namespace_has_one_place_to_be_changed_in() -> None:
    """The example overlay moves everything: the controller's objects, and whom the policies let through."""
    moved = built("manifests/examples/another-namespace")
    assert "podslots-system" not in json.dumps(moved)
    users = [
        d["spec"]
        for d in moved
        if d["kind"] == "ValidatingAdmissionPolicy" and "system:serviceaccount:" in json.dumps(d["spec"])
    ]
    assert len(users) == sum("system:serviceaccount:" in json.dumps(p.documents()) for p in policies())
    for spec in users:
        assert "'system:serviceaccount:platform:podslots-controller'" in json.dumps(spec)


def test_the_embedded_clusters_controller_is_the_same() -> None:
    """It can't import our names: it knows nothing of what runs on it."""
    assert CONTROLLER_USER == names.CONTROLLER_USER
