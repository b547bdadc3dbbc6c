"""Roles by what they can do: each verb of the command line, for whom it is there and for whom it is not.

An API server that enforces RBAC has the shipped roles and policies; each person has a token of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from controller import crds, names
from controller.cli.main import main
from tests.support.api_client import MERGE, TOKEN, ApiClient, running_server
from tests.support.guarded import EDIT_OF_KUBERNETES, RBAC
from tests.support.repository import ROOT

Json = dict[str, Any]

TASKS = f"/apis/{names.GROUP}/{names.VERSION}/namespaces/default/slottasks"
PODS, LEASES = "/api/v1/namespaces/default/pods", "/apis/coordination.k8s.io/v1/namespaces/default/leases"
ROLES = ("view", "edit", "approve", "operate")
PEOPLE = {f"token-of-{role}": role for role in ROLES}
"""Each person is named after the only role they have."""

STEPS = {"plan": {"command": ["true"]}, "apply": {"command": ["true"]}}
PLAN = "sha256:" + "a" * 64


@dataclass
class Site:
    client: ApiClient

    async def run(self, role: str, *arguments: str) -> Result:
        """A command of somebody who has this role alone."""
        environ = {"PODSLOTS_SERVER": self.client.url, "PODSLOTS_TOKEN": f"token-of-{role}"}
        return await asyncio.to_thread(CliRunner().invoke, main, arguments, env=environ)

    async def pod(self, name: str) -> Json:
        found: Json = await self.client.get(f"{PODS}/{name}")
        return found

    async def task(self) -> Json:
        found: Json = await self.client.get(f"{TASKS}/net")
        return found


@asynccontextmanager
async def running() -> AsyncIterator[Site]:
    users = {TOKEN: "admin", **PEOPLE}
    options = {"crds": crds.folder(), "policies": crds.policies_folder()}
    async with running_server(users=users, enforce_rbac=True, **options) as (_, client):
        for document in yaml.safe_load_all((ROOT / "manifests/base/rbac/people.yaml").read_text()):
            await client.post(f"{RBAC}/clusterroles", document)
        for role in ROLES:
            await bind(client, {"kind": "ClusterRole", "name": f"podslots-{role}"}, role)
        # Kubernetes' own `edit` may patch Pods and delete Leases: the policies are what stands in its way.
        await client.post(f"{RBAC}/clusterroles", {"metadata": {"name": "edit"}, "rules": EDIT_OF_KUBERNETES})
        for person in ("edit", names.CONTROLLER_USER):
            await bind(client, {"kind": "ClusterRole", "name": "edit"}, person)
        labels = {names.POOL_LABEL: "p", names.STATE_LABEL: "active"}
        spec = {"nodeName": "n1", "containers": [{"name": "m", "image": "i"}]}
        made = await client.send(
            "POST",
            PODS,
            {"metadata": {"name": "p-1", "labels": labels}, "spec": spec},
            more_headers={"Impersonate-User": names.CONTROLLER_USER},
        )
        assert made.status == 201, made
        pod = made.body
        await client.post(LEASES, lock("vpc"))
        await client.post(TASKS, task("net"))
        placed = {"pod": "p-1", "podUID": pod["metadata"]["uid"], "slot": 0, "attempt": 1}
        status = {"phase": "AwaitingApproval", "planDigest": PLAN, **placed}
        await client.merge(f"{TASKS}/net/status", {"status": status})
        yield Site(client)


async def bind(client: ApiClient, role: Json, person: str) -> None:
    group = "rbac.authorization.k8s.io"
    body = {
        "metadata": {"name": f"{role['name']}-{person}"},
        "roleRef": {"apiGroup": group, **role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": person}],
    }
    await client.post(f"{RBAC}/namespaces/default/rolebindings", body)


def lock(key: str) -> Json:
    metadata = {"name": names.lock_lease(key), "labels": {names.LOCK_LABEL: "true"}}
    return {"metadata": metadata, "spec": {"holderIdentity": "u"}}


def task(name: str, **spec: Any) -> Json:
    return {
        "apiVersion": names.API_VERSION,
        "kind": "SlotTask",
        "metadata": {"name": name},
        "spec": {"pool": "p", "type": "plan_and_apply", "steps": STEPS, **spec},
    }


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with running() as found:
        yield found


@pytest.mark.parametrize("role", ROLES)
async def test_every_role_sees(site: Site, role: str) -> None:
    for arguments in (("get", "tasks"), ("get", "pods"), ("get", "slots"), ("get", "pools"), ("plans",)):
        result = await site.run(role, *arguments)
        assert result.exit_code == 0, result.stderr


OPERATE = {
    ("drain", "p-1"): ("pods/drain", names.DRAIN_REQUESTED),
    ("drain", "n1"): ("pods/drain", names.DRAIN_REQUESTED),
    ("forget", "p-1", "-y"): ("pods/forget", names.FORGET),
    ("break-glass", "p-1", "--reason", "the rack is on fire", "-y"): ("pods/break-glass", names.BREAK_GLASS),
}


@pytest.mark.parametrize("arguments", OPERATE, ids=" ".join)
async def test_who_operates_does_it_and_others_are_told_what_they_lack(site: Site, arguments: tuple[str, ...]) -> None:
    right, annotation = OPERATE[arguments]
    for role in ("view", "edit", "approve"):
        result = await site.run(role, *arguments)
        assert result.exit_code == 1
        assert f"update {right} in podslots.dev; ClusterRole podslots-operate has it" in result.stderr
        assert "annotations" not in (await site.pod("p-1"))["metadata"]
    result = await site.run("operate", *arguments)
    assert result.exit_code == 0, result.stderr
    assert annotation in (await site.pod("p-1"))["metadata"]["annotations"]


async def test_an_editor_who_asks_the_api_itself_is_refused_as_well(site: Site) -> None:
    """The command line only says it sooner."""
    headers = {"Impersonate-User": "edit"}
    kind = "application/merge-patch+json"
    for annotation in (names.DRAIN_REQUESTED, names.FORGET, names.BREAK_GLASS):
        patch = {"metadata": {"annotations": {annotation: "x"}}}
        answer = await site.client.send("PATCH", f"{PODS}/p-1", patch, content_type=kind, more_headers=headers)
        assert answer.status == 403
        assert "it takes update on pods/" in answer.body["message"]
    answer = await site.client.send("DELETE", f"{LEASES}/{names.lock_lease('vpc')}", more_headers=headers)
    assert "it takes update on leases/unlock" in answer.body["message"]


async def test_a_drain_names_what_it_waits_for_and_can_be_taken_back(site: Site) -> None:
    result = await site.run("operate", "drain", "n1")
    assert "p-1: drain requested; it goes once these are done: net (AwaitingApproval)" in result.output
    assert "kubectl cordon n1" in result.output
    refused = await site.run("edit", "undrain", "p-1")
    assert refused.exit_code == 1
    assert "update pods/drain" in refused.stderr
    assert (await site.run("operate", "undrain", "n1")).output == "p-1: drain no longer requested\n"
    assert names.DRAIN_REQUESTED not in (await site.pod("p-1"))["metadata"].get("annotations", {})
    again = await site.run("operate", "undrain", "p-1")
    assert (again.exit_code, "nobody asked for a drain of p-1" in again.stderr) == (1, True)


async def test_a_name_that_is_neither_a_pod_nor_a_node_is_said(site: Site) -> None:
    result = await site.run("operate", "drain", "nothing")
    assert "no Pod nothing, and no Pod of a pool on a node nothing, in namespace default" in result.stderr


async def test_a_broken_glass_needs_a_reason_and_lets_the_operator_delete(site: Site) -> None:
    assert (await site.run("operate", "break-glass", "p-1", "-y")).exit_code == 2
    assert (await site.run("operate", "break-glass", "p-1", "--reason", " ", "-y")).exit_code == 2
    headers = {"Impersonate-User": "operate"}
    assert (await site.client.send("DELETE", f"{PODS}/p-1", more_headers=headers)).status == 403
    result = await site.run("operate", "break-glass", "p-1", "--reason", "why", "-y")
    assert "As its tasks say it holds: net (AwaitingApproval)" in result.output
    assert "kubectl delete pod p-1 -n default" in result.output
    assert (await site.client.send("DELETE", f"{PODS}/p-1", more_headers=headers)).status == 200


async def test_who_operates_unlocks_and_others_do_not(site: Site) -> None:
    for role in ("view", "edit", "approve"):
        result = await site.run(role, "unlock", "vpc", "-y")
        assert result.exit_code == 1
    assert (
        "update leases/unlock in podslots.dev; ClusterRole podslots-operate"
        in (await site.run("edit", "unlock", "vpc", "-y")).stderr
    )
    result = await site.run("operate", "unlock", "vpc", "-y")
    assert (result.exit_code, "is free" in result.output) == (0, True), result.stderr


async def test_who_approves_does_so_in_their_own_name_and_others_are_told_before_they_read_the_plan(site: Site) -> None:
    for role in ("view", "edit", "operate"):
        result = await site.run(role, "approve", "net", "-y")
        assert result.exit_code == 1
        assert "update slottasks/approval in podslots.dev; ClusterRole podslots-approve has it" in result.stderr
        assert result.stdout == "", "nothing was asked"
    result = await site.run("approve", "approve", "net", "-y")
    assert result.exit_code == 0, result.stderr
    assert (await site.task())["spec"]["approval"] == {"attempt": 1, "planDigest": PLAN, "by": "approve"}


async def test_who_may_only_approve_changes_nothing_else_of_a_task(site: Site) -> None:
    """Patching tasks is one right in RBAC; a policy parts it."""
    result = await site.run("approve", "cancel", "net")
    assert result.exit_code == 1
    assert "approve may approve this task, and not change it: it takes update on slottasks" in result.stderr
    path = f"{TASKS}/net"
    for patch in (
        {"spec": {"priority": 7}},
        {"metadata": {"labels": {"a": "b"}}},
        {"metadata": {"finalizers": ["a/b"]}},
    ):
        person = {"Authorization": "Bearer token-of-approve"}
        answer = await site.client.send("PATCH", path, patch, content_type=MERGE, more_headers=person)
        assert answer.status == 403, patch
    assert (await site.run("edit", "cancel", "net")).exit_code == 0


async def test_an_administrator_acts_on_behalf_of_others_with_their_rights(site: Site) -> None:
    environ = {"PODSLOTS_SERVER": site.client.url, "PODSLOTS_TOKEN": TOKEN}

    async def run(person: str) -> Result:
        arguments = ("--as", person, "approve", "net", "-y")
        return await asyncio.to_thread(CliRunner().invoke, main, arguments, env=environ)

    assert "update slottasks/approval in podslots.dev; ClusterRole podslots-approve" in (await run("operate")).stderr
    assert (await run("approve")).exit_code == 0
    assert (await site.task())["spec"]["approval"]["by"] == "approve"


async def test_who_edits_submits_but_nothing_that_approves_itself(site: Site, tmp_path: Any) -> None:
    plain, automatic = tmp_path / "plain.yaml", tmp_path / "auto.yaml"
    plain.write_text(yaml.safe_dump(task("one")))
    automatic.write_text(yaml.safe_dump(task("two", approvalPolicy="Auto")))
    assert (await site.run("edit", "submit", "-f", str(plain))).exit_code == 0
    refused = await site.run("edit", "submit", "-f", str(automatic))
    assert refused.exit_code == 1
    assert "approvalPolicy: Auto: it takes update on slottasks/approval" in refused.stderr
    for role in ("view", "approve", "operate"):
        assert (await site.run(role, "submit", "-f", str(plain))).exit_code == 1


async def test_the_example_makes_two_people_of_it(site: Site) -> None:
    for document in yaml.safe_load_all((ROOT / "manifests/examples/two-people.yaml").read_text()):
        await site.client.post(f"{RBAC}/namespaces/default/rolebindings", document)
    kind = "application/merge-patch+json"

    async def approve(person: str) -> int:
        patch = {"spec": {"approval": {"attempt": 1, "planDigest": PLAN, "by": person}}}
        headers = {"Impersonate-User": person}
        return (await site.client.send("PATCH", f"{TASKS}/mine", patch, content_type=kind, more_headers=headers)).status

    async def submit(person: str) -> int:
        headers = {"Impersonate-User": person}
        return (await site.client.send("POST", TASKS, task("mine"), more_headers=headers)).status

    assert await submit("ben") == 403
    assert await submit("anna") == 201
    assert await approve("anna") == 403
    assert await approve("ben") == 200
