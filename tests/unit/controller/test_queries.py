"""The default queries: the words in them are filled in, and the families they name exist."""

import re
from datetime import UTC, datetime

from agent.wire import SlotState
from controller.app import metrics_of
from metrics.agent import AgentMetrics
from metrics.exposition import new_registry, render
from metrics.figures import PoolFigures
from metrics.queries import QUEUE, UTILIZATION, fill_in


def filled(query: str) -> str:
    return fill_in(query, namespace="ns", pool="pool", pods="pool-[a-z]{3}", window_seconds=90)


def test_no_word_is_left_and_none_is_mistaken_for_another() -> None:
    for query in (UTILIZATION, QUEUE):
        assert "$" not in filled(query)
    assert filled("$pods $pool $namespace [$window]") == "pool-[a-z]{3} pool ns [90s]"
    assert filled('label_replace(x, "pod", "$1", "y", "(.*)$")') == 'label_replace(x, "pod", "$1", "y", "(.*)$")'


def test_the_families_and_labels_of_the_default_queries_are_exposed() -> None:
    registry = new_registry()
    AgentMetrics(
        registry,
        version="1",
        slot_states=SlotState,
        events=(),
        outcomes=(),
        steps=(),
        calls=(),
        errors=(),
        record_kinds=(),
    )
    pools = metrics_of(registry, lambda: datetime.now(UTC)).pools
    nothing = PoolFigures(desired=0, utilization_ratio=0, queued_tasks=0, blocked_tasks=0, connected_agents=0)
    pools.show(("ns", "pool"), nothing)
    exposed = render(registry, "text/plain")[0].decode()
    for state in re.findall(r'state=~"([a-z|]+)"', UTILIZATION)[0].split("|"):
        assert f'\npodslots_slots{{state="{state}"}}' in exposed
    assert '\npodslots_pool_queued_tasks{namespace="ns",pool="pool"}' in exposed
