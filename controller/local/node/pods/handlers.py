"""Carrying out probe and lifecycle handlers: commands, HTTP requests, connections, sleeps."""

import asyncio
from collections.abc import Mapping

import aiohttp

from controller.local.node.pods.containers import Attempt
from controller.local.node.pods.environment import PathRewriter
from controller.local.node.pods.pod_spec import Exec, HttpGet, Sleep, TcpSocket
from controller.local.node.pods.probes import Answer
from controller.unreached import why_unreached

_LEAST_FAILURE_STATUS = 400


class _UnknownPort(Exception):
    """A handler names a port that the container does not have."""


class ContainerHandlers:
    """Carries out the handlers of one run of a container."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        attempt: Attempt,
        *,
        pod_ip: str,
        ports: Mapping[str, int],
        paths: PathRewriter,
    ) -> None:
        self._http = http
        self._attempt = attempt
        self._pod_ip = pod_ip
        self._ports = ports
        self._paths = paths

    async def ask(self, handler: object, timeout_seconds: float) -> Answer:
        """Carry out one handler; an answer in any case."""
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._carry_out(handler, timeout_seconds)
        except TimeoutError:
            return Answer(False, f"timed out after {timeout_seconds:g} s")
        except (OSError, aiohttp.ClientError) as error:
            return Answer(False, why_unreached(error))
        except _UnknownPort as error:
            return Answer(False, str(error))

    async def _carry_out(self, handler: object, timeout_seconds: float) -> Answer:
        match handler:
            case Exec(command):
                result = await self._attempt.execute(self._paths.argv(command), timeout_seconds=timeout_seconds)
                if result.exit_code is None:
                    return Answer(False, f"command timed out after {timeout_seconds:g} s")
                detail = f"command exited with {result.exit_code}: {result.output}"
                return Answer(result.exit_code == 0, detail)
            case HttpGet(host, port, path, scheme, headers):
                url = f"{scheme}://{host or self._pod_ip}:{self._port(port)}{path}"
                # As the kubelet, no verification: a certificate proves nothing here, the address is the container's.
                async with self._http.get(url, headers=dict(headers), ssl=False, allow_redirects=False) as response:
                    return Answer(response.status < _LEAST_FAILURE_STATUS, f"HTTP status {response.status}")
            case TcpSocket(host, port):
                _, writer = await asyncio.open_connection(host or self._pod_ip, self._port(port))
                writer.close()
                await writer.wait_closed()
                return Answer(True)
            case Sleep(seconds):
                await asyncio.sleep(seconds)
                return Answer(True)
            case _:
                return Answer(False, f"unknown handler {handler}")

    def _port(self, port: int | str) -> int:
        if isinstance(port, int) or port.isdigit():
            return int(port)
        if port not in self._ports:
            raise _UnknownPort(f"no port named {port}")
        return self._ports[port]
