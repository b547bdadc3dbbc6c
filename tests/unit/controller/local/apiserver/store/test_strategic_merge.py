"""Strategic merge patches: what a real server made of those that `kubectl apply` sends for a Deployment's Pods."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from controller.local.apiserver.errors import ApiError
from controller.local.apiserver.store.strategic_merge import merge
from tests.support.transcripts import Scenario

Json = dict[str, Any]


def _recorded() -> list[tuple[Json, Json, Json]]:
    """Pod templates as they were, the patch of each, and what came of it."""
    steps = Scenario("v1.36", "strategic-merge").steps()
    found = []
    before: Json = {}
    for step in steps:
        after = step["response"]["body"]
        if after.get("kind") != "Deployment":
            continue
        patch = step["request"]["body"]
        if before and step["request"]["method"] == "PATCH" and "template" in patch.get("spec", {}):
            parts = (before["spec"], patch["spec"], after["spec"])
            found.append(tuple(part["template"].get("spec", {}) for part in parts))
        before = after
    assert len(found) >= 3
    return found


@pytest.mark.parametrize("index", range(3))
def test_a_pod_template_is_patched_as_recorded(index: int) -> None:
    before, patch, after = _recorded()[index]
    kept = copy.deepcopy(before)
    assert _without_defaults(merge(before, patch, "PodSpec")) == _without_defaults(after)
    assert before == kept, "a patch changes nothing in place"


def _without_defaults(spec: Json) -> Json:
    """Less what the server filled in for what a patch added."""
    added = ("resources", "terminationMessagePath", "terminationMessagePolicy", "imagePullPolicy", "protocol")
    if isinstance(spec, dict):
        return {key: _without_defaults(value) for key, value in spec.items() if key not in added}
    return [_without_defaults(item) for item in spec] if isinstance(spec, list) else spec


def test_retain_keys_drops_what_is_not_named() -> None:
    volumes = [{"name": "v", "emptyDir": {}}]
    patch = {"volumes": [{"$retainKeys": ["name", "secret"], "name": "v", "secret": {"secretName": "s"}}]}
    assert merge({"volumes": volumes}, patch, "PodSpec")["volumes"] == [{"name": "v", "secret": {"secretName": "s"}}]


def test_taints_are_replaced_whole_as_kubectl_taint_sends_them() -> None:
    node = {"spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}}
    assert merge(node, {"spec": {"taints": []}}, "Node")["spec"]["taints"] == []


def test_an_order_alone_moves_the_items_and_the_others_keep_their_place() -> None:
    before = {"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}
    order = {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}]}
    assert [c["name"] for c in merge(before, order, "PodSpec")["containers"]] == ["b", "c", "a"]


def test_the_selector_of_a_budget_is_replaced_whole() -> None:
    old = {"spec": {"selector": {"matchLabels": {"a": "b"}}}}
    new = {"spec": {"selector": {"matchLabels": {"c": "d"}}}}
    assert merge(old, new, "PodDisruptionBudget") == new


def test_an_unknown_directive_is_refused() -> None:
    with pytest.raises(ApiError):
        merge({}, {"$patch": "bogus"}, "Pod")
