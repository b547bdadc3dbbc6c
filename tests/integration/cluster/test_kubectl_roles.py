"""The roles of podslots on the embedded cluster, tried as people try them: bound, then asked about or stood in for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.kubectl import Kubectl, on_a_cluster


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    async with on_a_cluster(tmp_path) as caller:
        yield caller


MAY = {
    "podslots-view": {"get slottasks"},
    "podslots-edit": {"get slottasks", "create slottasks"},
    "podslots-approve": {"get slottasks", "update slottasks/approval"},
    "podslots-operate": {"get slottasks", "delete pods"},
    # Kubernetes' own, which those of podslots join.
    "view": {"get slottasks"},
    "edit": {"get slottasks", "create slottasks", "delete pods"},
    "admin": {"get slottasks", "create slottasks", "delete pods", "create roles"},
}


async def test_what_each_role_may(kubectl: Kubectl) -> None:
    asked = sorted(set().union(*MAY.values()))
    for role, allowed in MAY.items():
        await kubectl("create", "rolebinding", role, f"--clusterrole={role}", f"--user=has-{role}")
        for question in asked:
            verb, resource = question.split()
            resource, _, part = resource.partition("/")
            sub = [f"--subresource={part}"] if part else []
            ran = await kubectl.run("auth", "can-i", verb, resource, *sub, f"--as=has-{role}")
            assert ran.out.strip() == ("yes" if question in allowed else "no"), (role, question, ran)


async def test_a_viewer_is_refused_a_pool_in_kubernetes_words(kubectl: Kubectl) -> None:
    await kubectl("create", "rolebinding", "ben", "--clusterrole=podslots-view", "--user=ben")
    await kubectl("get", "slotpools", "--as=ben")
    ran = await kubectl.run("delete", "slotpools", "--all", "--as=ben")
    assert ran.status == 0, ran.err  # there is none
    refused = await kubectl.run("delete", "slotpool", "p", "--as=ben")
    assert 'User "ben" cannot delete resource "slotpools" in API group "podslots.dev" in the namespace "default"' in (
        refused.err
    )
