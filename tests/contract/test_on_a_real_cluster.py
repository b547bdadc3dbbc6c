"""These suites can be pointed at a cluster that is others' too: two runs don't meet, and none leaves anything behind.

An embedded cluster in a process of its own stands in for the real one: it is reached by a kubeconfig just so.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.api_client import real_cluster
from tests.support.repository import ROOT

KINDS = (
    "/api/v1/namespaces",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
)
"""What stands in no namespace, and can so be left behind."""

SUITES = (
    ("tests/contract/test_protection.py", "-k", "budget or approval or finalizer"),
    ("tests/contract/test_protection.py", "-k", "lock or namespace"),
    ("tests/contract/test_apiserver.py", "-k", "v1.36-admission-policy or v1.36-custom-resource"),
    ("tests/contract/test_apiserver.py", "-k", "v1.36-custom-resource or v1.36-pod-disruption"),
)


@pytest.fixture
async def kubeconfig(tmp_path: Path) -> AsyncIterator[Path]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "controller.local", "--state-dir", str(tmp_path / "cluster")),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            ready = json.loads(await process.stdout.readline())
        yield Path(ready["kubeconfig"])
    finally:
        process.terminate()
        await process.wait()


async def left(kubeconfig: Path) -> set[str]:
    async with real_cluster(kubeconfig) as client:
        return {f"{path}/{item['metadata']['name']}" for path in KINDS for item in (await client.get(path))["items"]}


async def run(kubeconfig: Path, arguments: tuple[str, ...]) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *arguments),
        env={**os.environ, "PODSLOTS_CONTRACT_KUBECONFIG": str(kubeconfig)},
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


@pytest.mark.long
async def test_several_runs_at_once_pass_and_leave_the_cluster_as_it_was(kubeconfig: Path) -> None:
    before = await left(kubeconfig)
    for status, out in await asyncio.gather(*(run(kubeconfig, arguments) for arguments in SUITES)):
        assert status == 0, out[-3000:]
        assert "passed" in out
        assert "skipped" not in out, "each of these is run, none left out"
    assert await left(kubeconfig) == before
