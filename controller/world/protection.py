"""What is known of the policies that keep others from active Pods: read now and then, for they seldom change."""

import asyncio
import logging
from collections.abc import Callable

from controller.decide.pools.protection import Finding, finding, not_readable, not_served
from controller.errors import ApiError, ApiUnavailable, Forbidden, NotFound
from controller.kube.api import ADMISSION_BINDINGS, ADMISSION_POLICIES, Api, Object, Resource

log = logging.getLogger(__name__)

PERIOD_SECONDS = 60.0


class Protection:
    """Reads the policies, and says when something is different."""

    def __init__(self, api: Api, on_change: Callable[[], None]) -> None:
        self._api = api
        self._on_change = on_change
        self.found: Finding | None = None
        """None: not looked yet."""

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await asyncio.sleep(PERIOD_SECONDS)

    async def look(self) -> None:
        """Look once. While the API server can't be reached, what was known stays."""
        try:
            found = finding(await self._all(ADMISSION_POLICIES), await self._all(ADMISSION_BINDINGS))
        except NotFound:
            found = not_served()
        except Forbidden as error:
            found = not_readable(str(error))
        except (ApiError, ApiUnavailable):
            return
        if found == self.found:
            return
        self.found = found
        if not found.protected:
            log.warning("pods are not protected", extra={"reason": found.reason, "because": found.message})
        self._on_change()

    async def _all(self, resource: Resource) -> list[Object]:
        items: list[Object] = []
        token = ""
        while True:
            page = await self._api.list_page(resource, None, continue_token=token)
            items += page.get("items") or []
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return items
