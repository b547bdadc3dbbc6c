"""Templates and layouts of a pool are kept as ControllerRevisions that it owns."""

import asyncio
from typing import Any

from controller.act.history import History
from controller.kube.api import CONTROLLERREVISIONS, Object
from tests.support.memory_api import MemoryApi


def pool(image: str, *, generation: int = 1, uid: str = "u", slots: int = 1) -> Object:
    return {
        "metadata": {"namespace": "ns", "name": "p", "uid": uid, "generation": generation},
        "spec": {
            "template": {"spec": {"containers": [{"name": "worker", "image": image}]}},
            "slots": [{"accepts": ["plan"]}] * slots,
            "autoscaling": {"maxReplicas": 3},
        },
    }


def kept(api: MemoryApi) -> dict[int, Any]:
    """Image and number of slots by the revision's number."""
    found = {}
    for (resource, _, _), obj in api.objects.items():
        assert resource == CONTROLLERREVISIONS
        data = obj["data"]
        assert set(data) == {"template", "slots"}
        found[obj["revision"]] = (data["template"]["spec"]["containers"][0]["image"], len(data["slots"]))
    return found


def keep(api: MemoryApi, *pools: Object, limit: int = 5) -> History:
    history = History(api)
    for each in pools:
        asyncio.run(history.keep(each, limit))
    return history


def test_each_template_and_each_layout_is_kept_and_belongs_to_its_pool() -> None:
    api = MemoryApi()
    keep(api, pool("a"), pool("b"), pool("b", slots=2), pool("b", slots=2))
    assert kept(api) == {1: ("a", 1), 2: ("b", 1), 3: ("b", 2)}
    for obj in api.objects.values():
        (owner,) = obj["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("SlotPool", "u", True)
        assert obj["metadata"]["labels"] == {"podslots.dev/pool": "p"}


def test_a_template_that_comes_back_is_the_latest() -> None:
    api = MemoryApi()
    keep(api, pool("a"), pool("b"), pool("a"))
    assert kept(api) == {2: ("b", 1), 3: ("a", 1)}


def test_no_more_are_kept_than_asked_for_beside_the_present_one() -> None:
    api = MemoryApi()
    keep(api, *(pool(image) for image in "abcde"), limit=2)
    assert kept(api) == {3: ("c", 1), 4: ("d", 1), 5: ("e", 1)}


def test_revisions_that_a_pool_left_without_an_owner_are_the_next_ones() -> None:
    """`kubectl delete slotpool --cascade=orphan`: else they are nobody's, and in the way under the same name."""
    api = MemoryApi()
    keep(api, pool("a"), pool("b"))
    for place, obj in list(api.objects.items()):
        api.objects[place] = {**obj, "metadata": {**obj["metadata"], "ownerReferences": []}}
    keep(api, pool("b", uid="next"))
    assert kept(api) == {1: ("a", 1), 2: ("b", 1)}
    assert {obj["metadata"]["ownerReferences"][0]["uid"] for obj in api.objects.values()} == {"next"}


def test_revisions_of_another_pool_stay_as_they_are() -> None:
    """Those of an earlier pool of the name, too: the garbage collector has them."""
    api = MemoryApi()
    keep(api, pool("a"))
    keep(api, pool("b", uid="next"))
    assert sorted(obj["metadata"]["ownerReferences"][0]["uid"] for obj in api.objects.values()) == ["next", "u"]


def test_it_is_looked_at_again_when_the_spec_changes() -> None:
    history = keep(MemoryApi(), pool("a"))
    assert history.is_kept(pool("a"))
    assert not history.is_kept(pool("a", generation=2))
    assert not history.is_kept(pool("a", uid="another"))
    history.forget("u")
    assert not history.is_kept(pool("a"))
