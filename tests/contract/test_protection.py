"""What the policies of manifests/protection hold back, and from whom: asked of an API server, request by request.

With PODSLOTS_CONTRACT_KUBECONFIG set to a kubeconfig, that cluster is asked instead of the embedded one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from controller import names
from tests.support.api_client import Answer, until
from tests.support.guarded import EDIT_OF_KUBERNETES, Guarded, denied, guarded

BEN, ANNA = "ben", "anna"
ADMIN = ""
"""The administrator: every verb, and the policies hold for them too."""
ACTIVE = f"{names.POOL_LABEL},{names.STATE_LABEL}=active"


@pytest.fixture
async def site() -> AsyncIterator[Guarded]:
    async with guarded() as found:
        await found.grant(BEN, EDIT_OF_KUBERNETES)
        await found.grant_role(BEN, "podslots-edit")
        await found.grant_role(BEN, "podslots-view")
        await found.grant(ANNA, EDIT_OF_KUBERNETES)
        yield found


async def is_there(site: Guarded, name: str, *, going: bool = False) -> bool:
    answer = await site.send("GET", site.path("pods", name))
    return answer.status == 200 and ("deletionTimestamp" in answer.body["metadata"]) == going


@pytest.mark.parametrize("user", [ADMIN, BEN])
async def test_pods_of_pools_are_made_by_the_controller_alone(site: Guarded, user: str) -> None:
    """Another's, labelled active, could be deleted by nobody, and keep its namespace."""
    spec = {"containers": [{"name": "m", "image": "i"}]}
    labels = {names.POOL_LABEL: "p", names.STATE_LABEL: "active"}
    answer = await site.send(
        "POST", site.path("pods"), {"metadata": {"name": "a", "labels": labels}, "spec": spec}, user=user
    )
    assert denied(answer)
    assert "only the controller makes Pods" in answer.body["message"]
    plain = {"metadata": {"name": "a", "labels": {"app": "p"}}, "spec": spec}
    assert (await site.send("POST", site.path("pods"), plain, user=user)).status == 201
    joined = await site.send("PATCH", site.path("pods", "a"), {"metadata": {"labels": labels}}, user=user)
    assert denied(joined)


def workload(image: str = "i", **spec: Any) -> dict[str, Any]:
    labels = {names.POOL_LABEL: "p"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "m", "image": image}]}}
    parts = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template, **spec}
    return {"metadata": {"name": "d"}, "spec": parts}


@pytest.mark.parametrize("kind", ["deployments", "replicasets"])
async def test_what_makes_pods_of_pools_is_made_by_the_controller_alone(site: Guarded, kind: str) -> None:
    """A ReplicaSet's Pods are let through: so whose ReplicaSet it is has to be asked."""
    path = site.path(kind, group="apps")
    assert denied(await site.send("POST", path, workload(), user=ADMIN))
    plain = workload()
    plain["spec"]["selector"] = {"matchLabels": {"app": "p"}}
    plain["spec"]["template"]["metadata"]["labels"] = {"app": "p"}
    assert (await site.send("POST", path, plain, user=ADMIN)).status == 201
    joined = {"spec": {"template": {"metadata": {"labels": {names.POOL_LABEL: "p"}}}}}
    assert denied(await site.send("PATCH", site.path(kind, "d", group="apps"), joined, user=ADMIN))


async def test_a_pools_deployment_is_changed_by_the_controller_alone_and_scaled_by_others(site: Guarded) -> None:
    """Another template, or going on with a rollout, would replace Pods that work."""
    path = site.path("deployments", group="apps")
    assert (await site.send("POST", path, workload(paused=True), user=site.controller)).status == 201
    path = site.path("deployments", "d", group="apps")
    for spec in ({"paused": False}, workload("other")["spec"]):
        assert denied(await site.send("PATCH", path, {"spec": spec}, user=ADMIN))
    assert (await site.send("PATCH", f"{path}/scale", {"spec": {"replicas": 1}}, user=ADMIN)).status == 200
    assert (await site.send("PATCH", path, {"spec": workload("other")["spec"]}, user=site.controller)).status == 200


@pytest.mark.parametrize("user", [ADMIN, BEN])
async def test_an_active_pod_is_deleted_by_nobody(site: Guarded, user: str) -> None:
    await site.pod("a")
    path = site.path("pods", "a")
    for query in ("", "?gracePeriodSeconds=0", "?propagationPolicy=Foreground"):
        answer = await site.send("DELETE", path + query, user=user)
        assert denied(answer), answer
        assert "Pod a of pool p is active: `podslots drain`" in answer.body["message"]
    collection = await site.send("DELETE", f"{site.path('pods')}?labelSelector={ACTIVE}", user=user)
    assert denied(collection)
    assert await is_there(site, "a")


async def test_the_controller_too_has_to_label_a_pod_draining_first(site: Guarded) -> None:
    await site.pod("a", finalizers=[])
    assert denied(await site.send("DELETE", site.path("pods", "a"), user=site.controller))
    assert (await site.label("a", "draining", user=site.controller)).status == 200
    assert (await site.send("DELETE", site.path("pods", "a"), user=site.controller)).status == 200


@pytest.mark.parametrize("state", ["starting", "draining"])
async def test_other_pods_of_a_pool_are_deleted_as_any(site: Guarded, state: str) -> None:
    await site.pod("a", state=state)
    assert (await site.send("DELETE", site.path("pods", "a"), user=BEN)).status == 200


async def test_pods_of_nobodys_pool_are_left_alone(site: Guarded) -> None:
    await site.pod("a", labels={"app": "other"})
    body = {"metadata": {"annotations": {names.FORGET: "x"}, "labels": {names.STATE_LABEL: "active"}}}
    assert (await site.send("PATCH", site.path("pods", "a"), body, user=BEN)).status == 200
    assert (await site.send("DELETE", site.path("pods", "a"), user=BEN)).status == 200


@pytest.mark.parametrize("propagation", ["Foreground", "Background"])
async def test_the_garbage_collector_is_refused(site: Guarded, propagation: str) -> None:
    """The owner is gone or waits; the Pod stays either way, until it is labelled draining."""
    owners = site.path("configmaps")
    owner = await site.client.post(owners, {"metadata": {"name": "owner"}})
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    await site.pod("a", ownerReferences=[reference], finalizers=[])
    await site.pod("other", state="draining", ownerReferences=[reference], finalizers=[])
    await site.send("DELETE", f"{owners}/owner?propagationPolicy={propagation}")

    async def collected() -> bool:
        found = await site.send("GET", site.path("pods", "other"))
        return found.status == 404 or "deletionTimestamp" in found.body["metadata"]

    await until(collected)
    assert await is_there(site, "a")


async def test_a_namespace_with_active_pods_is_kept_with_all_that_is_in_it(site: Guarded) -> None:
    await site.pod("a")
    answer = await site.send("DELETE", f"/api/v1/namespaces/{site.namespace}")
    assert denied(answer)
    assert "delete its SlotPools first" in answer.body["message"]
    found = await site.send("GET", f"/api/v1/namespaces/{site.namespace}")
    assert found.body["status"]["phase"] == "Active"


async def test_an_active_pod_that_does_not_run_is_not_evicted(site: Guarded) -> None:
    await site.pod("a")
    answer = await site.evict("a", user=ADMIN)
    assert denied(answer), answer
    assert "Pod a is active" in answer.body["message"]


@pytest.mark.parametrize("ready", ["True", "False"])
async def test_an_active_pod_that_runs_is_kept_by_the_budget_so_that_kubectl_drain_waits(
    site: Guarded, ready: str
) -> None:
    await site.pod("a", phase="Running")
    status = {"status": {"conditions": [{"type": "Ready", "status": ready}]}}
    await site.send("PATCH", site.path("pods", "a/status"), status, user=site.kubelet)

    async def counted() -> bool:
        """A real cluster's disruption controller needs a moment; until then 429 has another reason."""
        found = await site.client.get(site.path("poddisruptionbudgets", names.disruption_budget("p"), group="policy"))
        return bool((found.get("status") or {}).get("expectedPods"))

    await until(counted)
    assert (await site.evict("a", user=BEN)).status == 429
    await site.label("a", "draining", user=site.controller)

    async def evicted() -> bool:
        return (await site.evict("a", user=BEN)).status in (200, 201)

    await until(evicted)


@pytest.mark.parametrize("subresource", ["", "status"])
@pytest.mark.parametrize("user", [ADMIN, BEN])
async def test_only_the_controller_says_what_state_a_pod_is_in(site: Guarded, user: str, subresource: str) -> None:
    await site.pod("a", annotations={names.DRAIN_ID: "d", names.OPENED: "t", names.TEMPLATE_HASH: "h"})
    path = site.path("pods", f"a/{subresource}" if subresource else "a")
    changes: list[dict[str, Any]] = [
        {"labels": {names.STATE_LABEL: "draining"}},
        {"labels": {names.STATE_LABEL: None}},
        {"labels": {names.POOL_LABEL: "other"}},
        {"labels": {names.POOL_LABEL: None}},
        {"labels": None},
        {"annotations": None},
    ]
    for key in (names.DRAIN_ID, names.OPENED, names.TEMPLATE_HASH):
        changes += [{"annotations": {key: "x"}}, {"annotations": {key: None}}]
    for change in changes:
        answer = await site.send("PATCH", path, {"metadata": change}, user=user)
        assert denied(answer), (change, answer)
    assert (await site.send("PATCH", path, {"metadata": {"labels": {"mine": "1"}}}, user=user)).status == 200
    assert (await site.label("a", "draining", user=site.controller)).status == 200


async def test_the_spec_of_an_active_pod_stays(site: Guarded) -> None:
    await site.pod("a")
    await site.pod("b", state="starting")
    change = {"spec": {"containers": [{"name": "m", "image": "registry.invalid/other"}]}}
    kind = "application/strategic-merge-patch+json"
    for name, status in (("a", 403), ("b", 200)):
        answer = await site.send("PATCH", site.path("pods", name), change, user=BEN, content_type=kind)
        assert answer.status == status, answer


async def test_the_finalizer_stays_unless_the_glass_is_broken(site: Guarded) -> None:
    await site.pod("a")
    path = site.path("pods", "a")
    for finalizers in ([], None, ["example.dev/mine"]):
        assert denied(await site.send("PATCH", path, {"metadata": {"finalizers": finalizers}}, user=BEN))
    both = {"metadata": {"finalizers": [names.POD_FINALIZER, "example.dev/mine"]}}
    assert (await site.send("PATCH", path, both, user=BEN)).status == 200
    assert (await site.annotate("a", names.BREAK_GLASS, "why", user=ADMIN)).status == 200
    assert (await site.send("PATCH", path, {"metadata": {"finalizers": []}}, user=BEN)).status == 200


@pytest.mark.parametrize("subresource", ["", "status"])
@pytest.mark.parametrize(
    ("annotation", "right"),
    [(names.BREAK_GLASS, "break-glass"), (names.FORGET, "forget"), (names.DRAIN_REQUESTED, "drain")],
)
async def test_what_people_ask_of_a_pod_takes_a_right_of_its_own(
    site: Guarded, annotation: str, right: str, subresource: str
) -> None:
    await site.pod("a")
    refused = await site.annotate("a", annotation, "x", user=BEN, subresource=subresource)
    assert denied(refused)
    assert f"ben may not change {annotation}: it takes update on pods/{right}" in refused.body["message"]
    granted = {"apiGroups": [names.GROUP], "resources": [f"pods/{right}"], "resourceNames": ["a"], "verbs": ["update"]}
    await site.grant(ANNA, [granted])
    await site.pod("b")
    assert (await site.annotate("a", annotation, "x", user=ANNA, subresource=subresource)).status == 200
    assert denied(await site.annotate("b", annotation, "x", user=ANNA)), "the Role names one Pod"
    for value in ("y", None):
        assert denied(await site.annotate("a", annotation, value, user=BEN, subresource=subresource))
    assert (await site.annotate("a", annotation, None, user=ANNA)).status == 200


async def test_a_broken_glass_lets_a_pod_be_deleted(site: Guarded) -> None:
    await site.pod("a")
    assert (await site.annotate("a", names.BREAK_GLASS, "the node burns", user=ADMIN)).status == 200
    assert (await site.send("DELETE", site.path("pods", "a"), user=BEN)).status == 200


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
async def test_only_its_node_or_the_controller_ends_an_active_pod(site: Guarded, phase: str) -> None:
    await site.pod("a", phase="Running")
    ended = {"status": {"phase": phase}}
    for user in (ADMIN, BEN):
        assert denied(await site.send("PATCH", site.path("pods", "a/status"), ended, user=user))
    told = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    assert (await site.send("PATCH", site.path("pods", "a/status"), told, user=BEN)).status == 200
    await site.end_with("a", phase)


async def test_the_budget_of_a_pool_is_the_controllers(site: Guarded) -> None:
    path = site.path("poddisruptionbudgets", names.disruption_budget("p"), group="policy")
    for user in (ADMIN, BEN):
        assert denied(await site.send("DELETE", path, user=user))
        for change in ({"spec": {"minAvailable": 0}}, {"metadata": {"labels": {names.POOL_LABEL: None}}}):
            assert denied(await site.send("PATCH", path, change, user=user))
        noted = {"metadata": {"annotations": {"note": "x"}}}
        assert (await site.send("PATCH", path, noted, user=user)).status == 200
    assert (await site.send("DELETE", path, user=site.controller)).status == 200


async def test_a_lock_is_made_and_released_by_the_controller_or_with_the_right(site: Guarded) -> None:
    path = site.path("leases", group="coordination.k8s.io")

    async def make(name: str, labels: dict[str, str], user: str) -> Answer:
        lease = {"metadata": {"name": name, "labels": labels}, "spec": {"holderIdentity": "t"}}
        return await site.send("POST", path, lease, user=user)

    lock = {names.LOCK_LABEL: "true"}
    assert denied(await make("one", lock, BEN))
    assert (await make("other", {}, BEN)).status == 201
    assert denied(await site.send("PATCH", f"{path}/other", {"metadata": {"labels": lock}}, user=BEN))
    for name in ("one", "two"):
        assert (await make(name, lock, site.controller)).status == 201
    for change in ({"spec": {"holderIdentity": "me"}}, {"metadata": {"labels": None}}):
        assert denied(await site.send("PATCH", f"{path}/one", change, user=BEN))
    assert denied(await site.send("DELETE", f"{path}/one", user=BEN))
    assert (await site.send("DELETE", f"{path}/one", user=site.controller)).status == 200
    assert (await site.send("DELETE", f"{path}/two", user=ADMIN)).status == 200


async def test_an_approval_takes_the_right_and_is_given_in_ones_own_name(site: Guarded) -> None:
    assert (await site.task("t", user=BEN)).status == 201
    refused = await site.approve("t", user=BEN)
    assert denied(refused)
    assert "ben may not approve: it takes update on slottasks/approval" in refused.body["message"]
    assert denied(await site.approve("t", user=site.controller)), "the controller approves nothing"
    await site.grant_role(ANNA, "podslots-approve")
    misnamed = await site.approve("t", user=ANNA, by="ben")
    assert "must name who approves: anna" in misnamed.body["message"]
    assert (await site.approve("t", user=ANNA)).status == 200
    assert denied(await site.send("PATCH", site.task_path("t"), {"spec": {"approval": None}}, user=BEN))
    assert (await site.send("PATCH", site.task_path("t"), {"spec": {"priority": 5}}, user=BEN)).status == 200


async def test_nothing_is_approved_at_its_creation(site: Guarded) -> None:
    """By nobody: there is no plan yet that anybody could have seen."""
    approval = {"attempt": 1, "planDigest": "sha256:" + "a" * 64, "by": BEN}
    for user in (ADMIN, BEN):
        assert denied(await site.task("t", user=user, approval=approval))


async def test_a_task_that_approves_itself_takes_the_right_of_who_approves(site: Guarded) -> None:
    refused = await site.task("t", user=BEN, approvalPolicy="Auto")
    assert denied(refused)
    assert "ben may not submit a task with approvalPolicy: Auto" in refused.body["message"]
    assert (await site.task("manual", user=BEN, approvalPolicy="Manual")).status == 201
    await site.grant_role(BEN, "podslots-approve")
    assert (await site.task("t", user=BEN, approvalPolicy="Auto")).status == 201


async def test_the_files_of_a_task_stay_under_their_names(site: Guarded) -> None:
    """The task's definition overlooks this, and the policy does not."""
    await site.grant_role(BEN, "podslots-edit")
    assert (await site.task("t", user=BEN, files={"main.tf": "a", "b.tf": "b"})).status == 201
    refused = await site.send(
        "PATCH", site.task_path("t"), {"spec": {"files": {"main.tf": None, "c.tf": "a"}}}, user=BEN
    )
    assert denied(refused)
    assert "only approval, cancel and priority can be changed" in refused.body["message"]
    allowed = await site.send("PATCH", site.task_path("t"), {"spec": {"priority": 3}}, user=BEN)
    assert allowed.status == 200
