"""Pieces of PromQL that the panels share. `$cluster`, `$namespace`, `$pool` and `$pod` are variables of a dashboard.

Only the replica that leads shows pools. While another takes over, two show one for some seconds: gauges are taken by
their maximum, and what is counted is added up.
"""

IN_CLUSTER = 'cluster=~"$cluster"'
IN_POOL = f'{IN_CLUSTER}, namespace=~"$namespace", pool=~"$pool"'
IN_POD = f'{IN_POOL}, pod=~"$pod"'

BY_POOL = "cluster, namespace, pool"
"""What tells pools apart. `cluster` is not there in a Prometheus of one cluster, and then changes nothing."""
BY_STATE = f"{BY_POOL}, state"
IN_USE = 'state=~"running|reserved"'
RESERVED = 'state="reserved"'

RATE = "$__rate_interval"
RANGE = "$__range"
"""All that the dashboard shows."""
HOUR = "1h"
"""For what happens a few times an hour: within a minute there is mostly nothing to take a quantile of."""


def shown(metric: str, where: str = IN_POOL, more: str = "") -> str:
    """The series of a metric that the variables choose, and that match `more`."""
    return f"{metric}{{{where}{', ' if more else ''}{more}}}"


def gauge(metric: str, by: str = BY_POOL, more: str = "") -> str:
    """A gauge of pools, one value for each set of the labels `by`."""
    return f"max by ({by}) ({shown(metric, more=more)})"


def total(metric: str, more: str = "", labels: str = BY_POOL, by: str = "") -> str:
    """A gauge over pools: the sum of what is told apart by `labels`, for each set of the labels `by`."""
    return f"sum by ({by}) ({gauge(metric, labels, more)})" if by else f"sum({gauge(metric, labels, more)})"


def counted(metric: str, by: str, where: str = IN_POOL, more: str = "", window: str = RATE) -> str:
    """How often something has happened within a window."""
    return f"sum by ({by}) (increase({shown(metric, where, more)}[{window}]))"


def per_second(metric: str, by: str, where: str = IN_POOL, more: str = "") -> str:
    """How often something happens in a second."""
    return f"sum by ({by}) (rate({shown(metric, where, more)}[{RATE}]))"


def quantile(share: float, metric: str, *, by: str = "", where: str = IN_POOL, window: str = RATE) -> str:
    """A quantile of a histogram's values within a window."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({shown(f'{metric}_bucket', where)}[{window}])))"
