"""Leaving a cluster that is others' too as it was found."""

from __future__ import annotations

from typing import Any

from tests.support.api_client import MERGE, ApiClient, until

Json = dict[str, Any]


async def remove_namespace(client: ApiClient, namespace: str, *, also: tuple[str, ...] = ()) -> None:
    """Delete a namespace with all that is in it, and wait until it is gone.

    No kubelet confirms the end of Pods that are bound to nodes which don't exist, and no controller takes finalizers
    off that a test has set. `also` are paths of collections in it, besides Pods and ConfigMaps.
    """
    home = f"/api/v1/namespaces/{namespace}"
    for path in (f"{home}/pods", f"{home}/configmaps", *also):
        found = await client.send("GET", path)
        for item in found.body.get("items") or () if found.status == 200 else ():
            one = f"{path}/{item['metadata']['name']}"
            if item["metadata"].get("finalizers"):
                await client.send("PATCH", one, {"metadata": {"finalizers": None}}, content_type=MERGE)
            await client.send("DELETE", f"{one}?gracePeriodSeconds=0")
    await client.send("DELETE", home)

    async def gone() -> bool:
        return (await client.send("GET", home)).status == 404

    await until(gone, seconds=120)


async def remove(client: ApiClient, path: str) -> None:
    """Delete one object that stands in no namespace, and wait until it is gone."""
    await client.send("DELETE", path)

    async def gone() -> bool:
        return (await client.send("GET", path)).status == 404

    await until(gone, seconds=120)
