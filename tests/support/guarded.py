"""A namespace that the policies of manifests/protection guard, in the embedded cluster or in a real one.

A real one is the current context of the kubeconfig that PODSLOTS_CONTRACT_KUBECONFIG names. It is used as an
administrator who stands in for others; everything is made in a namespace of this run's own, and what stands in no
namespace carries its name. So two runs don't meet, and none leaves anything behind. It must not have podslots
installed: its policies would take this namespace's controller for a stranger.
"""

from __future__ import annotations

import copy
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from controller import crds, names
from controller.objects.disruption import budget
from manifests.generate import policies
from tests.support.api_client import MERGE, Answer, ApiClient, real_cluster, running_server, until
from tests.support.own_namespace import remove, remove_namespace
from tests.support.repository import ROOT

Json = dict[str, Any]

KUBECONFIG = os.environ.get("PODSLOTS_CONTRACT_KUBECONFIG")
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
ACCESS_REVIEW = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
MADE_BY_TESTS = "podslots.dev/made-by-tests"

EDIT_OF_KUBERNETES: list[Json] = [
    {
        "apiGroups": [""],
        "resources": ["pods", "pods/status", "pods/eviction", "secrets", "configmaps"],
        "verbs": ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"],
    },
    {"apiGroups": ["policy"], "resources": ["poddisruptionbudgets"], "verbs": ["*"]},
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]},
]
"""What Kubernetes' own role `edit` grants of what matters here, and pods/status, which it does not."""


def denied(answer: Answer) -> bool:
    """Whether a policy has refused it, and not the want of a right."""
    return answer.status == 403 and "ValidatingAdmissionPolicy" in answer.body["message"]


WITH_FILE = {"files": {"main.tf": ""}}
RENAMED = {"spec": {"files": {"main.tf": None, "other.tf": ""}}}
"""What the definition itself does not refuse."""


class Guarded:
    """One guarded namespace, and requests in it on behalf of others."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self.client = client
        self.namespace = namespace
        self.controller = f"system:serviceaccount:{namespace}:{names.CONTROLLER_ACCOUNT}"
        self.node = f"{namespace}-node"
        self._cluster_wide: list[str] = []

    # --- requests -----------------------------------------------------------------------------------------------------

    async def send(
        self, method: str, path: str, body: Any = None, *, user: str = "", content_type: str = MERGE
    ) -> Answer:
        """A request, on behalf of a user: the controller, a kubelet, or a person. Without one: the administrator."""
        headers = {"Impersonate-User": user} if user else {}
        if user == self.kubelet:
            headers["Impersonate-Group"] = "system:nodes"
        kind = content_type if method == "PATCH" else "application/json"
        return await self.client.send(method, path, body, content_type=kind, more_headers=headers)

    def path(self, plural: str, name: str = "", *, group: str = "", version: str = "v1") -> str:
        """The path of a resource of this namespace."""
        root = f"/apis/{group}/{version}" if group else f"/api/{version}"
        return f"{root}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    @property
    def kubelet(self) -> str:
        """The user of the node that Pods are bound to, which nobody runs."""
        return f"system:node:{self.node}"

    def task_path(self, name: str = "") -> str:
        """The path of a SlotTask."""
        return self.path("slottasks", name, group=names.GROUP, version=names.VERSION)

    # --- objects ------------------------------------------------------------------------------------------------------

    async def pod(self, name: str, *, state: str = "active", phase: str = "", **metadata: Any) -> Json:
        """A Pod as the controller leaves it in some state."""
        labels = {names.POOL_LABEL: "p", names.STATE_LABEL: state}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels, "finalizers": [names.POD_FINALIZER], **metadata},
            "spec": {"nodeName": self.node, "containers": [{"name": "m", "image": "registry.invalid/none"}]},
        }
        answer = await self.send("POST", self.path("pods"), body, user=self.controller)
        assert answer.status == 201, answer
        if phase:
            await self.end_with(name, phase)
        made: Json = answer.body
        return made

    async def end_with(self, name: str, phase: str) -> None:
        """Have the kubelet say it."""
        status = {"phase": phase, "conditions": [{"type": "Ready", "status": "True"}]}
        answer = await self.send("PATCH", self.path("pods", f"{name}/status"), {"status": status}, user=self.kubelet)
        assert answer.status == 200, answer

    async def label(self, name: str, state: str, *, user: str) -> Answer:
        """Change the state label of a Pod."""
        body = {"metadata": {"labels": {names.STATE_LABEL: state}}}
        return await self.send("PATCH", self.path("pods", name), body, user=user)

    async def annotate(self, name: str, key: str, value: str | None, *, user: str, subresource: str = "") -> Answer:
        """Change an annotation of a Pod."""
        path = self.path("pods", f"{name}/{subresource}" if subresource else name)
        return await self.send("PATCH", path, {"metadata": {"annotations": {key: value}}}, user=user)

    async def evict(self, name: str, *, user: str) -> Answer:
        """Ask for an eviction, as `kubectl drain` does."""
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        return await self.send("POST", self.path("pods", f"{name}/eviction"), body, user=user)

    async def _budget(self) -> str:
        """The budget of pool `p`, as the controller makes it; its path."""
        body = budget(self.namespace, "p")
        path = self.path("poddisruptionbudgets", group="policy")
        answer = await self.send("POST", path, body, user=self.controller)
        assert answer.status == 201, answer
        return f"{path}/{body['metadata']['name']}"

    async def task(self, name: str, *, user: str, **spec: Any) -> Answer:
        """Submit a task that plans and applies."""
        steps = {"plan": {"command": ["true"]}, "apply": {"command": ["true"]}}
        body = {
            "apiVersion": names.API_VERSION,
            "kind": "SlotTask",
            "metadata": {"name": name},
            "spec": {"pool": "p", "type": "plan_and_apply", "steps": steps, **spec},
        }
        return await self.send("POST", self.task_path(), body, user=user)

    async def approve(self, name: str, *, user: str, by: str | None = None) -> Answer:
        """Approve a task, in the user's own name or another."""
        approval = {"attempt": 1, "planDigest": "sha256:" + "a" * 64, "by": user if by is None else by}
        return await self.send("PATCH", self.task_path(name), {"spec": {"approval": approval}}, user=user)

    # --- rights -------------------------------------------------------------------------------------------------------

    async def grant(self, user: str, rules: list[Json]) -> None:
        """Let a user do something in this namespace."""
        name = f"r-{uuid.uuid4().hex[:6]}"
        await self.client.post(
            f"{RBAC}/namespaces/{self.namespace}/roles", {"metadata": {"name": name}, "rules": rules}
        )
        await self._bind({"kind": "Role", "name": name}, {"kind": "User", "name": user})
        await self._until_granted(user, rules)

    async def grant_role(self, user: str, role: str) -> None:
        """Bind a shipped ClusterRole to a user in this namespace."""
        name = f"{self.namespace}-{role}"
        await self._bind({"kind": "ClusterRole", "name": name}, {"kind": "User", "name": user})
        await self._until_granted(user, (await self.client.get(f"{RBAC}/clusterroles/{name}"))["rules"])

    async def _until_granted(self, user: str, rules: list[Json]) -> None:
        """An authorizer notices a binding a moment after it was made; until then its refusals would look like ours."""
        for rule in rules:
            plural, _, subresource = rule["resources"][-1].partition("/")
            asked = {
                "verb": rule["verbs"][-1],
                "group": rule["apiGroups"][0],
                "resource": plural,
                "subresource": subresource,
                "namespace": self.namespace,
                "name": (rule.get("resourceNames") or [""])[0],
            }
            spec = {"user": user, "resourceAttributes": {key: value for key, value in asked.items() if value}}

            async def granted(spec: Json = spec) -> bool:
                review = await self.client.post(ACCESS_REVIEWS, {**ACCESS_REVIEW, "spec": spec})
                return bool(review["status"]["allowed"])

            await until(granted)

    async def _bind(self, role: Json, subject: Json) -> None:
        path = f"{RBAC}/namespaces/{self.namespace}/rolebindings"
        group = "rbac.authorization.k8s.io"
        body = {
            "metadata": {"name": f"b-{uuid.uuid4().hex[:6]}"},
            "roleRef": {"apiGroup": group, **role},
            "subjects": [{"apiGroup": group, **subject}],
        }
        await self.client.post(path, body)

    # --- coming and going ---------------------------------------------------------------------------------------------

    async def make_namespace(self) -> None:
        """The first thing to be there, and the last to go: other runs see by it that this one is under way."""
        labels = {MADE_BY_TESTS: "true"}
        await self.client.post("/api/v1/namespaces", {"metadata": {"name": self.namespace, "labels": labels}})

    async def set_up(self) -> None:
        """Make the shipped roles and policies, and wait until each policy bites."""
        for document in yaml.safe_load_all((ROOT / "manifests/base/rbac/people.yaml").read_text()):
            await self._make(f"{RBAC}/clusterroles", document)
        controllers = yaml.safe_load_all((ROOT / "manifests/base/rbac/controller.yaml").read_text())
        role = next(document for document in controllers if document["kind"] == "ClusterRole")
        await self._make(f"{RBAC}/clusterroles", role)
        await self.grant_role(self.controller, role["metadata"]["name"])
        await self._bind(
            {"kind": "ClusterRole", "name": f"{self.namespace}-nodes"}, {"kind": "User", "name": self.kubelet}
        )
        nodes = [{"apiGroups": [""], "resources": ["pods", "pods/status"], "verbs": ["*"]}]
        await self._make(f"{RBAC}/clusterroles", {"metadata": {"name": "nodes"}, "rules": nodes})
        selector = {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}}
        plurals = {"ValidatingAdmissionPolicy": "policies", "ValidatingAdmissionPolicyBinding": "policybindings"}
        for policy in policies(self.controller):
            for document in policy.documents(prefix=f"{self.namespace}-", namespaces=selector):
                await self._make(f"{ADMISSION}/validatingadmission{plurals[document['kind']]}", document, named=True)
        await self._until_all_bite()

    async def _make(self, path: str, document: Json, *, named: bool = False) -> None:
        """What stands in no namespace, under a name of this run."""
        document = copy.deepcopy(document)
        if not named:
            document["metadata"] = {"name": f"{self.namespace}-{document['metadata']['name']}"}
        await self.client.post(path, document)
        self._cluster_wide.append(f"{path}/{document['metadata']['name']}")

    async def _until_all_bite(self) -> None:
        """A policy is noticed a second or two after it was made: dry runs ask for it, and do no harm until then."""
        await self.pod("probe", finalizers=[])
        dry = "?dryRun=All"
        pod, lease = self.path("pods", "probe"), self.path("leases", "probe", group="coordination.k8s.io")
        path = self.path("leases", group="coordination.k8s.io")
        await self.client.post(path, {"metadata": {"name": "probe", "labels": {names.LOCK_LABEL: "true"}}})
        await self.grant(
            "nobody", [{"apiGroups": ["*"], "resources": ["leases", "pods", "pods/status"], "verbs": ["*"]}]
        )
        await self.grant("nobody", [{"apiGroups": [names.GROUP], "resources": ["slottasks"], "verbs": ["*"]}])
        await self.grant("patches", [{"apiGroups": [names.GROUP], "resources": ["slottasks"], "verbs": ["patch"]}])
        budget_path = await self._budget()
        failed = {"status": {"phase": "Failed"}}
        task: Json = {
            "metadata": {"name": "probe"},
            "spec": {"pool": "p", "type": "plan", "steps": {"plan": {"command": ["x"]}}},
        }
        approved = {**task, "spec": {**task["spec"], "approval": {"attempt": 1, "planDigest": "sha256:" + "a" * 64}}}
        automatic = {**task, "spec": {**task["spec"], "approvalPolicy": "Auto"}}
        evicted = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "probe"}}
        stranger = {
            "metadata": {"name": "stranger", "labels": {names.POOL_LABEL: "p"}},
            "spec": {"containers": [{"name": "m", "image": "i"}]},
        }
        labels = {names.POOL_LABEL: "p"}
        workload = {
            "metadata": {"name": "stranger"},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": stranger["spec"]},
            },
        }
        head = {"apiVersion": names.API_VERSION, "kind": "SlotTask"}
        there = {**head, "metadata": {"name": "there"}, "spec": {**task["spec"], **WITH_FILE}}
        await self.client.post(self.task_path(), there)
        probes: list[tuple[str, str, Any]] = [
            ("POST", self.path("pods"), stranger),
            ("POST", self.path("deployments", group="apps"), workload),
            ("DELETE", pod, None),
            ("POST", f"{pod}/eviction", {**evicted, "deleteOptions": {"dryRun": ["All"]}}),
            ("DELETE", f"/api/v1/namespaces/{self.namespace}", None),
            ("PATCH", pod, {"metadata": {"labels": {names.STATE_LABEL: "x"}}}),
            ("PATCH", f"{pod}/status", failed),
            ("DELETE", budget_path, None),
            ("DELETE", lease, None),
            ("POST", self.task_path(), approved),
            ("POST", self.task_path(), automatic),
            ("PATCH", self.task_path("there"), {"metadata": {"labels": {"a": "b"}}}),
            ("PATCH", self.task_path("there"), RENAMED),
        ]
        assert len(probes) == len(policies())
        for method, probed, body in probes:
            about_tasks = "slottasks" in probed
            sent = {**(head if about_tasks else {}), **body} if body else None
            user = "nobody" if "leases" in probed or about_tasks else ""
            if about_tasks and method == "PATCH":
                user = "nobody" if body is RENAMED else "patches"

            async def bites(method: str = method, path: str = probed + dry, sent: Any = sent, user: str = user) -> bool:
                answer = await self.send(method, path, sent, user=user)
                return denied(answer)

            await until(bites)
        await self.label("probe", "draining", user=self.controller)
        await self.send("DELETE", f"{pod}?gracePeriodSeconds=0")
        await self.send("DELETE", lease, user=self.controller)
        await self.send("DELETE", self.task_path("there"), user=self.controller)

    async def tear_down(self) -> None:
        """Policies first: they would keep the namespace's Pods, and so the namespace."""
        for path in reversed(self._cluster_wide):
            await self.client.send("DELETE", path)
        await remove_namespace(self.client, self.namespace, also=(self.task_path(),))


@asynccontextmanager
async def guarded() -> AsyncIterator[Guarded]:
    """A guarded namespace, in the embedded cluster or the one that is named."""
    namespace = f"guarded-{uuid.uuid4().hex[:8]}"
    if KUBECONFIG:
        async with real_cluster(Path(KUBECONFIG)) as client:
            site = Guarded(client, namespace)
            try:
                await site.make_namespace()
                await _define(client)
                await site.set_up()
                yield site
            finally:
                await site.tear_down()
                await _undefine(client)
    else:
        async with running_server(crds=crds.folder()) as (_, client):
            site = Guarded(client, namespace)
            await site.make_namespace()
            await site.set_up()
            yield site
            await site.tear_down()


async def _define(client: ApiClient) -> None:
    """Have our kinds there. Those that the cluster had not carry a label, so that the last run takes them away."""
    for path in sorted(crds.folder().glob("*.yaml")):
        document = yaml.safe_load(path.read_text())
        document["metadata"]["labels"] = {MADE_BY_TESTS: "true"}
        answer = await client.send("POST", CRDS, document)
        assert answer.status in (201, 409), answer

    async def served() -> bool:
        return (await client.send("GET", f"/apis/{names.GROUP}/{names.VERSION}/slottasks")).status == 200

    await until(served)


async def _undefine(client: ApiClient) -> None:
    """Take our kinds away if it was tests that made them, and no other run needs them."""
    runs = await client.get(f"/api/v1/namespaces?labelSelector={MADE_BY_TESTS}")
    if runs["items"]:
        return
    for item in (await client.get(f"{CRDS}?labelSelector={MADE_BY_TESTS}"))["items"]:
        await remove(client, f"{CRDS}/{item['metadata']['name']}")
