"""The tables of metric families: each name once, by one rule, with a unit where there is one, and a bounded number."""

import re
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry

from agent.counters import Counters
from agent.http.calls import COUNTED
from controller.app import metrics_of
from metrics import agent_families, controller_families
from metrics.controller import KubernetesRequests
from metrics.exposition import new_registry, render
from metrics.families import UNITS, Buckets, Family, Kind
from metrics.figures import PoolFigures, TaskFigures
from tests.support.promtool import promtool

ALL = (*controller_families.FAMILIES, *agent_families.FAMILIES)

PREFIXES = ("podslots_controller_", "podslots_pool_", "podslots_agent_", "podslots_slot")


def registered(registry: CollectorRegistry) -> dict[str, str]:
    return {family.name: family.type for family in registry.collect()}


def of_the_controller() -> CollectorRegistry:
    registry = CollectorRegistry()
    KubernetesRequests(registry)
    metrics_of(registry, lambda: datetime.now(UTC))
    return registry


def of_the_agent() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counters(registry, COUNTED)
    return registry


def test_what_a_process_registers_is_what_its_table_says() -> None:
    controller = {family.name: family.kind.value for family in controller_families.FAMILIES}
    agent = {family.name: family.kind.value for family in agent_families.FAMILIES}
    assert (registered(of_the_controller()), registered(of_the_agent())) == (controller, agent)


def test_each_name_is_defined_once() -> None:
    names = [family.name for family in ALL]
    assert len(names) == len(set(names))


def test_a_prefix_belongs_to_one_process() -> None:
    of = {
        "controller": {prefix_of(family) for family in controller_families.FAMILIES},
        "agent": {prefix_of(family) for family in agent_families.FAMILIES},
    }
    assert of["controller"] == {"podslots_controller_", "podslots_pool_"}
    assert of["agent"] == {"podslots_agent_", "podslots_slot"}


def prefix_of(family: Family) -> str:
    return next(prefix for prefix in PREFIXES if family.name.startswith(prefix))


@pytest.mark.parametrize("family", ALL, ids=lambda family: family.name)
def test_a_family_is_named_as_prometheus_asks(family: Family) -> None:
    words = family.name.split("_")
    assert re.fullmatch(r"[a-z]+(_[a-z]+)+", family.name)
    assert family.text
    assert not family.name.endswith("_total")
    assert not set(words[:-1]) & set(UNITS), "a unit stands at the end"
    assert bool(family.buckets) is (family.kind is Kind.HISTOGRAM)
    assert not family.buckets or family.unit == "seconds"
    assert set(family.labels) <= CLOSED, "a label that takes what values?"


CLOSED = {
    "namespace", "pool", "state", "class", "type", "phase", "found", "reason", "condition", "result", "how", "step",
    "verb", "resource", "code", "call", "slot", "kind", "change", "version", "python", "cause", "outcome", "error",
}  # fmt: skip
"""Labels whose values are named by enums, tables, or the pool's own spec: its layout has 1 to 16 slots.

One for a task, a Pod or a person is none.
"""


def test_the_fast_buckets_count_as_the_library_does() -> None:
    buckets = Buckets((1.0, 5.0))
    for seconds in (0.5, 1.0, 1.5, 5.0, 5.1, 100.0):
        buckets.observe(seconds)
    assert buckets.cumulative() == [("1.0", 2.0), ("5.0", 4.0), ("+Inf", 6.0)]
    assert buckets.sum == pytest.approx(113.1)


def test_nothing_is_counted_of_a_pool_that_is_not_shown() -> None:
    """As of one that was deleted while its last task ended: its series would come back, and never go."""
    registry = CollectorRegistry()
    pools = metrics_of(registry, lambda: datetime.now(UTC)).pools
    pools.task_written(("default", "gone"), TaskFigures(ended="Succeeded", slot_wait_seconds=1.0))
    pools.drained(("default", "gone"), granted=True)
    pools.decided(("default", "gone"), "Paused")
    pools.show(("default", "here"), EMPTY)
    shown = {sample.labels.get("pool") for family in registry.collect() for sample in family.samples}
    assert shown == {None, "here"}


EMPTY = PoolFigures(desired=0, utilization_ratio=0, queued_tasks=0, blocked_tasks=0, connected_agents=0)


@pytest.mark.parametrize("registry", [of_the_controller, of_the_agent], ids=["controller", "agent"])
def test_promtool_finds_nothing_to_say(registry: Callable[[], CollectorRegistry]) -> None:
    """Of names, helps and types. What real processes show is held to it in the integration tests."""
    body, _ = render(registry(), "")
    assert promtool("check", "metrics", given=body) == (0, "")


def test_the_registry_has_the_processs_own_figures() -> None:
    assert {"process_cpu_seconds", "python_gc_collections"} <= registered(new_registry()).keys()
