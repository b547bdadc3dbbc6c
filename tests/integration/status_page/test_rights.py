"""Who may read is the API server's to say: the controller asks with the rights of its role, about the shipped roles."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import aiohttp
import yaml
from aiohttp.test_utils import TestServer

from controller import names
from controller.kube.access import KubeSettings
from controller.kube.client import connect
from controller.status_page.access import Reviewer
from controller.status_page.server import create_app
from tests.support.api_client import TOKEN, ApiClient, running_server
from tests.support.repository import ROOT
from tests.support.status_site import Site

RBAC = "/apis/rbac.authorization.k8s.io/v1"
PROMETHEUS = "system:serviceaccount:monitoring:prometheus"
USERS = {
    TOKEN: "admin",
    "controllers-token": names.CONTROLLER_USER,
    "prometheus-token": PROMETHEUS,
    "anna-token": "anna",
    "eve-token": "eve",
}
PATHS = ("/", "/api/v1/status", "/api/v1/pods", "/metrics")


async def bind(client: ApiClient, role: str, user: str) -> None:
    group = "rbac.authorization.k8s.io"
    body = {
        "metadata": {"name": f"{role}-{user.rpartition(':')[2]}"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    }
    await client.post(f"{RBAC}/clusterrolebindings", body)


@asynccontextmanager
async def served() -> AsyncIterator[tuple[ApiClient, str]]:
    """The API server's client, and where a replica serves that takes tokens for everything."""
    async with running_server(users=USERS, enforce_rbac=True) as (server, client):
        for file in ("controller", "readers"):
            for document in yaml.safe_load_all((ROOT / f"manifests/base/rbac/{file}.yaml").read_text()):
                if document["kind"] == "ClusterRole":
                    await client.post(f"{RBAC}/clusterroles", document)
        settings = KubeSettings(server=server.url, token="controllers-token")
        site = Site(PODSLOTS_HTTP_GUARDED="all", PODSLOTS_HTTP_TRUST_LOOPBACK="false")
        async with connect(settings, lambda: datetime.now(UTC)) as api:
            test_server = TestServer(create_app(site.controller, site.registry, site.config, Reviewer(api)))
            await test_server.start_server()
            try:
                yield client, str(test_server.make_url(""))
            finally:
                await test_server.close()


async def statuses(url: str, token: str) -> list[int]:
    """Of each path, for whoever has this token."""
    found = []
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
        for path in PATHS:
            async with session.get(url + path) as answer:
                found.append(answer.status)
    return found


async def test_each_role_reads_what_it_is_for() -> None:
    async with served() as (client, url):
        await bind(client, "podslots-controller", names.CONTROLLER_USER)
        await bind(client, "podslots-metrics-reader", PROMETHEUS)
        await bind(client, "podslots-status-reader", "anna")
        assert await statuses(url, "anna-token") == [200, 200, 200, 200]
        assert await statuses(url, "prometheus-token") == [403, 403, 403, 200]
        assert await statuses(url, "eve-token") == [403] * 4
        assert await statuses(url, "nobodys-token") == [401] * 4


async def test_a_controller_that_may_not_ask_lets_nobody_in() -> None:
    """As in the overlay for one namespace."""
    async with served() as (client, url):
        await bind(client, "podslots-status-reader", "anna")
        assert await statuses(url, "anna-token") == [503] * 4
