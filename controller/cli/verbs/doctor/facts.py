"""What the checks rest on, read from the API server once. What may not be read is said so, and hides nothing else."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import yaml

from controller import crds, names
from controller.cli.cluster.session import Connection
from controller.cli.verbs.doctor.findings import Unseen
from controller.cli.verbs.tasks import SELF_REVIEWS
from controller.errors import ApiError, NotFound
from controller.kube.api import (
    ADMISSION_BINDINGS,
    ADMISSION_POLICIES,
    BUDGETS,
    LEASES,
    PODS,
    SECRETS,
    SLOTPOOLS,
    Object,
    Resource,
)

DEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")
PRIORITIES = Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False)
NODE_LEASES = "kube-node-lease"

T = TypeVar("T")
Objects = list[Object] | Unseen


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that was read. `asked` and `answered` are our time around the question that `server_time` answers."""

    version: str | Unseen
    asked: datetime
    answered: datetime
    server_time: datetime | Unseen
    shipped_definitions: list[Object]
    shipped_policies: list[Object]
    definitions: Objects
    policies: Objects
    bindings: Objects
    leader: Object | Unseen | None
    node_leases: Objects
    pools: Objects
    pods: Objects
    secrets: Objects
    budgets: Objects
    quotas: Objects
    priorities: Objects


def gather(connection: Connection, *, controller_namespace: str | None) -> Facts:
    """Read all of it. Without a namespace the controller is looked for where the base installs it, then here."""

    def everywhere(resource: Resource, selector: str = "") -> Objects:
        return _seen(lambda: connection.list_all(resource, everywhere=True, label_selector=selector))

    asked = connection.now()
    server_time = _seen(lambda: _server_time(connection))
    answered = connection.now()
    return Facts(
        version=_seen(connection.api.version),
        asked=asked,
        answered=answered,
        server_time=server_time,
        shipped_definitions=_shipped(crds.folder()),
        shipped_policies=_shipped(crds.policies_folder()),
        definitions=everywhere(DEFINITIONS),
        policies=everywhere(ADMISSION_POLICIES),
        bindings=everywhere(ADMISSION_BINDINGS),
        leader=_seen(lambda: _leader(connection, controller_namespace)),
        node_leases=_seen(lambda: _of_namespace(connection, LEASES, NODE_LEASES)),
        pools=everywhere(SLOTPOOLS),
        pods=everywhere(PODS, names.POOL_LABEL),
        secrets=everywhere(SECRETS, names.POOL_LABEL),
        budgets=everywhere(BUDGETS),
        quotas=everywhere(QUOTAS),
        priorities=everywhere(PRIORITIES),
    )


def _seen(reading: Callable[[], T]) -> T | Unseen:
    try:
        return reading()
    except NotFound:
        return Unseen("this cluster has no such kind", no_such_kind=True)
    except ApiError as error:
        return Unseen(error.message or str(error))


def _server_time(connection: Connection) -> datetime:
    """A review is answered and never stored, with the time of the API server."""
    body: Object = {"apiVersion": SELF_REVIEWS.api_version, "kind": SELF_REVIEWS.kind}
    review = connection.api.create(SELF_REVIEWS, None, body)
    return datetime.fromisoformat(review["metadata"]["creationTimestamp"])


def _leader(connection: Connection, namespace: str | None) -> Object | None:
    for home in (namespace,) if namespace else connection.homes:
        try:
            return connection.api.get(LEASES, home, names.LEADER_LEASE)
        except NotFound:
            continue
    return None


def _of_namespace(connection: Connection, resource: Resource, namespace: str) -> list[Object]:
    items: list[Object] = connection.api.list_page(resource, namespace, limit=500).get("items") or []
    return items


def _shipped(folder: Path) -> list[Object]:
    files = [path for path in sorted(folder.glob("*.yaml")) if path.name != "kustomization.yaml"]
    return [document for path in files for document in yaml.safe_load_all(path.read_text())]
