"""Keeps the templates and layouts that pools had, as ControllerRevisions. Nothing that runs depends on them."""

from controller import names
from controller.decide.pools.history import history_step
from controller.errors import NotFound
from controller.kube.api import CONTROLLERREVISIONS, Api, Object
from controller.objects.revision import Revision, belongs_to, document, is_orphan, name_of, owner


class History:
    """They are read when a pool's spec changes, and once by each leader: never watched, and not held in memory."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._kept: dict[str, int] = {}
        """By the pool's UID, the generation whose template is known to be kept."""

    def is_kept(self, pool: Object) -> bool:
        """Whether the pool's present template is kept already."""
        return self._kept.get(pool["metadata"]["uid"]) == _generation(pool)

    def forget(self, pool_uid: str) -> None:
        """The pool is gone; its revisions go with it, for it owns them."""
        self._kept.pop(pool_uid, None)

    async def keep(self, pool: Object, limit: int) -> None:
        """Have a revision of the pool's present template, and `limit` others at most."""
        metadata = pool["metadata"]
        namespace = metadata["namespace"]
        step = history_step(await self._revisions(pool), name_of(pool), limit)
        if step.present is None:
            await self._api.create(CONTROLLERREVISIONS, namespace, document(pool, step.number))
        elif step.present.number != step.number:
            body = {"metadata": {"resourceVersion": step.present.resource_version}, "revision": step.number}
            await self._api.patch(CONTROLLERREVISIONS, namespace, step.present.name, body)
        for revision in step.surplus:
            try:
                await self._api.delete(
                    CONTROLLERREVISIONS, namespace, revision.name, resource_version=revision.resource_version
                )
            except NotFound:
                continue
        self._kept[metadata["uid"]] = _generation(pool)

    async def _revisions(self, pool: Object) -> list[Revision]:
        metadata, token = pool["metadata"], ""
        found: list[Revision] = []
        while True:
            page = await self._api.list_page(
                CONTROLLERREVISIONS,
                metadata["namespace"],
                label_selector=f"{names.POOL_LABEL}={metadata['name']}",
                limit=100,
                continue_token=token,
            )
            items = [await self._adopted(pool, obj) for obj in page.get("items") or ()]
            found += [Revision.of(obj) for obj in items if belongs_to(obj, pool)]
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return found

    async def _adopted(self, pool: Object, obj: Object) -> Object:
        """A revision that is nobody's becomes the pool's, as everywhere in Kubernetes: it has the name of ours."""
        if not is_orphan(obj):
            return obj
        metadata = obj["metadata"]
        guard = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        owners = [*(metadata.get("ownerReferences") or ()), owner(pool)]
        body = {"metadata": {**guard, "ownerReferences": owners}}
        return await self._api.patch(CONTROLLERREVISIONS, metadata["namespace"], metadata["name"], body)


def _generation(pool: Object) -> int:
    return int(pool["metadata"].get("generation", 0))
