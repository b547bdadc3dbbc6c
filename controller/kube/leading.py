"""The Kubernetes API for writes of a leader: each asks first whether this replica may write, and can't forget to."""

from collections.abc import AsyncIterator, Callable

from controller.kube.api import Api, Object, Resource


class LeadersApi:
    """An `Api` whose writes raise NotLeader unless this replica leads: `may_write` is asked before each."""

    def __init__(self, api: Api, may_write: Callable[[], None]) -> None:
        self._api = api
        self._may_write = may_write

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """As `Api.get`."""
        return await self._api.get(resource, namespace, name)

    async def list_page(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        label_selector: str = "",
        limit: int = 500,
        continue_token: str = "",
    ) -> Object:
        """As `Api.list_page`."""
        return await self._api.list_page(
            resource, namespace, label_selector=label_selector, limit=limit, continue_token=continue_token
        )

    def watch(
        self, resource: Resource, namespace: str | None, *, resource_version: str, label_selector: str = ""
    ) -> AsyncIterator[Object]:
        """As `Api.watch`."""
        return self._api.watch(resource, namespace, resource_version=resource_version, label_selector=label_selector)

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        """As `Api.create`. Raises NotLeader."""
        self._may_write()
        return await self._api.create(resource, namespace, body)

    async def replace(
        self, resource: Resource, namespace: str | None, name: str, body: Object, *, subresource: str = ""
    ) -> Object:
        """As `Api.replace`. Raises NotLeader."""
        self._may_write()
        return await self._api.replace(resource, namespace, name, body, subresource=subresource)

    async def patch(
        self, resource: Resource, namespace: str | None, name: str, body: Object, *, subresource: str = ""
    ) -> Object:
        """As `Api.patch`. Raises NotLeader."""
        self._may_write()
        return await self._api.patch(resource, namespace, name, body, subresource=subresource)

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_period_seconds: int | None = None,
    ) -> Object:
        """As `Api.delete`. Raises NotLeader."""
        self._may_write()
        return await self._api.delete(
            resource,
            namespace,
            name,
            uid=uid,
            resource_version=resource_version,
            grace_period_seconds=grace_period_seconds,
        )
