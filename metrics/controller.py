"""The controller's families as they are kept."""

import platform
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry

from metrics import controller_families as families
from metrics.pools import PoolLabels, PoolMetrics


class KubernetesRequests:
    """Counts a controller's calls of the Kubernetes API."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._counter = families.KUBERNETES_REQUESTS.counter(registry)

    def observe(self, verb: str, resource: str, code: str) -> None:
        """A call was answered with a code, or got no answer (`none`)."""
        self._counter.labels(verb, resource, code).inc()


class ControllerMetrics:
    """The families of a controller, but for its calls of the Kubernetes API: the client is made before it.

    `operations` are the kinds of operation, `results` how one can end. `now` is the wall clock, in seconds since 1970.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        version: str,
        operations: Iterable[str],
        results: Iterable[str],
        pools: PoolLabels,
        now: Callable[[], float],
    ) -> None:
        families.BUILD_INFO.gauge(registry).labels(version, platform.python_version()).set(1)
        self.leader = families.LEADER.gauge(registry)
        changes = families.LEADERSHIP_CHANGES.counter(registry)
        self._gained, self._lost = changes.labels("gained"), changes.labels("lost")
        self.reconcile_seconds = families.RECONCILE_DURATION.histogram(registry)
        passes = families.PASSES.counter(registry)
        self._done, self._broken = passes.labels("done"), passes.labels("broken")
        ended = families.OPERATIONS.counter(registry)
        kinds, endings = tuple(operations), tuple(results)
        self.operations = {(kind, result): ended.labels(kind, result) for kind in kinds for result in endings}
        self.in_flight = families.OPERATIONS_IN_FLIGHT.gauge(registry)
        self._agent_requests = families.AGENT_REQUESTS.counter(registry)
        self.pools = PoolMetrics(registry, pools, now)

    def leads(self, leading: bool) -> None:
        """Leadership began, or ended."""
        (self._gained if leading else self._lost).inc()

    def passed(self, seconds: float, *, broken: bool) -> None:
        """A pass over a pool is over."""
        self.reconcile_seconds.observe(seconds)
        (self._broken if broken else self._done).inc()

    def agent_asked(self, call: str, code: str) -> None:
        """An agent answered a call with a code, or did not (`none`)."""
        self._agent_requests.labels(call, code).inc()
