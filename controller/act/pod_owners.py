"""The second owner of Pods, besides their pool: the pool's token Secret, or a holder Secret while that is made again.

The garbage collector deletes an object once all of its owners are gone, or are being deleted with what they own. A
token Secret that somebody deleted can only be made again, under its name, when the old one is gone; so Pods have
another owner that stays meanwhile: a Secret without content.
"""

from typing import Any

from controller import names
from controller.errors import AlreadyExists, NotFound
from controller.kube.api import PODS, SECRETS, Api, Object
from controller.kube.cache import Cache
from controller.objects.template import TokenSecret, secret_owner

_PAGE = 500


class PodOwners:
    """Writes the owners of a pool's Pods. Every call reads them live, and can be repeated."""

    def __init__(self, api: Api, pods: Cache) -> None:
        self._api = api
        self._pods = pods

    async def hold(self, namespace: str, pool: str) -> None:
        """Make the holder an owner of every Pod. Without Pods no holder is made."""
        pods = await self._list(namespace, pool)
        if not pods:
            return
        holder = await self._holder(namespace, pool)
        for pod in pods:
            owners = pod["metadata"].get("ownerReferences") or []
            if all(owner["uid"] != holder.uid for owner in owners):
                await self._write(pod, [*owners, secret_owner(holder)])

    async def set(self, namespace: str, name: str, uid: str, secret: TokenSecret) -> None:
        """Make the token Secret the second owner of a Pod. It replaces the previous Secret and the holder.

        Read live after the Pod, the Secret must still be that one, to stay: the holder gives way to nothing less. One
        that goes later moves the Pod's version first, by `hold`.
        """
        try:
            pod = await self._api.get(PODS, namespace, name)
        except NotFound:
            self._pods.note_gone(namespace, name, uid)
            return
        self._pods.note(pod)
        if pod["metadata"]["uid"] != uid or not await self._stays(namespace, secret):
            return
        others = [owner for owner in pod["metadata"].get("ownerReferences") or () if owner.get("kind") != "Secret"]
        await self._write(pod, [*others, secret_owner(secret)])

    async def _stays(self, namespace: str, secret: TokenSecret) -> bool:
        try:
            metadata = (await self._api.get(SECRETS, namespace, secret.name))["metadata"]
        except NotFound:
            return False
        # One that is being deleted stays as long as our finalizer does.
        return metadata["uid"] == secret.uid and names.TOKENS_FINALIZER in (metadata.get("finalizers") or ())

    async def drop_holder(self, namespace: str, pool: str) -> None:
        """Delete the holder, if no Pod needs it any more."""
        try:
            holder = (await self._api.get(SECRETS, namespace, names.holder_secret(pool)))["metadata"]
        except NotFound:
            return
        for pod in await self._list(namespace, pool):
            if any(owner["uid"] == holder["uid"] for owner in pod["metadata"].get("ownerReferences") or ()):
                return
        await self._api.delete(SECRETS, namespace, holder["name"], uid=holder["uid"])

    async def _holder(self, namespace: str, pool: str) -> TokenSecret:
        name = names.holder_secret(pool)
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace, "labels": {names.POOL_LABEL: pool}},
            "type": "Opaque",
        }
        try:
            found = await self._api.create(SECRETS, namespace, body)
        except AlreadyExists:
            found = await self._api.get(SECRETS, namespace, name)
        return TokenSecret(name=name, uid=found["metadata"]["uid"])

    async def _list(self, namespace: str, pool: str) -> list[Object]:
        found: list[Object] = []
        token = ""
        while True:
            page = await self._api.list_page(
                PODS, namespace, label_selector=f"{names.POOL_LABEL}={pool}", limit=_PAGE, continue_token=token
            )
            found.extend(page.get("items") or ())
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return found

    async def _write(self, pod: Object, owners: list[Any]) -> None:
        metadata = pod["metadata"]
        guard = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        patch = {"metadata": {**guard, "ownerReferences": owners}}
        try:
            self._pods.note(await self._api.patch(PODS, metadata["namespace"], metadata["name"], patch))
        except NotFound:
            self._pods.note_gone(metadata["namespace"], metadata["name"], metadata["uid"])
