"""The kubelet's fault switches over HTTP, for tests and `podslots local`.

    GET  /_podslots/kubelet    what the node does
    POST /_podslots/kubelet    {"frozen": bool, "lost": bool, "start_delays": {pattern: seconds},
                                "refuse_pods": {pattern of Pod names: {"reason", "message"}},
                                "fail_starts": {pattern of container names: {"reason", "message"}},
                                "missing_images": [pattern],
                                "kill": {"namespace", "pod", "container", "signal": "SIGKILL"}}
                                each key on its own; a signal other than SIGKILL has to be named

Both with the admin's bearer token.
"""

import hmac
import signal
from typing import Any

import orjson
from aiohttp import web

from controller.local.node.kubelet import Kubelet
from controller.local.node.node_faults import Refusal

PATH = "/_podslots/kubelet"


class KubeletAdmin:
    """A small server of its own: it answers while the API server is made to fail."""

    def __init__(self, kubelet: Kubelet, token: str) -> None:
        self._kubelet = kubelet
        self._token = token
        app = web.Application()
        app.router.add_get(PATH, self._get)
        app.router.add_post(PATH, self._post)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self.url = ""

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        address = self._runner.addresses[0]
        self.url = f"http://{address[0]}:{address[1]}{PATH}"

    async def stop(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _get(self, request: web.Request) -> web.Response:
        self._authorize(request)
        return self._answer(self._kubelet.status())

    async def _post(self, request: web.Request) -> web.Response:
        self._authorize(request)
        try:
            wanted = orjson.loads(await request.read())
            self._apply(wanted)
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise web.HTTPBadRequest(text=f"{error!r}\n") from error
        except LookupError as error:
            raise web.HTTPNotFound(text=f"{error}\n") from error
        return self._answer(self._kubelet.status())

    def _apply(self, wanted: dict[str, Any]) -> None:
        faults = self._kubelet.faults
        if (delays := wanted.get("start_delays")) is not None:
            faults.delay_starts({str(pattern): float(seconds) for pattern, seconds in delays.items()})
        if (refused := wanted.get("refuse_pods")) is not None:
            faults.refuse_pods(_refusals(refused))
        if (failing := wanted.get("fail_starts")) is not None:
            faults.fail_starts(_refusals(failing))
        if (images := wanted.get("missing_images")) is not None:
            faults.miss_images([str(pattern) for pattern in images])
        if wanted.get("frozen") is False or wanted.get("lost") is False:
            faults.thaw()
        if wanted.get("frozen"):
            faults.freeze()
        if wanted.get("lost"):
            faults.lose_node()
        if (target := wanted.get("kill")) is not None:
            number = signal.Signals[target.get("signal", "SIGKILL")]
            self._kubelet.kill(target["namespace"], target["pod"], target["container"], number)

    def _authorize(self, request: web.Request) -> None:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            raise web.HTTPUnauthorized

    def _answer(self, document: dict[str, Any]) -> web.Response:
        return web.Response(body=orjson.dumps(document), content_type="application/json")


def _refusals(document: dict[str, Any]) -> dict[str, Refusal]:
    return {
        str(pattern): Refusal(str(given["reason"]), str(given.get("message", "")))
        for pattern, given in document.items()
    }
