"""The embedded cluster as a whole: an API server and a node on one state folder.

DIR/lock          held while a process runs the cluster      DIR/cluster.json  port and tokens, mode 0600
DIR/api/          the API server's objects                   DIR/node/         the kubelet's Pods
DIR/audit.jsonl   what was asked of the API server           DIR/kubeconfig*   one per user, and one with all
"""

import asyncio
import errno
import os
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from controller.local import certificates, cluster_state
from controller.local.apiserver.server import ApiServer
from controller.local.certificates import Certificates
from controller.local.cluster_state import NODE_CONTEXT, PEOPLE, SCHEDULER_CONTEXT, SCHEDULER_USER, Identity
from controller.local.node.config import KubeletConfig
from controller.local.node.kubelet import Kubelet
from controller.local.node.kubelet_admin import KubeletAdmin


@dataclass(frozen=True)
class ClusterConfig:
    """How a cluster runs. A port of 0 means the one it had last, else any free one."""

    state_dir: Path
    port: int = 0
    crds: Path | None = None
    policies: Path | None = None
    roles: Path | None = None
    evictions: bool = False  # serve lifecycle.k8s.io/v1alpha1, as Kubernetes 1.37 does when told to
    tls: bool = True  # without it kubectl sends no token
    kubeconfig: Path | None = None  # where to write one besides the state folder's own
    kubelet: KubeletConfig = field(default_factory=KubeletConfig)


class LocalCluster:
    """A running cluster. `start`, then `stop`; or kill the process at any moment and start again on the folder."""

    def __init__(self, config: ClusterConfig, *, now: Callable[[], datetime], rng: random.Random) -> None:
        self.config = config
        self.kubelet = Kubelet(config.kubelet, config.state_dir / "node", now=now, rng=rng)
        self._now = now
        self._rng = rng
        self._exit = AsyncExitStack()
        self._identity = Identity(0, {})
        self._certificates: Certificates | None = None
        self.server: ApiServer | None = None
        self.admin: KubeletAdmin | None = None

    async def start(self) -> None:
        """Come up, with all that was there before. Raises AlreadyRunningError or NetworkTakenError."""
        try:
            await self._start()
        except BaseException:
            await self._exit.aclose()
            raise

    async def _start(self) -> None:
        folder = self.config.state_dir
        self._exit.callback(os.close, cluster_state.lock(folder))
        node_user = f"system:node:{self.config.kubelet.node_name}"
        names = {**PEOPLE, NODE_CONTEXT: node_user, SCHEDULER_CONTEXT: SCHEDULER_USER}
        self._identity = cluster_state.load(folder, list(names), self._rng)
        tokens = self._identity.tokens
        cluster_state.save(folder, self._identity)
        if self.config.tls:
            self._certificates = certificates.load(folder / "pki", self._now())
        self.server = await self._serve({tokens[context]: user for context, user in names.items()})
        port = int(self.server.url.rpartition(":")[2])
        cluster_state.save(folder, Identity(port, tokens))
        self._write_kubeconfigs()
        self._exit.push_async_callback(self._stop_kubelet_loops)
        tls = self._certificates.client_context() if self._certificates else None
        await self.kubelet.start(
            self.server.url, token=tokens[NODE_CONTEXT], scheduler_token=tokens[SCHEDULER_CONTEXT], tls=tls
        )
        self.admin = KubeletAdmin(self.kubelet, tokens["admin"])
        await self.admin.start()
        self._exit.push_async_callback(self.admin.stop)

    async def stop(self, *, keep_pods: bool = False) -> None:
        """Go down. By default nothing is left running; the objects stay, and a new start runs their Pods again."""
        await self.kubelet.stop(keep_pods=keep_pods)
        await self._exit.aclose()

    @property
    def url(self) -> str:
        """The API server's URL."""
        if self.server is None:
            raise RuntimeError("the cluster has not been started")
        return self.server.url

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig with all contexts."""
        return self.config.kubeconfig or self.config.state_dir / "kubeconfig"

    def token(self, context: str) -> str:
        """The token of a context: admin, podslots-controller or demo."""
        return self._identity.tokens[context]

    async def _serve(self, users: dict[str, str]) -> ApiServer:
        """Listen where clients knew us; where others listen by now, anywhere."""
        folder = self.config.state_dir
        wanted = self.config.port or self._identity.port
        tls = self._certificates.server_context() if self._certificates else None
        for port in dict.fromkeys((wanted, self.config.port)):
            server = ApiServer(
                folder / "api",
                users=users,
                collect_pods=True,
                now=self._now,
                rng=self._rng,
                audit_path=folder / "audit.jsonl",
                crds=self.config.crds,
                policies=self.config.policies,
                roles=self.config.roles,
                evictions=self.config.evictions,
                log_source=self.kubelet.log_source,
            )
            try:
                await server.start("127.0.0.1", port, tls=tls)
            except OSError as error:
                await server.stop()
                if error.errno != errno.EADDRINUSE or port == self.config.port:
                    raise
            else:
                self._exit.push_async_callback(server.stop)
                return server
        raise AssertionError("unreachable: the last port either serves or raises")

    def _write_kubeconfigs(self) -> None:
        folder = self.config.state_dir
        tokens = {context: self.token(context) for context in PEOPLE}
        ca = self._certificates.ca.read_bytes() if self._certificates else None
        everything = cluster_state.kubeconfig(self.url, tokens, "admin", ca=ca)
        for path in {folder / "kubeconfig", self.kubeconfig}:
            cluster_state.write_private(path, everything)
        for context, token in tokens.items():
            text = cluster_state.kubeconfig(self.url, {context: token}, context, ca=ca)
            cluster_state.write_private(folder / f"kubeconfig-{context}", text)

    async def _stop_kubelet_loops(self) -> None:
        """After a stop: nothing. After a start that failed half way: what it had begun."""
        await self.kubelet.stop(keep_pods=True)


async def run_until(cluster: LocalCluster, stopping: asyncio.Future[Any]) -> None:
    """Return when asked to stop; raise if the kubelet fails."""
    failed = asyncio.create_task(cluster.kubelet.wait_failed(), name="watch the kubelet")
    await asyncio.wait({stopping, failed}, return_when=asyncio.FIRST_COMPLETED)
    if not failed.done():
        failed.cancel()
        await asyncio.wait({failed})
    else:
        failed.result()
