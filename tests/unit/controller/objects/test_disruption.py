"""A Pod names the controller as who is asked before it is evicted, and its template's hash does not tell."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from controller import names
from controller.act.pools import Images, Pools
from controller.objects.disruption import name_responder
from controller.objects.pool import PoolSpec
from controller.objects.template import TokenSecret
from tests.support.pools import TEMPLATE

OURS = {"name": "podslots.dev/slots", "priority": 10_000}
THEIRS = {"name": "example.org/backup", "priority": 20_000}
POOL = {"metadata": {"namespace": "ns", "name": "pool", "uid": "u", "resourceVersion": "1"}}


def made(*, answers: bool) -> dict[str, Any]:
    """A new Pod of a pool."""
    stub = SimpleNamespace(secret=lambda *_: TokenSecret(name="s", uid="u"), new_name=lambda pool: f"{pool}-1")
    given = dict.fromkeys(("api", "cache", "owners", "budgets", "events", "deployments"), cast("Any", None))
    pools = Pools(
        **given,
        pods=cast("Any", stub),
        tokens=cast("Any", stub),
        images=Images(agent="agent:1"),
        answers_evictions=lambda: answers,
    )
    return pools.new_pod(POOL, PoolSpec(template=TEMPLATE))


def test_where_evictions_are_answered_a_pod_says_so_and_its_hash_is_the_same() -> None:
    with_it, without = made(answers=True), made(answers=False)
    assert with_it["spec"].pop("evictionResponders") == [OURS]
    assert with_it == without
    assert names.TEMPLATE_HASH in without["metadata"]["annotations"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"evictionResponders": [OURS]}),
        ({"evictionResponders": None}, {"evictionResponders": [OURS]}),
        ({"evictionResponders": [THEIRS]}, {"evictionResponders": [THEIRS, OURS]}),
        ({"evictionResponders": [{**OURS, "priority": 5}]}, {"evictionResponders": [{**OURS, "priority": 5}]}),
        ({"schedulingGroup": {}}, {"schedulingGroup": {}}),
    ],
    ids=["nobody", "nobody, in so many words", "others", "us already", "a scheduling group, which can't be evicted so"],
)
def test_it_is_named_beside_those_of_the_template(given: dict[str, Any], expected: dict[str, Any]) -> None:
    spec = dict(given)
    name_responder(spec)
    assert spec == expected
