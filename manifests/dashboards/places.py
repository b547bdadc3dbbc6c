"""The dashboards' identifiers, their addresses with a pool or a Pod chosen, and the variables they share."""

from collections.abc import Sequence

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import VariableModel

from manifests.dashboards.panels import address, choice, datasource
from manifests.dashboards.queries import IN_CLUSTER, shown

FLEET = "podslots-fleet"
POOL = "podslots-pool"
SLOTS = "podslots-slots"
APPROVALS = "podslots-approvals"

THE_POOL = address(POOL, "cluster", namespace="${__data.fields.namespace}", pool="${__data.fields.pool}")
"""Of a row of a table. The cluster stays as chosen: a Prometheus of one cluster has no such column to take it from."""
THE_POD = address(SLOTS, "cluster", "namespace", "pool", pod="${__data.fields.pod}")
THE_APPROVALS = address(APPROVALS, "cluster", "namespace", "pool")


def of_pools(*, one: bool = False) -> Sequence[Builder[VariableModel]]:
    """Prometheus, clusters, namespaces and pools: any number of them, or one pool."""
    some = "podslots_pool_desired_pods"
    within = shown(some, f'{IN_CLUSTER}, namespace=~"$namespace"')
    return (
        datasource(),
        choice("cluster", some, several=not one),
        choice("namespace", shown(some, IN_CLUSTER), several=not one, everything=not one),
        choice("pool", within, several=not one, everything=not one),
    )
