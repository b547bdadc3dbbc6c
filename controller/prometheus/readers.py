"""Reads the signals of pools, each again and again, for as long as a leader wants them.

The last answers stay until there are newer ones: how long they are good for is for `decide.signal` to say.
"""

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from controller import names
from controller.agents.tls import make_context
from controller.decide.reading import Reading
from controller.decide.scaling.signal import POLL_SECONDS
from controller.errors import ApiError, ApiUnavailable, SignalError
from controller.kube.api import SECRETS, Api
from controller.objects.signal import Signal, SignalTls
from controller.prometheus.client import Ask, Server
from metrics.queries import QUEUE, UTILIZATION, fill_in

log = logging.getLogger(__name__)

Key = tuple[str, str]


@dataclass(slots=True)
class _Reader:
    signal: Signal
    task: "asyncio.Task[None]"
    reading: Reading


class Readers:
    """One reader for each pool that scales by a Prometheus."""

    def __init__(
        self, api: Api, ask: Ask | None, *, now: Callable[[], datetime], on_change: Callable[[Key], None]
    ) -> None:
        """`on_change(pool)` is called after each try to read a pool's signal."""
        self._api = api
        self._ask = ask
        self._now = now
        self._on_change = on_change
        self._readers: dict[Key, _Reader] = {}

    def want(self, key: Key, signal: Signal | None) -> Reading | None:
        """Read this signal for a pool from now on, or none. Returns what is known of it."""
        known = self._readers.get(key)
        if known is not None and known.signal != signal:
            self._stop(key)
            known = None
        if signal is None:
            return None
        if known is None:
            task = asyncio.get_running_loop().create_task(self._read(key, signal), name=f"signal of {'/'.join(key)}")
            known = self._readers[key] = _Reader(signal, task, Reading())
        return known.reading

    def forget_all(self) -> None:
        """Another one leads now."""
        for key in list(self._readers):
            self._stop(key)

    async def run(self) -> None:
        """Own the readers until cancelled."""
        try:
            await asyncio.Event().wait()
        finally:
            tasks = [reader.task for reader in self._readers.values()]
            self.forget_all()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _stop(self, key: Key) -> None:
        self._readers.pop(key).task.cancel()

    async def _read(self, key: Key, signal: Signal) -> None:
        while True:
            try:
                reading = await self._once(key, signal)
            except SignalError as error:
                reading = replace(self._readers[key].reading, error=str(error))
            except Exception:
                log.exception("a signal can't be read", extra={"pool": "/".join(key)})
                reading = replace(self._readers[key].reading, error="it can't be read: see the controller's log")
            self._readers[key].reading = reading
            self._on_change(key)
            await asyncio.sleep(POLL_SECONDS)

    async def _once(self, key: Key, signal: Signal) -> Reading:
        if self._ask is None:
            raise SignalError("this controller asks no Prometheus")
        server = await self._server(key[0], signal)
        utilization = await self._ask(server, _query(key, signal, signal.utilization_query or UTILIZATION))
        queue = await self._ask(server, _query(key, signal, signal.queue_query or QUEUE))
        return Reading(taken=self._now(), utilization=utilization, queue=queue)

    async def _server(self, namespace: str, signal: Signal) -> Server:
        """Where to ask; Secrets are read each time, so that what is renewed is used at once."""
        token = None
        if signal.token_secret is not None:
            data = await self._secret(namespace, signal.token_secret)
            if not data.get("token"):
                raise SignalError(f"Secret {signal.token_secret} lacks token")
            token = data["token"].decode("ascii", "replace").strip()
        if signal.tls is None:
            return Server(url=signal.url, token=token)
        return await self._secured(namespace, signal.url, token, signal.tls)

    async def _secured(self, namespace: str, url: str, token: str | None, tls: SignalTls) -> Server:
        data = await self._secret(namespace, tls.secret)
        if not data.get("ca.crt"):
            raise SignalError(f"Secret {tls.secret} lacks ca.crt")
        certificate, private_key = data.get("tls.crt"), data.get("tls.key")
        client = certificate.rstrip() + b"\n" + private_key if certificate and private_key else None
        try:
            context = make_context(data["ca.crt"], client)
        except OSError as error:
            raise SignalError(f"Secret {tls.secret} can't be used: {error}") from error
        return Server(url=url, token=token, context=context, server_name=tls.server_name)

    async def _secret(self, namespace: str, name: str) -> dict[str, bytes]:
        try:
            secret = await self._api.get(SECRETS, namespace, name)
            return {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}
        except (ApiError, ApiUnavailable) as error:
            raise SignalError(f"Secret {name}: {error}") from error
        except binascii.Error as error:
            raise SignalError(f"Secret {name} is not base64") from error


def _query(key: Key, signal: Signal, query: str) -> str:
    namespace, pool = key
    return fill_in(
        query, namespace=namespace, pool=pool, pods=names.pods_pattern(pool), window_seconds=signal.window_seconds
    )
