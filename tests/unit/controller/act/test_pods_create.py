"""A Pod that the API server does not take: tried again where the outcome is unknown, and said in the server's words."""

import random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from controller import names
from controller.act.pods import Pods
from controller.act.pools import Images, Pools
from controller.errors import ApiUnavailable, Conflict, Forbidden, Invalid
from controller.kube.api import PODS, Object, Resource
from controller.kube.cache import Cache
from tests.support import virtual_time
from tests.support.memory_api import MemoryApi

POD: Object = {"metadata": {"name": "p-7xk2m", "namespace": "ns", "labels": {names.POOL_LABEL: "pool"}}}
POOL: Object = {"metadata": {"name": "pool", "namespace": "ns", "uid": "u"}}
WEBHOOK = '500 InternalError: Internal error occurred: failed calling webhook "sidecar.example.com": connection refused'


def pods_on(api: MemoryApi) -> Pods:
    return Pods(api, Cache(PODS), rng=random.Random(1))


def test_what_a_server_error_says_is_said_after_the_last_try() -> None:
    """An admission webhook that is down refuses every Pod with a 500."""

    async def webhook(verb: str, resource: Resource, name: str) -> None:
        del resource, name
        if verb == "create":
            raise ApiUnavailable(WEBHOOK, code=500)

    api = MemoryApi()
    api.before = webhook
    with pytest.raises(ApiUnavailable, match=r"creating Pod p.*sidecar\.example\.com") as failed:
        virtual_time.run(lambda: pods_on(api).create(POD))
    assert failed.value.code == 500
    assert len([call for call in api.calls if call[0] == "create"]) > 1


def test_a_create_whose_answer_was_lost_is_found_by_its_name() -> None:
    async def lost(verb: str, resource: Resource, name: str) -> None:
        del resource, name
        if verb == "create" and not lost_once:
            lost_once.append(True)
            raise ApiUnavailable("no answer in time")

    lost_once: list[bool] = []
    api = MemoryApi()
    api.after = lost
    created = virtual_time.run(lambda: pods_on(api).create(POD))
    assert created["metadata"]["uid"] == api.objects[PODS, "ns", "p-7xk2m"]["metadata"]["uid"]


def pools_with(create: Any, told: list[str], **parts: Any) -> Pools:
    none = dict.fromkeys(("api", "cache", "owners", "budgets", "deployments", "tokens"), cast("Any", None))
    given = {**none, **parts}
    events = SimpleNamespace(event=lambda _pool, reason, message, **_: told.append(f"{reason}: {message}"))
    pods = cast("Any", SimpleNamespace(create=create))
    return Pools(**given, pods=pods, events=cast("Any", events), images=Images(agent="agent:1"))


@pytest.mark.parametrize("code", [500, None])
async def test_a_server_error_stands_in_the_pools_conditions_and_silence_does_not(code: int | None) -> None:
    async def create(pod: Object) -> Object:
        raise ApiUnavailable(f"creating Pod {pod['metadata']['name']}: {WEBHOOK}", code=code)

    told: list[str] = []
    pools = pools_with(create, told)
    with pytest.raises(ApiUnavailable):
        await pools.create_pod(POOL, POD)
    problem = pools.create_problem(POOL)
    if code is None:
        assert problem is None
        assert told == []
    else:
        assert problem is not None
        assert problem.reason == "FailedCreate"
        assert "sidecar.example.com" in problem.message
        assert "sidecar.example.com" in told[0]


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (Forbidden(403, "Forbidden", WEBHOOK), 1),
        (Invalid(422, "Invalid", WEBHOOK), 1),
        (Conflict(409, "Conflict", WEBHOOK), 2),
        (ApiUnavailable(WEBHOOK, code=500), 2),
        (ApiUnavailable(WEBHOOK, code=None), 2),
    ],
)
async def test_why_there_is_no_budget_is_said_until_there_is_one(error: Exception, tries: int) -> None:
    """A webhook that fails answers with a 500, or late: the pool read as protected, and nothing refused evictions."""
    there: list[bool] = []

    async def ensure(*_: str) -> None:
        raise error

    pools = pools_with(None, [], budgets=SimpleNamespace(ensure=ensure, needs_work=lambda *_: not there))
    for number in range(1, tries + 1):
        with pytest.raises(type(error)):
            await pools.keep_budget(POOL)
        assert (pools.budget_problem(POOL) is not None) is (number == tries)
    assert "sidecar.example.com" in str(pools.budget_problem(POOL))
    there.append(True)  # somebody else made it
    assert pools.budget_problem(POOL) is None


async def test_that_a_webhook_changes_the_budget_as_it_is_written_is_said() -> None:
    """Each write succeeds, and the budget is never as it should be: Pods would wait for it for ever."""

    async def ensure(*_: str) -> None:
        pass

    pools = pools_with(None, [], budgets=SimpleNamespace(ensure=ensure, needs_work=lambda *_: True))
    assert pools.budget_problem(POOL) is None
    await pools.keep_budget(POOL)
    assert "changes its PodDisruptionBudget" in str(pools.budget_problem(POOL))


async def test_a_refusal_is_the_same_words_for_each_pod() -> None:
    """Each try has a new name: with it every one was a new Event, and a new message of the condition."""
    tried: list[str] = []

    async def create(pod: Object) -> Object:
        tried.append(pod["metadata"]["name"])
        raise Forbidden(403, "Forbidden", f'pods "{tried[-1]}" is forbidden: exceeded quota: pods')

    told: list[str] = []
    pools = pools_with(create, told)
    for name in ("p-abcde", "p-fghij"):
        with pytest.raises(Forbidden):
            await pools.create_pod(POOL, {**POD, "metadata": {**POD["metadata"], "name": name}})
    problem = pools.create_problem(POOL)
    assert tried == ["p-abcde", "p-fghij"]
    assert problem is not None
    assert problem.message == '403 Forbidden: pods "…" is forbidden: exceeded quota: pods'
    assert told[0] == told[1]


async def test_what_a_limit_range_added_is_said() -> None:
    """The kubelet evicts a Pod that exceeds a limit of ephemeral storage, whatever it holds, and asks no budget."""
    limits = {"limits": {"cpu": "1", "ephemeral-storage": "2Gi"}}
    containers = [
        {"name": "worker-0", "resources": limits},
        {"name": "worker-1", "resources": {"limits": {"cpu": "1"}}},
    ]

    async def create(pod: Object) -> Object:
        return {**pod, "spec": {"containers": containers, "volumes": [{"name": "v", "emptyDir": {}}]}}

    told: list[str] = []
    await pools_with(create, told).create_pod(POOL, POD)
    assert told[0].startswith("PodsEndangered: Kubernetes may end Pods that have work")
    assert told[0].endswith(": limit of ephemeral-storage of container worker-0")
    assert told[1].startswith("SuccessfulCreate")
    del containers[0]
    told.clear()
    await pools_with(create, told).create_pod(POOL, POD)
    assert [text.partition(":")[0] for text in told] == ["SuccessfulCreate"]
