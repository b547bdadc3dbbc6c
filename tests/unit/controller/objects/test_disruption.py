"""A Pod names the controller as who is asked before it is evicted, and its template's hash does not tell."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from controller import names
from controller.act.pools import ClusterTraits, Images, Pools
from controller.objects.disruption import name_responder
from controller.objects.pool import PoolSpec
from controller.objects.template import TokenSecret
from tests.support.pools import TEMPLATE

OURS = {"name": "podslots.dev/slots", "priority": 10_000}
THEIRS = {"name": "example.org/backup", "priority": 20_000}
POOL = {"metadata": {"namespace": "ns", "name": "pool", "uid": "u", "resourceVersion": "1"}}


def made(*, answers: bool = False, ipv6: bool = False) -> dict[str, Any]:
    """A new Pod of a pool."""
    stub = SimpleNamespace(secret=lambda *_: TokenSecret(name="s", uid="u"), new_name=lambda pool: f"{pool}-1")
    given = dict.fromkeys(("api", "cache", "owners", "budgets", "events", "deployments"), cast("Any", None))
    pools = Pools(
        **given,
        pods=cast("Any", stub),
        tokens=cast("Any", stub),
        images=Images(agent="agent:1"),
        traits=ClusterTraits(answers_evictions=lambda: answers, ipv6=ipv6),
    )
    return pools.new_pod(POOL, PoolSpec(template=TEMPLATE))


def urls(pod: dict[str, Any]) -> list[str]:
    variables = [entry for container in pod["spec"]["containers"] for entry in container["env"]]
    return [entry["value"] for entry in variables if entry["name"] == "PODSLOTS_URL"]


def test_where_evictions_are_answered_a_pod_says_so_and_its_hash_is_the_same() -> None:
    with_it, without = made(answers=True), made(answers=False)
    assert with_it["spec"].pop("evictionResponders") == [OURS]
    assert with_it == without
    assert names.TEMPLATE_HASH in without["metadata"]["annotations"]


def test_where_pods_have_ipv6_addresses_the_agents_url_is_one_and_the_hash_is_the_same() -> None:
    """Kubernetes puts the address into PODSLOTS_URL as it is: `http://fd00::7:8721` is no URL."""
    six, four = made(ipv6=True), made()
    assert urls(four) == ["http://$(PODSLOTS_POD_IP):8721"] * 3
    assert urls(six) == ["http://[$(PODSLOTS_POD_IP)]:8721"] * 3
    assert six["metadata"] == four["metadata"]


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
