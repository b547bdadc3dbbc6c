"""The overlays and components: what they add to the base, and that they name what is there."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.wire import PORT
from controller.objects.pool import PoolSpec
from controller.objects.template import TokenSecret, build_pod
from tests.support.installed import built
from tests.support.pod_security import refused
from tests.support.repository import ROOT

Json = dict[str, Any]

MANIFESTS = ROOT / "manifests"
OVERLAYS = MANIFESTS / "overlays"
BOTH = """
resources: [{base}]
components: [components/network-policies, components/ha]
"""
LAST = 65535


def only(documents: list[Json], kind: str, name: str = "podslots-controller") -> Json:
    found = [entry for entry in documents if (entry["kind"], entry["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1
    return found[0]


def matches(selector: Json, labels: Json) -> bool:
    """Whether a label selector, of what the manifests use of it, selects these labels."""
    wanted: Json = selector.get("matchLabels") or {}
    there = [
        entry["key"] in labels for entry in selector.get("matchExpressions") or [] if entry["operator"] == "Exists"
    ]
    return wanted.items() <= labels.items() and all(there)


@pytest.mark.parametrize("overlay", sorted(path.name for path in OVERLAYS.iterdir()))
def test_an_overlay_can_be_built_and_runs_restricted(overlay: str) -> None:
    documents = built(OVERLAYS / overlay)
    deployment = only(documents, "Deployment")
    assert list(refused(deployment["spec"]["template"]["spec"])) == []
    for document in documents:
        assert document["metadata"]["labels"]["app.kubernetes.io/part-of"] == "podslots", document["metadata"]["name"]


def test_in_one_namespace_the_controller_has_no_right_beyond_it() -> None:
    documents = built(OVERLAYS / "namespaced")
    assert "podslots-system" not in json.dumps(documents)
    assert [entry for entry in documents if entry["kind"] == "ClusterRoleBinding"] == []
    binding = only(documents, "RoleBinding")
    assert binding["metadata"]["namespace"] == binding["subjects"][0]["namespace"] == "podslots"
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": "podslots-controller",
    }
    for entry in documents:
        if entry["kind"] == "ValidatingAdmissionPolicyBinding":
            named = entry["spec"]["matchResources"]["namespaceSelector"]["matchLabels"]
            assert named == {"kubernetes.io/metadata.name": "podslots"}
        if entry["kind"] == "ValidatingAdmissionPolicy" and "serviceaccount" in json.dumps(entry["spec"]):
            assert "'system:serviceaccount:podslots:podslots-controller'" in json.dumps(entry["spec"])
    container = only(documents, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    watched = next(entry for entry in container["env"] if entry["name"] == "PODSLOTS_WATCH_NAMESPACE")
    assert watched["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.namespace"


def test_highly_available_replicas_are_apart_and_have_a_budget() -> None:
    documents = built(OVERLAYS / "ha")
    spec = only(documents, "Deployment")["spec"]
    labels, pod = spec["template"]["metadata"]["labels"], spec["template"]["spec"]
    assert spec["replicas"] == 3
    (apart,) = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (spread,) = pod["topologySpreadConstraints"]
    budget = only(documents, "PodDisruptionBudget")["spec"]
    for selector in (apart["labelSelector"], spread["labelSelector"], budget["selector"]):
        assert matches(selector, labels)
    assert budget["maxUnavailable"] < spec["replicas"]


def test_network_policies_select_who_is_there() -> None:
    """The agent's port is for the controller and Prometheus; every other port is left as it was."""
    base = built(MANIFESTS / "base")
    controller = only(base, "Deployment")["spec"]["template"]
    pool = yaml.safe_load((MANIFESTS / "examples" / "pool.yaml").read_text())
    pool["metadata"] |= {"namespace": "ns", "uid": "u"}
    token = TokenSecret(name="s", uid="u")
    agent = build_pod(pool, PoolSpec.parse(pool), name="p", token_secret=token, agent_image="a")["metadata"]["labels"]
    policies = {
        name: yaml.safe_load((MANIFESTS / "components" / "network-policies" / f"{name}.yaml").read_text())["spec"]
        for name in ("agents", "controller")
    }
    prometheus = {"app.kubernetes.io/name": "prometheus"}
    labels = controller["metadata"]["labels"]
    assert matches(policies["agents"]["podSelector"], agent)
    assert not matches(policies["agents"]["podSelector"], labels)
    assert matches(policies["controller"]["podSelector"], labels)
    to_agent, others = policies["agents"]["ingress"]
    assert [port["port"] for port in to_agent["ports"]] == [PORT]
    for peer in (labels, prometheus):
        assert any(matches(entry["podSelector"], peer) for entry in to_agent["from"])
    assert not any(matches(entry["podSelector"], agent) for entry in to_agent["from"])
    tcp = {
        port
        for entry in others["ports"]
        if entry["protocol"] == "TCP"
        for port in range(entry["port"], entry["endPort"] + 1)
    }
    assert tcp == set(range(1, LAST + 1)) - {PORT}
    (to_controller,) = policies["controller"]["ingress"]
    port = controller["spec"]["containers"][0]["ports"][0]["containerPort"]
    assert [entry["port"] for entry in to_controller["ports"]] == [port]
    assert any(matches(entry["podSelector"], prometheus) for entry in to_controller["from"])
    assert not any(matches(entry["podSelector"], agent) for entry in to_controller["from"])


@pytest.mark.parametrize(("base", "namespace"), [("base", "podslots-system"), ("overlays/namespaced", "podslots")])
def test_components_go_with_the_base(tmp_path: Path, base: str, namespace: str) -> None:
    """In a folder of the user's own, to where the controller is: kubectl puts what names no namespace into any."""
    for folder in ("base", "protection", "components", "overlays"):
        shutil.copytree(MANIFESTS / folder, tmp_path / folder)
    (tmp_path / "kustomization.yaml").write_text(BOTH.format(base=base))
    documents = built(tmp_path)
    assert only(documents, "Deployment")["spec"]["replicas"] == 3
    agents = only(documents, "NetworkPolicy", "podslots-agents")
    kinds = {"Deployment", "PodDisruptionBudget", "NetworkPolicy", "ServiceAccount"}
    placed = [entry["metadata"].get("namespace") for entry in documents if entry["kind"] in kinds]
    assert placed == [namespace] * 5
    named = agents["spec"]["ingress"][0]["from"][1]["namespaceSelector"]["matchLabels"]
    assert named == {"kubernetes.io/metadata.name": namespace}
