"""A pool's PodDisruptionBudget: made, mended whatever somebody did to it, and removed with the pool."""

from typing import Any

import pytest

from controller import names
from controller.act.budgets import Budgets
from controller.errors import NotLeader
from controller.kube.api import BUDGETS, Object
from controller.kube.cache import Cache
from controller.kube.leading import LeadersApi
from controller.objects.disruption import budget, mending, notes
from tests.support.cache_lists import apply_list
from tests.support.memory_api import MemoryApi

NAME = names.disruption_budget("p")


def live(api: MemoryApi) -> Object:
    return api.all(BUDGETS)["ns", NAME]


def budgets_on(api: MemoryApi) -> tuple[Budgets, Cache]:
    cache = Cache(BUDGETS)
    apply_list(cache, api.all(BUDGETS).values(), str(api.version))
    return Budgets(api, cache), cache


async def test_a_missing_budget_is_made_without_an_owner() -> None:
    api = MemoryApi()
    budgets, _ = budgets_on(api)
    assert budgets.needs_work("ns", "p")
    await budgets.ensure("ns", "p")
    assert not budgets.needs_work("ns", "p")
    assert "ownerReferences" not in live(api)["metadata"], "it would go before the Pods that it keeps"
    assert live(api)["spec"] == {
        "minAvailable": 2147483647,
        "selector": {"matchLabels": {"podslots.dev/pool": "p", "podslots.dev/state": "active"}},
    }


async def test_nothing_is_made_before_it_is_known_what_is_there() -> None:
    assert not Budgets(MemoryApi(), Cache(BUDGETS)).needs_work("ns", "p")


DAMAGES: dict[str, dict[str, Any]] = {
    "another number": {"minAvailable": 1},
    "a share": {"minAvailable": None, "maxUnavailable": "100%"},
    "no selector": {"selector": None},
    "a narrower selector": {
        "selector": {
            "matchLabels": {"podslots.dev/pool": "p", "podslots.dev/state": "active", "app": "x"},
            "matchExpressions": [{"key": "app", "operator": "Exists"}],
        }
    },
    "another pool's": {"selector": {"matchLabels": {"podslots.dev/pool": "q"}}},
    "Pods that are not ready let go": {"unhealthyPodEvictionPolicy": "AlwaysAllow"},
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_a_budget_that_somebody_changed_is_mended(damage: dict[str, Any]) -> None:
    api = MemoryApi()
    changed = budget("ns", "p")
    changed["spec"] = {key: value for key, value in {**changed["spec"], **damage}.items() if value is not None}
    api.put(BUDGETS, changed)
    budgets, _ = budgets_on(api)
    assert budgets.needs_work("ns", "p")
    await budgets.ensure("ns", "p")
    assert live(api)["spec"] == budget("ns", "p")["spec"]
    assert not budgets.needs_work("ns", "p")


async def test_one_that_lost_its_label_is_adopted_again() -> None:
    """The cache does not see it then."""
    api = MemoryApi()
    stray = budget("ns", "p")
    stray["metadata"]["labels"] = {"app": "x"}
    api.put(BUDGETS, stray)
    budgets = Budgets(api, cache := Cache(BUDGETS))
    apply_list(cache, [], str(api.version))
    await budgets.ensure("ns", "p")
    assert live(api)["metadata"]["labels"] == {"app": "x", "podslots.dev/pool": "p"}
    assert not budgets.needs_work("ns", "p")


async def test_it_is_removed_and_may_be_gone_already() -> None:
    api = MemoryApi()
    budgets, _ = budgets_on(api)
    await budgets.ensure("ns", "p")
    assert budgets.can_remove("ns", "p")
    api.remove(BUDGETS, "ns", NAME)
    await budgets.remove("ns", "p")
    assert not budgets.can_remove("ns", "p")
    await budgets.ensure("ns", "p")
    await budgets.remove("ns", "p")
    assert not api.all(BUDGETS)


async def test_only_a_leader_writes() -> None:
    def refuse() -> None:
        raise NotLeader("no")

    api = MemoryApi()
    with pytest.raises(NotLeader):
        await Budgets(LeadersApi(api, refuse), Cache(BUDGETS)).ensure("ns", "p")


def test_what_others_add_beside_it_is_left() -> None:
    wanted = budget("ns", "p")
    found = {
        "metadata": {**wanted["metadata"], "labels": {"app": "x", "podslots.dev/pool": "p"}},
        "spec": wanted["spec"],
    }
    assert mending(found, wanted) is None


def test_autoscalers_are_told_by_state() -> None:
    assert notes("active") == {names.SAFE_TO_EVICT: "false", names.DO_NOT_DISRUPT: "true"}
    for state in ("starting", "draining"):
        assert notes(state) == {names.SAFE_TO_EVICT: "true", names.DO_NOT_DISRUPT: None}
