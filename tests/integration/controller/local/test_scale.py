"""The scale subresource of a pool: `kubectl scale` patches it."""

from typing import Any

import yaml

from controller.crds import folder
from tests.support.api_client import ApiClient, running_server, until

Json = dict[str, Any]

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
POOLS = "/apis/podslots.dev/v1alpha1/namespaces/default/slotpools"
SCALE = f"{POOLS}/p/scale"
TEMPLATE: Json = {"spec": {"containers": [{"name": "worker", "image": "i"}]}}


async def serve_pools(client: ApiClient) -> None:
    await client.post(CRDS, yaml.safe_load((folder() / "slotpools.yaml").read_text()))

    async def served() -> bool:
        return (await client.send("GET", POOLS)).status == 200

    await until(served)


async def scale(client: ApiClient, size: int) -> int:
    body = {"spec": {"replicas": size}}
    return (await client.send("PATCH", SCALE, body, content_type="application/merge-patch+json")).status


async def test_kubectl_scale_works_while_a_pool_is_paused_and_never_while_autoscaling_decides() -> None:
    spec: Json = {
        "autoscaling": {"maxReplicas": 5},
        "template": {"spec": {"containers": [{"name": "worker", "image": "i"}]}},
    }
    async with running_server() as (_, client):
        await serve_pools(client)
        await client.post(POOLS, {"apiVersion": "podslots.dev/v1alpha1", "kind": "SlotPool"} | named("p", spec))
        assert await scale(client, 2) == 422
        await client.merge(f"{POOLS}/p", {"spec": {"autoscaling": {"paused": True}}})
        assert await scale(client, 2) == 200
        assert (await client.get(SCALE))["spec"] == {"replicas": 2}
        await client.merge(f"{POOLS}/p", {"spec": {"autoscaling": {"paused": False}}})
        assert await scale(client, 3) == 422


async def test_a_pool_without_a_size_has_no_scale_to_read() -> None:
    """A real server answers so where the field has neither value nor default; a patch that sets it is taken."""
    async with running_server() as (_, client):
        await serve_pools(client)
        spec: Json = {"template": TEMPLATE}
        await client.post(POOLS, {"apiVersion": "podslots.dev/v1alpha1", "kind": "SlotPool"} | named("p", spec))
        answer = await client.send("GET", SCALE)
        assert (answer.status, answer.body["reason"]) == (500, "InternalError")
        assert 'the spec replicas field ".spec.replicas" does not exist' in answer.body["message"]
        empty = await client.send("PATCH", SCALE, {"metadata": {}}, content_type="application/merge-patch+json")
        assert empty.status == 400
        assert await scale(client, 1) == 200
        assert (await client.get(SCALE))["spec"] == {"replicas": 1}


def named(name: str, spec: Json) -> Json:
    return {"metadata": {"name": name}, "spec": spec}
