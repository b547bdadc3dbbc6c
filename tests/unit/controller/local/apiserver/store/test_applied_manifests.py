"""What a cluster has loaded at its start: made, brought up to date, left alone where nothing differs."""

import random
from datetime import UTC, datetime
from typing import Any

from controller.local.apiserver.store.store import Store

NOW = datetime(2026, 3, 1, tzinfo=UTC)
KEY = "clusterroles.rbac.authorization.k8s.io"


def role(verb: str) -> dict[str, Any]:
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": [verb]}]
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "r"},
        "rules": rules,
    }


def test_an_object_is_made_and_then_brought_up_to_date() -> None:
    store, rng = Store(), random.Random(1)
    assert store.apply(role("get"), now=NOW, rng=rng)
    assert not store.apply(role("get"), now=NOW, rng=rng)
    assert store.apply(role("list"), now=NOW, rng=rng)
    found = store.versions.get(KEY, ("", "r"))
    assert found is not None
    assert found.body["rules"][0]["verbs"] == ["list"]


def test_a_kind_that_is_not_known_here_is_left_out() -> None:
    document = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "p"}, "value": 1}
    assert not Store().apply(document, now=NOW, rng=random.Random(1))
