"""An apply of real Terraform that is stopped in the middle: what it made is in its state, and its lock is gone.

With the AWS provider against a fake AWS. It needs `terraform`, a filesystem mirror with that provider (see
`tests.support.terraform`), and `moto_server`, which `make moto` gets. Programs of ours stand for all of these in
`tests/integration/agent/worker/test_stopping.py`, which runs everywhere.
"""

import asyncio
import json
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import pytest
import pytest_asyncio

from controller.kube.api import PODS, SLOTTASKS
from controller.names import BREAK_GLASS
from controller.objects.task_spec import STOP_RESERVE_SECONDS
from tests.support.cluster import NAMESPACE, Child, Cluster, until
from tests.support.terraform import fake_aws, find_mirror

MIRROR = find_mirror(os.environ)
BUCKET = "states"
POD_GRACE_SECONDS = 120
SIGNED = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
"""Not checked, but without one the fake takes the caller for nobody."""

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not on the PATH"),
    pytest.mark.skipif(MIRROR is None, reason="there is no filesystem mirror with the AWS provider"),
]

CONFIGURATION = """\
terraform {{
  required_providers {{
    aws = {{ source = "hashicorp/aws" }}
  }}
  backend "s3" {{
    bucket                      = "{bucket}"
    key                         = "{name}"
    region                      = "us-east-1"
    endpoints                   = {{ s3 = "{url}" }}
    use_lockfile                = true
    use_path_style              = true
    skip_credentials_validation = true
    skip_metadata_api_check     = true
    skip_requesting_account_id  = true
    skip_s3_checksum            = true
  }}
}}
provider "aws" {{
  region                      = "us-east-1"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
  endpoints {{
    sqs = "{url}"
  }}
}}
resource "aws_sqs_queue" "made" {{
  count = 3
  name  = "{name}-${{count.index}}"
}}
"""
INIT = ["terraform", "init", "-input=false", "-no-color"]
APPLY = ["terraform", "apply", "-auto-approve", "-input=false", "-no-color"]
STEPS: dict[str, dict[str, Any]] = {
    "direct": {"before": [{"command": INIT}], "command": APPLY},
    "shell": {"command": ["sh", "-c", f"{' '.join(INIT)} && {' '.join(APPLY)} && echo applied"]},
    "bash": {"command": ["bash", "-c", f"{' '.join(INIT)}; {' '.join(APPLY)}; echo applied"]},
    "before": {"before": [{"command": INIT}, {"command": APPLY}], "command": ["true"]},
}


class Aws:
    """A fake AWS in a process of its own."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, method: str = "GET") -> bytes | None:
        """What is there; None if nothing is."""
        headers = {"Authorization": SIGNED}
        request = urllib.request.Request(f"{self.url}/{path}", method=method, headers=headers)  # noqa: S310 - our own
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                found: bytes = answer.read()
                return found
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.NOT_FOUND:
                raise
            return None

    def queues(self, name: str) -> set[str]:
        """The names of the queues that there are, of one task."""
        text = (self.get("moto-api/data.json") or b"").decode()
        return set(re.findall(rf'"({name}-\d)"', text))

    def in_state(self, name: str) -> set[str]:
        """The names of the queues that a task's state knows."""
        state = json.loads(self.get(f"{BUCKET}/{name}") or b"{}")
        instances = [instance for entry in state.get("resources", ()) for instance in entry["instances"]]
        return {instance["attributes"]["name"] for instance in instances}

    def locked(self, name: str) -> bool:
        return self.get(f"{BUCKET}/{name}.tflock") is not None


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def aws(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Aws]:
    log = tmp_path_factory.mktemp("aws") / "log"
    program = fake_aws()
    assert program is not None, "there is terraform and its provider, but no moto_server: `make moto`"
    process = Child("aws", [program, "-H", "127.0.0.1", "-p", "0"], dict(os.environ), log)
    await process.start()
    try:
        found = await until(lambda: re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text()), "it serves")
        fake = Aws(found[1])
        await asyncio.to_thread(fake.get, BUCKET, "PUT")
        yield fake
    finally:
        await process.terminate()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path_factory.mktemp("terraform")) as running:
        await running.create_pool("real", template=template(), slots=[{"accepts": ["apply"]}])
        yield running
        await running.settle()
        running.check(deleted_by="admin")


def template() -> dict[str, Any]:
    worker = {"name": "worker", "image": "podslots/tools:test"}
    return {"spec": {"terminationGracePeriodSeconds": POD_GRACE_SECONDS, "containers": [worker]}}


async def apply(cluster: Cluster, aws: Aws, name: str, step: dict[str, Any]) -> None:
    variables = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "CHECKPOINT_DISABLE": "1",
        "TF_CLI_CONFIG_FILE": "mirror.tfrc",
    }
    files = {
        "main.tf": CONFIGURATION.format(bucket=BUCKET, name=name, url=aws.url),
        "mirror.tfrc": f'provider_installation {{\n  filesystem_mirror {{\n    path = "{MIRROR}"\n  }}\n}}\n',
    }
    spec = {
        "pool": "real",
        "type": "apply",
        "files": files,
        "env": [{"name": key, "value": value} for key, value in variables.items()],
        "steps": {"apply": step},
    }
    body = {
        "apiVersion": SLOTTASKS.api_version,
        "kind": SLOTTASKS.kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }
    await cluster.api.create(SLOTTASKS, NAMESPACE, body)


async def until_making(cluster: Cluster, aws: Aws, name: str) -> None:
    """Wait until a queue is there, and the provider waits for it to be ready."""
    await cluster.until_phase(name, "Running")
    await until(lambda: asyncio.to_thread(aws.queues, name), "a queue is being made", seconds=180)


async def nothing_is_lost(aws: Aws, name: str, tail: str) -> None:
    made = await asyncio.to_thread(aws.queues, name)
    assert await asyncio.to_thread(aws.in_state, name) == made, tail
    assert not await asyncio.to_thread(aws.locked, name), tail


@pytest.mark.parametrize("form", STEPS)
async def test_a_cancelled_apply_keeps_what_it_made_and_gives_its_lock_back(
    cluster: Cluster, aws: Aws, form: str
) -> None:
    name = f"cancel-{form}"
    await apply(cluster, aws, name, STEPS[form])
    await until_making(cluster, aws, name)
    await cluster.patch_task(name, {"cancel": True})
    status = await cluster.until_phase(name, "Cancelled", "Failed", "Succeeded", seconds=120)
    tail = str(status["steps"]["apply"]["logTail"])
    assert status["phase"] == "Cancelled", tail
    assert "Gracefully shutting down" in tail
    await nothing_is_lost(aws, name, tail)


@pytest.mark.parametrize("form", STEPS)
async def test_the_pods_end_does_neither(cluster: Cluster, aws: Aws, form: str) -> None:
    """Somebody deletes the Pod while something is being made: the apply has what is left of the Pod's grace."""
    name = f"end-{form}"
    # Of the Pod's grace so much is kept for the step that it is stopped at once.
    await apply(cluster, aws, name, {**STEPS[form], "cancelGraceSeconds": POD_GRACE_SECONDS - STOP_RESERVE_SECONDS})
    await until_making(cluster, aws, name)
    pod = (await cluster.status(name))["pod"]
    await cluster.api.patch(PODS, NAMESPACE, pod, {"metadata": {"annotations": {BREAK_GLASS: "a test of its end"}}})
    await cluster.api.delete(PODS, NAMESPACE, pod)
    status = await cluster.until_phase(name, "Cancelled", "Failed", "Succeeded", "Lost", seconds=180)
    tail = str(status["steps"]["apply"].get("logTail"))
    assert status["phase"] == "Failed", status
    assert "Gracefully shutting down" in tail
    await nothing_is_lost(aws, name, tail)


@pytest.mark.parametrize("form", STEPS)
async def test_a_time_limit_does_neither(cluster: Cluster, aws: Aws, form: str) -> None:
    """Wherever it hits: what there is then is known, and nobody holds the lock."""
    name = f"limit-{form}"
    await apply(cluster, aws, name, {**STEPS[form], "timeoutSeconds": 20})
    status = await cluster.until_phase(name, "Failed", "Succeeded", seconds=180)
    assert "time limit of 20 s" in status["message"]
    await nothing_is_lost(aws, name, str(status["steps"]["apply"]["logTail"]))
