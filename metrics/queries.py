"""What a pool asks Prometheus if its user gives no queries of their own, over the families of `agent` and `controller`.

Agents' series are told apart by the labels `namespace` and `pod` of their target, as a PodMonitor sets them. A query's
range keeps what is older out: a plain selector would go on with the last value for five minutes.
"""

UTILIZATION = (
    "sum by (pod) (avg_over_time("
    'podslots_slots{namespace="$namespace", pod=~"$pods", state=~"running|reserved"}[$window]))'
    " / sum by (pod) (avg_over_time("
    'podslots_slots{namespace="$namespace", pod=~"$pods"}[$window]))'
)
"""The share of each Pod's slots that was in use, on average over the window."""

QUEUE = 'max(min_over_time(podslots_pool_queued_tasks{namespace="$namespace", pool="$pool"}[$window]))'
"""How many tasks waited during all of the window: what waits now, the controller knows better by itself."""


def fill_in(query: str, *, namespace: str, pool: str, pods: str, window_seconds: int) -> str:
    """A query with the words `$namespace`, `$pool`, `$pods` and `$window` filled in.

    `pods` is a regular expression for the names of the pool's Pods. Other words with a `$` are left as they are: it
    ends regular expressions, and names groups in `label_replace`.
    """
    words = {"$namespace": namespace, "$pods": pods, "$pool": pool, "$window": f"{window_seconds}s"}
    for word, value in words.items():
        query = query.replace(word, value)
    return query
