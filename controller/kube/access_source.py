"""The current `Access`, in a process that lives on.

Credentials change while it runs: service account tokens live about an hour and are rewritten in place, exec plugins
hand out tokens that expire, certificates are renewed. So an `Access` is loaded again after `refresh_after_seconds`,
and whenever the server answers 401.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

from controller.errors import ApiUnavailable
from controller.kube.access import MIN_RELOAD_SECONDS, Access, KubeSettings, TlsContexts, load


class AccessSource:
    """The current `Access`, loaded again as it ages."""

    def __init__(self, load: Callable[[], Awaitable[Access]]) -> None:
        self._load = load
        self._lock = asyncio.Lock()
        self._access: Access | None = None
        self._loaded_at = 0.0

    async def current(self) -> Access:
        """The access to use now. A reload that fails leaves the old one in use: it may still be good."""
        loop = asyncio.get_running_loop()
        if (access := self._access) is not None and not self._is_due(access, loop.time()):
            return access
        async with self._lock:
            access = self._access
            if access is None:
                access = self._access = await self._load()
                self._loaded_at = loop.time()
            elif self._is_due(access, loop.time()):
                access = await self._reload(access)
            return access

    async def renew(self, refused: Access) -> Access:
        """Another access than `refused`, if there is one by now."""
        async with self._lock:
            access = self._access
            recent = asyncio.get_running_loop().time() - self._loaded_at < MIN_RELOAD_SECONDS
            if access is None or access is not refused or recent:
                return access or refused
            return await self._reload(access)

    async def _reload(self, old: Access) -> Access:
        self._loaded_at = asyncio.get_running_loop().time()
        try:
            self._access = await self._load()
        except ApiUnavailable:
            return old
        return self._access

    def _is_due(self, access: Access, now: float) -> bool:
        return access.refresh_after_seconds is not None and now - self._loaded_at >= access.refresh_after_seconds


def access_source(settings: KubeSettings, now: Callable[[], datetime]) -> AccessSource:
    """Where `settings` say that access comes from. Nothing is read before the first use.

    A thread reads it: a plugin may take seconds.
    """
    contexts = TlsContexts()
    return AccessSource(lambda: asyncio.to_thread(load, settings, now(), contexts))
