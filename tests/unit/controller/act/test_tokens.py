"""The token Secret: made once, adopted, mended, and gone only with the pool."""

import asyncio
import base64
import random
from datetime import UTC, datetime
from typing import Any

import pytest

from controller.act.pod_owners import PodOwners
from controller.act.tokens import PoolTokens
from controller.errors import ApiUnavailable, Forbidden, NotFound, NotLeader
from controller.kube.api import PODS, SECRETS, Api, Object, Resource
from controller.kube.cache import Cache
from controller.kube.leading import LeadersApi
from controller.names import CURRENT_TOKEN, POOL_LABEL, TOKENS_FINALIZER, holder_secret, token_secret
from controller.objects.template import TokenSecret
from controller.objects.token_secret import current_token
from tests.support.memory_api import MemoryApi

NAME = token_secret("p")


def tokens_on(api: Api, cache: Cache | None = None, seed: int = 1) -> PoolTokens:
    return PoolTokens(
        api,
        Cache(SECRETS) if cache is None else cache,
        owners=PodOwners(api, Cache(PODS)),
        now=lambda: datetime(2026, 3, 1, tzinfo=UTC),
        random_bytes=random.Random(seed).randbytes,
    )


def live(api: MemoryApi) -> Object:
    return api.all(SECRETS)["ns", NAME]


def data(**values: str) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}


async def test_a_missing_secret_is_made_with_a_finalizer_and_without_owner() -> None:
    api = MemoryApi()
    pool = tokens_on(api)
    token = await pool.ensure("ns", "p")
    secret = live(api)
    assert secret["metadata"]["finalizers"] == [TOKENS_FINALIZER]
    assert secret["metadata"]["labels"] == {POOL_LABEL: "p"}
    assert "ownerReferences" not in secret["metadata"]
    assert base64.b64decode(secret["data"][token.id]).decode() == token.value
    assert len(base64.urlsafe_b64decode(token.value + "=")) == 32
    assert token.id.startswith("t1-")
    assert token.value not in repr(token)
    assert pool.current("ns", "p") == token
    assert pool.usable("ns", "p")


async def test_pods_name_the_secret_that_is_there() -> None:
    api = MemoryApi()
    pool = tokens_on(api)
    with pytest.raises(NotFound):
        pool.secret("ns", "p")
    await pool.ensure("ns", "p")
    assert pool.secret("ns", "p") == TokenSecret(name=NAME, uid=live(api)["metadata"]["uid"])


async def test_ensuring_again_writes_nothing() -> None:
    api = MemoryApi()
    first = await tokens_on(api).ensure("ns", "p")
    version = api.version
    assert await tokens_on(api, seed=2).ensure("ns", "p") == first
    assert api.version == version


async def test_two_replicas_that_make_it_at_once_agree_on_one_token() -> None:
    api = MemoryApi()

    async def slowly(verb: str, resource: Resource, name: str) -> None:
        del verb, resource, name
        await asyncio.sleep(0)

    api.before = api.after = slowly
    found = await asyncio.gather(*(tokens_on(api, seed=seed).ensure("ns", "p") for seed in range(5)))
    assert len(set(found)) == 1
    assert len(live(api)["data"]) == 1


async def test_a_creation_whose_answer_was_lost_is_found() -> None:
    api = MemoryApi()

    async def lose(verb: str, resource: Resource, name: str) -> None:
        del resource, name
        if verb == "create":
            raise ApiUnavailable("lost")

    api.after = lose
    with pytest.raises(ApiUnavailable):
        await tokens_on(api).ensure("ns", "p")
    token = await tokens_on(api, seed=9).ensure("ns", "p")
    assert list(live(api)["data"]) == [token.id]


@pytest.mark.parametrize(
    ("metadata", "content", "expected"),
    [
        ({}, data(**{"own-1": "made-by-hand-0123456789"}), "own-1"),
        ({"annotations": {CURRENT_TOKEN: "gone"}}, data(**{"t2-aa": "x" * 20, "t10-bb": "y" * 20}), "t10-bb"),
        ({"annotations": {CURRENT_TOKEN: "read-a"}}, data(**{"read-a": "x" * 20, "a": "y" * 20}), "a"),
        ({"finalizers": ["other"], "labels": {"a": "b"}}, data(**{"t1-a": "x" * 20}), "t1-a"),
    ],
)
async def test_a_secret_that_is_there_is_adopted_with_the_tokens_it_has(
    metadata: dict[str, Any], content: dict[str, str], expected: str
) -> None:
    """Its tokens are in the agents' hands: none is replaced."""
    api = MemoryApi()
    api.put(SECRETS, {"metadata": {"name": NAME, "namespace": "ns", **metadata}, "data": content})
    token = await tokens_on(api).ensure("ns", "p")
    assert token.id == expected
    secret = live(api)
    assert secret["data"] == content
    assert TOKENS_FINALIZER in secret["metadata"]["finalizers"]
    assert set(metadata.get("finalizers", ())) <= set(secret["metadata"]["finalizers"])
    assert set(metadata.get("labels", {})) <= set(secret["metadata"]["labels"])
    assert secret["metadata"]["labels"][POOL_LABEL] == "p"


@pytest.mark.parametrize(
    "content", [{}, data(short="abc"), {"t1-a": "%%%"}, data(**{"..data": "x" * 30}), data(**{"read-a": "x" * 30})]
)
async def test_a_secret_without_a_usable_token_gets_a_new_one(content: dict[str, str]) -> None:
    api = MemoryApi()
    api.put(SECRETS, {"metadata": {"name": NAME, "namespace": "ns"}, "data": content})
    token = await tokens_on(api).ensure("ns", "p")
    assert token.id not in content
    assert current_token(live(api)) == token


async def test_a_token_that_somebody_removed_is_used_until_there_is_another_but_not_put_back() -> None:
    """Agents follow their mounts within minutes; whoever removed it may have had a good reason."""
    api = MemoryApi()
    cache = Cache(SECRETS)
    pool = tokens_on(api, cache)
    first = await pool.ensure("ns", "p")
    secret = live(api)
    cache.note(api.put(SECRETS, {**secret, "data": {}}))
    assert not pool.usable("ns", "p")
    assert pool.current("ns", "p") == first
    second = await pool.ensure("ns", "p")
    assert second.id != first.id
    assert list(live(api)["data"]) == [second.id]
    assert pool.value("ns", "p") == second.value


async def test_a_secret_that_somebody_deletes_is_made_again_with_the_same_tokens() -> None:
    """Agents keep what was mounted: they never notice."""
    api = MemoryApi()
    pool = tokens_on(api)
    first = await pool.ensure("ns", "p")
    before = live(api)
    before["data"]["read-prometheus"] = base64.b64encode(b"r" * 20).decode()
    api.put(SECRETS, before)
    await pool.ensure("ns", "p")
    await api.delete(SECRETS, "ns", NAME)
    assert await pool.ensure("ns", "p") == first
    after = live(api)
    assert "deletionTimestamp" not in after["metadata"]
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["data"] == before["data"]
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"]
    assert pool.uid("ns", "p") == after["metadata"]["uid"]


async def test_a_removal_that_ends_late_takes_nothing_from_the_next_pool_of_the_name() -> None:
    """The next one's Secret was seen before the removal of the last one's had its answer."""
    api, cache = MemoryApi(), Cache(SECRETS)
    replica = tokens_on(api, cache)
    await replica.ensure("ns", "p")

    async def be_late(verb: str, resource: Resource, name: str) -> None:
        del verb, resource
        if name == holder_secret("p"):
            api.before = api.after = nothing
            await tokens_on(api, seed=7).ensure("ns", "p")
            cache.note(live(api))

    async def nothing(verb: str, resource: Resource, name: str) -> None:
        del verb, resource, name

    api.before = api.after = be_late
    await replica.remove("ns", "p")
    assert api.all(SECRETS), "the next one is there"
    assert replica.current("ns", "p") == current_token(live(api))


async def test_so_is_one_that_vanished_though_another_replica_made_it() -> None:
    api, cache = MemoryApi(), Cache(SECRETS)
    standby = tokens_on(api, cache, seed=2)
    first = await tokens_on(api).ensure("ns", "p")
    cache.note(live(api))
    api.remove(SECRETS, "ns", NAME)
    assert await standby.ensure("ns", "p") == first


def add_pod(api: MemoryApi, *owners: str) -> None:
    references = [{"kind": kind, "name": kind, "uid": uid} for kind, uid in (owner.split("/") for owner in owners)]
    api.put(
        PODS, {"metadata": {"name": "a", "namespace": "ns", "labels": {POOL_LABEL: "p"}, "ownerReferences": references}}
    )


async def test_whatever_moment_it_stops_at_a_pod_has_an_owner_that_stays() -> None:
    """While the Secret is made again: its pool may be deleted at any moment."""
    api = MemoryApi()
    pool = tokens_on(api)
    await pool.ensure("ns", "p")
    add_pod(api, "SlotPool/pool", f"Secret/{live(api)['metadata']['uid']}")
    await api.delete(SECRETS, "ns", NAME)
    bare: list[str] = []

    async def look(verb: str, resource: Resource, name: str) -> None:
        del resource, name
        there = {secret["metadata"]["uid"] for secret in api.all(SECRETS).values()}
        (pod,) = api.all(PODS).values()
        if not any(owner["uid"] in there for owner in pod["metadata"]["ownerReferences"]):
            bare.append(verb)

    api.before = api.after = look
    await pool.ensure("ns", "p")
    owners = PodOwners(api, Cache(PODS))
    await owners.drop_holder("ns", "p")
    assert len(api.all(SECRETS)) == 2, "it is still needed"
    (pod,) = api.all(PODS).values()
    await owners.set("ns", "a", pod["metadata"]["uid"], pool.secret("ns", "p"))
    await owners.drop_holder("ns", "p")
    assert not bare
    (pod,) = api.all(PODS).values()
    assert [owner["uid"] for owner in pod["metadata"]["ownerReferences"]] == ["pool", pool.uid("ns", "p")]
    assert list(api.all(SECRETS)) == [("ns", NAME)]


async def test_the_holder_gives_way_to_no_secret_that_is_gone() -> None:
    """A cache may still have the one of before."""
    api = MemoryApi()
    pool = tokens_on(api)
    await pool.ensure("ns", "p")
    add_pod(api, "SlotPool/pool", "Secret/holder")
    owners, stale = PodOwners(api, Cache(PODS)), pool.secret("ns", "p")
    (pod,) = api.all(PODS).values()
    api.remove(SECRETS, "ns", NAME)
    await owners.set("ns", "a", pod["metadata"]["uid"], stale)
    (pod,) = api.all(PODS).values()
    assert [owner["uid"] for owner in pod["metadata"]["ownerReferences"]] == ["pool", "holder"]


async def test_a_secret_that_could_not_be_made_again_is_not_let_go_of() -> None:
    """As in a namespace that is being deleted: its Pods need the tokens to the end."""
    api = MemoryApi()
    pool = tokens_on(api)
    first = await pool.ensure("ns", "p")
    add_pod(api)
    await api.delete(SECRETS, "ns", NAME)

    async def refuse(verb: str, resource: Resource, name: str) -> None:
        del resource, name
        if verb == "create":
            raise Forbidden(403, "Forbidden", "unable to create new content in namespace ns: it is being terminated")

    api.before = refuse
    with pytest.raises(Forbidden):
        await pool.ensure("ns", "p")
    assert live(api)["metadata"]["finalizers"] == [TOKENS_FINALIZER]
    assert pool.current("ns", "p") == first


async def test_a_new_pool_of_the_name_has_nothing_of_the_one_before() -> None:
    api = MemoryApi()
    pool = tokens_on(api)
    first = await pool.ensure("ns", "p")
    await pool.remove("ns", "p")
    assert (await pool.ensure("ns", "p")).value != first.value


@pytest.mark.parametrize("interrupted_at", range(5))
async def test_removal_leaves_nothing_and_can_be_interrupted_anywhere(interrupted_at: int) -> None:
    """T30."""
    api = MemoryApi()
    pool = tokens_on(api)
    await pool.ensure("ns", "p")
    left = interrupted_at

    async def cut(verb: str, resource: Resource, name: str) -> None:
        nonlocal left
        del verb, resource, name
        if left == 0:
            left = -1
            raise ApiUnavailable("cut")
        left -= 1

    api.before = cut
    try:
        await pool.remove("ns", "p")
    except ApiUnavailable:
        await tokens_on(api).remove("ns", "p")
    left = -1
    assert api.all(SECRETS) == {}
    await pool.remove("ns", "p")


async def test_removal_keeps_other_peoples_finalizers() -> None:
    api = MemoryApi()
    pool = tokens_on(api)
    await pool.ensure("ns", "p")
    secret = live(api)
    secret["metadata"]["finalizers"] = ["other", TOKENS_FINALIZER]
    api.put(SECRETS, secret)
    await pool.remove("ns", "p")
    assert live(api)["metadata"]["finalizers"] == ["other"]


async def test_what_waits_for_other_peoples_finalizers_is_not_removed_again_and_again() -> None:
    """Each try ended well and woke its pool, which tried anew: a dozen requests a second for ever."""
    api, cache = MemoryApi(), Cache(SECRETS)
    pool = tokens_on(api, cache)
    assert not pool.can_remove("ns", "p")
    await pool.ensure("ns", "p")
    cache.note(live(api))
    assert pool.can_remove("ns", "p")
    deleted = {**live(api)["metadata"], "deletionTimestamp": "2026-03-01T12:00:00Z"}
    for finalizers, can in ((["other", TOKENS_FINALIZER], True), (["other"], False)):
        cache.note(api.put(SECRETS, {**live(api), "metadata": {**deleted, "finalizers": finalizers}}))
        assert pool.can_remove("ns", "p") is can


async def test_a_replica_that_does_not_lead_writes_nothing() -> None:
    def refused() -> None:
        raise NotLeader("no")

    api = MemoryApi()
    pool = tokens_on(LeadersApi(api, refused))
    with pytest.raises(NotLeader):
        await pool.ensure("ns", "p")
    assert api.all(SECRETS) == {}
