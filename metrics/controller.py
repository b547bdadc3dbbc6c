"""The controller's families. Per-pool series are made at each scrape, so that none outlives its pool."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from metrics.figures import PoolFigures

RECONCILE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""A pass does no I/O: a hundredth of a second is much, even for thousands of Pods."""

_POOL = ("namespace", "pool")


class KubernetesRequests:
    """Counts a controller's calls of the Kubernetes API."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._counter = Counter(
            "podslots_controller_kubernetes_requests",
            "Calls of the Kubernetes API; code none: no answer came",
            ["verb", "resource", "code"],
            registry=registry,
        )

    def observe(self, verb: str, resource: str, code: str) -> None:
        """A call was answered with a code, or got no answer (`none`)."""
        self._counter.labels(verb, resource, code).inc()


class ControllerMetrics(Collector):
    """The families of a controller. `operations` are the kinds of operation, `results` how one can end."""

    def __init__(self, registry: CollectorRegistry, *, operations: Iterable[str], results: Iterable[str]) -> None:
        self.pools: dict[tuple[str, str], PoolFigures] = {}
        self.leader = Gauge("podslots_controller_leader", "Whether this replica leads", registry=registry)
        self.reconcile_seconds = Histogram(
            "podslots_controller_reconcile_duration_seconds",
            "Of one pass over one pool",
            buckets=RECONCILE_SECONDS,
            registry=registry,
        )
        ended = Counter(
            "podslots_controller_operations", "Operations by kind and result", ["kind", "result"], registry=registry
        )
        kinds, endings = tuple(operations), tuple(results)
        self.operations = {(kind, result): ended.labels(kind, result) for kind in kinds for result in endings}
        self.in_flight = Gauge("podslots_controller_operations_in_flight", "Operations under way", registry=registry)
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """The per-pool families."""
        yield self._gauge("podslots_pool_desired_pods", "The size decided on", lambda pool: pool.desired)
        yield self._gauge(
            "podslots_pool_utilization_ratio", "Slots held or asked for, of all", lambda pool: pool.utilization_ratio
        )
        yield self._gauge("podslots_pool_queued_tasks", "Tasks that wait for a slot", lambda pool: pool.queued_tasks)
        yield self._gauge("podslots_pool_blocked_tasks", "Tasks that wait for a lock", lambda pool: pool.blocked_tasks)
        yield self._gauge("podslots_pool_agents_connected", "Agents heard of", lambda pool: pool.connected_agents)
        yield self._by("podslots_pool_pods", "Pods by state", "state", lambda pool: pool.pods)
        yield self._by("podslots_pool_slots", "Slots by state", "state", lambda pool: pool.slots)
        yield self._by("podslots_pool_tasks", "Tasks by phase", "phase", lambda pool: pool.tasks)
        yield self._by(
            "podslots_pool_plans",
            "Tasks by what their plan found, as its exit code said",
            "found",
            lambda pool: pool.plans,
        )
        yield self._gauge(
            "podslots_pool_token_since_timestamp_seconds",
            "When the token in use came into use, in seconds since 1970",
            lambda pool: pool.token_since,
        )
        yield self._by(
            "podslots_pool_token_rotation",
            "How the pool's tokens stand: 1 for the reason of its condition TokensInSync, else 0",
            "reason",
            lambda pool: pool.rotation,
        )

    def _gauge(self, name: str, text: str, value: Callable[[PoolFigures], float | None]) -> Metric:
        family = GaugeMetricFamily(name, text, labels=_POOL)
        for key, pool in self.pools.items():
            if (found := value(pool)) is not None:
                family.add_metric(key, found)
        return family

    def _by(self, name: str, text: str, label: str, values: Callable[[PoolFigures], Mapping[str, int]]) -> Metric:
        family = GaugeMetricFamily(name, text, labels=(*_POOL, label))
        for key, pool in self.pools.items():
            for value, count in values(pool).items():
                family.add_metric((*key, value), count)
        return family
