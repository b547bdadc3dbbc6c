"""Each check of `podslots doctor`: silent about a good installation; what it says of each thing that can be wrong."""

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from controller import crds, names
from controller.cli.verbs.doctor import installation, pools
from controller.cli.verbs.doctor.checks import CHECKS
from controller.cli.verbs.doctor.facts import Facts
from controller.cli.verbs.doctor.findings import Finding, State, Unseen, documents, table
from controller.cli.verbs.doctor.installation import controller_user
from controller.cli.verbs.doctor.trials import CONTROLLER_RIGHTS
from controller.kube.api import Object
from manifests.generate import policies
from tests.support.repository import ROOT

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOME = {"namespace": "team"}


def stamped(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def shipped(folder: Any) -> list[Object]:
    files = [path for path in sorted(folder.glob("*.yaml")) if path.name != "kustomization.yaml"]
    return [document for path in files for document in yaml.safe_load_all(path.read_text())]


def installed(objects: list[Object], kind: str) -> list[Object]:
    """As an API server gives them back: with defaults."""
    found = copy.deepcopy([obj for obj in objects if obj["kind"] == kind])
    for obj in found:
        if "matchConstraints" in obj["spec"]:
            obj["spec"]["matchConstraints"] |= {"matchPolicy": "Equivalent", "namespaceSelector": {}}
            obj["spec"]["matchConstraints"].setdefault("objectSelector", {})
        if kind == "CustomResourceDefinition":
            obj["spec"]["conversion"] = {"strategy": "None"}
            obj["status"] = {"conditions": [{"type": "Established", "status": "True"}]}
    return found


def pool(**given: Any) -> Object:
    spec: Object = {
        "autoscaling": {"maxReplicas": 4},
        "template": {"spec": {"priorityClassName": "podslots"}},
        **given.pop("spec", {}),
    }
    status = {"replicas": 1, "conditions": [{"type": "Protected", "status": "True"}], **given.pop("status", {})}
    return {"metadata": {**HOME, "name": "p"}, "spec": spec, "status": status}


def pod(name: str = "p-1", image: str = "agent:1", **labels: str) -> Object:
    labels = {names.POOL_LABEL: "p", names.STATE_LABEL: "active", **labels}
    agent = {"name": names.AGENT_CONTAINER, "image": image}
    return {"metadata": {**HOME, "name": name, "labels": labels}, "spec": {"initContainers": [agent]}}


def secret(**changes: Any) -> Object:
    metadata = {
        **HOME,
        "name": names.token_secret("p"),
        "annotations": {names.CURRENT_TOKEN: "t1-a"},
        "finalizers": [names.TOKENS_FINALIZER],
        **changes,
    }
    return {"metadata": metadata, "data": {"t1-a": "eA=="}}


def budget(name: str, selector: Any = None, **labels: str) -> Object:
    return {"metadata": {**HOME, "name": name, "labels": labels}, "spec": {"selector": selector}}


OURS = budget(names.disruption_budget("p"), {"matchLabels": {names.POOL_LABEL: "p"}}, **{names.POOL_LABEL: "p"})


def lease(name: str, seconds: float, holder: str = "h") -> Object:
    spec = {"holderIdentity": holder, "renewTime": stamped(seconds), "leaseDurationSeconds": 15}
    return {"metadata": {"name": name}, "spec": spec}


DEFINITIONS, POLICIES = shipped(crds.folder()), shipped(crds.policies_folder())

GOOD = Facts(
    version="v1.32.1",
    asked=NOW,
    answered=NOW,
    server_time=NOW,
    shipped_definitions=DEFINITIONS,
    shipped_policies=POLICIES,
    definitions=installed(DEFINITIONS, "CustomResourceDefinition"),
    policies=installed(POLICIES, "ValidatingAdmissionPolicy"),
    bindings=installed(POLICIES, "ValidatingAdmissionPolicyBinding"),
    leader=lease(names.LEADER_LEASE, -2),
    node_leases=[lease("n1", -9), lease("n2", 1)],
    pools=[pool()],
    pods=[pod()],
    secrets=[secret()],
    budgets=[OURS],
    quotas=[],
    priorities=[],
)


def findings(facts: Facts) -> list[Finding]:
    return [finding for check in CHECKS for finding in check(facts)]


def test_a_good_installation_is_found_good() -> None:
    assert {finding.state for finding in findings(GOOD)} == {State.OK}
    assert "What to do" not in table(findings(GOOD))


def without(objects: Any, name: str) -> list[Object]:
    return [obj for obj in objects if obj["metadata"]["name"] != name]


def warning_only() -> list[Object]:
    found = copy.deepcopy(GOOD.bindings)
    assert isinstance(found, list)
    found[0]["spec"]["validationActions"] = ["Warn"]
    return found


def weakened() -> list[Object]:
    found = copy.deepcopy(GOOD.policies)
    assert isinstance(found, list)
    found[0]["spec"]["validations"][0]["expression"] = "true"
    return found


def quota(pods: str) -> Object:
    return {"metadata": {**HOME, "name": "q"}, "status": {"hard": {"pods": pods}, "used": {"pods": "1"}}}


def said(kind: str, status: str, reason: str) -> Object:
    return pool(status={"conditions": [{"type": kind, "status": status, "reason": reason, "message": "why"}]})


CRD = "slotpools.podslots.dev"
OLDER = [{**DEFINITIONS[0], "spec": {**DEFINITIONS[0]["spec"], "scope": "Cluster"}}]
BAD: dict[str, tuple[dict[str, Any], State, str]] = {
    "a version without sidecars": ({"version": "v1.28.9"}, State.FAILS, "v1.28.9"),
    "a version without policies": ({"version": "v1.29.0"}, State.FAILS, "v1.29.0"),
    "a version not tried": ({"version": "v1.99.0"}, State.WARNS, "newer than podslots was tried with"),
    "a clock ahead": ({"server_time": NOW - timedelta(minutes=2)}, State.WARNS, "is 1m59s ahead of the API server"),
    "a clock behind": ({"server_time": NOW + timedelta(minutes=9)}, State.WARNS, "behind the API server"),
    "a kind missing": ({"definitions": without(GOOD.definitions, CRD)}, State.FAILS, f"{CRD} is missing"),
    "a kind not served": (
        {"definitions": [{**obj, "status": {}} for obj in installed(DEFINITIONS, "CustomResourceDefinition")]},
        State.FAILS,
        f"{CRD} is not served",
    ),
    "a policy missing": (
        {"policies": without(GOOD.policies, "podslots-pod-delete")},
        State.FAILS,
        "ValidatingAdmissionPolicy podslots-pod-delete is missing",
    ),
    "a binding missing": (
        {"bindings": without(GOOD.bindings, "podslots-pod-delete")},
        State.FAILS,
        "ValidatingAdmissionPolicyBinding podslots-pod-delete is missing",
    ),
    "a policy that only warns": ({"bindings": warning_only()}, State.FAILS, "is not the one of this version"),
    "a policy that was weakened": ({"policies": weakened()}, State.FAILS, "is not the one of this version"),
    "no policies at all": ({"policies": Unseen("no such kind", no_such_kind=True)}, State.FAILS, "no such kind"),
    "no controller": ({"leader": None}, State.FAILS, "no controller leads"),
    "a released lease": ({"leader": lease("l", -1, holder="")}, State.FAILS, "no controller leads"),
    "a controller that is away": ({"leader": lease("l", -600)}, State.FAILS, "h has not renewed its Lease for 10m"),
    "a controller's clock ahead": ({"leader": lease("l", 60)}, State.WARNS, "h is 1m0s ahead of the API server"),
    "a node's clock ahead": (
        {"node_leases": [lease("n1", 60)]},
        State.WARNS,
        "Node n1 is 1m0s ahead of the API server",
    ),
    "a pool that is degraded": (
        {"pools": [said("Degraded", "True", "AgentsUnreachable")]},
        State.WARNS,
        "SlotPool team/p: AgentsUnreachable: why",
    ),
    "agents too old": (
        {"pools": [said("Degraded", "True", "AgentTooOld")]},
        State.FAILS,
        "SlotPool team/p: AgentTooOld: why",
    ),
    "a pool without room": (
        {"pools": [said("AbleToScale", "False", "QuotaExceeded")]},
        State.WARNS,
        "SlotPool team/p: QuotaExceeded: why",
    ),
    "an unprotected pool": (
        {"pools": [said("Protected", "False", "PoliciesMissing")]},
        State.FAILS,
        "SlotPool team/p: PoliciesMissing: why",
    ),
    "two agents": ({"pods": [pod(), pod("p-2", "agent:2")]}, State.WARNS, "agent:1 (1), agent:2 (1)"),
    "a secret missing": ({"secrets": []}, State.FAILS, "Secret team/podslots-tokens-p is missing"),
    "a secret without its token": ({"secrets": [secret(annotations={})]}, State.FAILS, "does not have the token"),
    "a secret without a finalizer": ({"secrets": [secret(finalizers=[])]}, State.FAILS, "lacks its finalizer"),
    "a budget missing": ({"budgets": []}, State.FAILS, "PodDisruptionBudget team/podslots-p is missing"),
    "a second budget": (
        {"budgets": [OURS, budget("all", {"matchLabels": {}})]},
        State.FAILS,
        "PodDisruptionBudget team/all also covers p-1 of pools",
    ),
    "a narrow quota": (
        {"quotas": [quota("3")]},
        State.WARNS,
        "ResourceQuota team/q allows 2 more Pods, its pools may want 3",
    ),
    "no priority": (
        {"pools": [pool(spec={"template": {"spec": {}}})]},
        State.WARNS,
        "SlotPool team/p has no priorityClassName",
    ),
}


@pytest.mark.parametrize(("changes", "state", "text"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_said_with_what_to_do(changes: dict[str, Any], state: State, text: str) -> None:
    wrong = [finding for finding in findings(replace(GOOD, **changes)) if finding.state is not State.OK]
    assert any(finding.state is state and text in finding.found for finding in wrong), wrong
    assert all(finding.advice for finding in wrong if finding.state is State.FAILS)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_what_may_not_be_looked_at_is_unseen_and_breaks_nothing(check: Callable[[Facts], Any]) -> None:
    hidden: dict[str, Any] = {
        name: Unseen("may not list") for name in Facts.__annotations__ if not name.startswith(("asked", "answ", "ship"))
    }
    assert {finding.state for finding in check(replace(GOOD, **hidden))} == {State.UNSEEN}


OTHERS: list[tuple[Any, bool]] = [
    (None, False),
    ({}, True),
    ({"matchLabels": {names.POOL_LABEL: "p"}}, True),
    ({"matchLabels": {names.POOL_LABEL: "q"}}, False),
    ({"matchExpressions": [{"key": names.POOL_LABEL, "operator": "In", "values": ["p", "q"]}]}, True),
    ({"matchExpressions": [{"key": names.POOL_LABEL, "operator": "NotIn", "values": ["p"]}]}, False),
    ({"matchExpressions": [{"key": names.POOL_LABEL, "operator": "Exists"}]}, True),
    ({"matchExpressions": [{"key": names.POOL_LABEL, "operator": "DoesNotExist"}]}, False),
    ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["x"]}]}, True),
]


@pytest.mark.parametrize(("selector", "covers"), OTHERS)
def test_budgets_of_others_are_matched_as_kubernetes_matches(selector: Any, covers: bool) -> None:
    found = list(pools.budgets(replace(GOOD, budgets=[OURS, budget("other", selector)])))
    assert (found[0].state is State.FAILS) == covers
    elsewhere = budget("other", selector)
    elsewhere["metadata"]["namespace"] = "else"
    assert next(iter(pools.budgets(replace(GOOD, budgets=[OURS, elsewhere])))).state is State.OK


def test_another_namespace_of_the_controller_is_no_other_version() -> None:
    moved = [p.documents()[0] for p in policies("system:serviceaccount:platform:podslots-controller")]
    facts = replace(GOOD, policies=moved)
    assert [finding.state for finding in installation.policies(facts)] == [State.OK]
    assert controller_user(facts) == "system:serviceaccount:platform:podslots-controller"


def test_the_rights_that_are_asked_for_are_those_that_are_granted() -> None:
    loaded = yaml.safe_load_all((ROOT / "manifests/base/rbac/controller.yaml").read_text())
    role = next(document for document in loaded if document["kind"] == "ClusterRole")
    granted = {
        (group, resource): tuple(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert granted == CONTROLLER_RIGHTS


def todo(**changes: Any) -> str:
    return table(findings(replace(GOOD, **changes))).partition("What to do:\n")[2]


def test_what_to_do_names_each_object_and_has_a_command_to_copy() -> None:
    assert todo(pools=[said("Degraded", "True", "AgentsUnreachable")]).splitlines()[:2] == [
        "  SlotPool team/p: see its conditions and Events",
        "      kubectl -n team describe slotpool p",
    ]
    assert "  ResourceQuota team/q: raise it" in todo(quotas=[quota("3")])
    assert "      kubectl -n team edit resourcequota q" in todo(quotas=[quota("3")])
    assert "      kubectl -n team edit poddisruptionbudget all" in todo(budgets=[OURS, budget("all", {})])
    assert "PodDisruptionBudget team/podslots-p: " in todo(budgets=[])
    assert "Secret team/podslots-tokens-p: " in todo(secrets=[])


@pytest.mark.parametrize(("changes", "_state", "text"), BAD.values(), ids=BAD)
def test_each_finding_about_an_object_says_which_and_gives_a_command(
    changes: dict[str, Any], _state: State, text: str
) -> None:
    wrong = [finding for finding in findings(replace(GOOD, **changes)) if text in finding.found]
    assert all(finding.command and finding.object.split() for finding in wrong if " team/" in finding.found), wrong


def test_the_log_that_is_to_be_looked_at_is_that_of_the_controller_wherever_it_runs() -> None:
    elsewhere = lease(names.LEADER_LEASE, -2)
    elsewhere["metadata"]["namespace"] = "platform"
    assert "kubectl -n platform logs deployment/podslots-controller" in todo(secrets=[], leader=elsewhere)
    assert "kubectl -n podslots-system logs deployment/podslots-controller" in todo(secrets=[])


def test_many_objects_of_one_advice_are_named_as_far_as_a_line_holds() -> None:
    bindings = [obj for obj in todo(bindings=[]).splitlines() if "ValidatingAdmissionPolicyBinding" in obj]
    assert len(bindings) == 1
    assert bindings[0].count("ValidatingAdmissionPolicyBinding") == 5
    assert " more: apply the manifests" in bindings[0]


def test_advice_is_given_once_for_what_fails_alike() -> None:
    text = table(findings(replace(GOOD, definitions=[])))
    assert text.count("kubectl apply -k manifests/base") == 1
    assert [entry["state"] for entry in documents(findings(replace(GOOD, leader=None)))].count("fails") == 1
