"""What a cache takes in, and what it refuses to forget."""

from typing import Any

from controller.kube.api import PODS
from controller.kube.cache import Cache
from controller.names import POOL_LABEL
from tests.support.cache_lists import apply_list

Object = dict[str, Any]


def pod(name: str, version: int, *, uid: str = "", pool: str | None = "p", **status: Any) -> Object:
    metadata: Object = {"name": name, "namespace": "ns", "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    if pool is not None:
        metadata["labels"] = {POOL_LABEL: pool}
    return {"metadata": metadata, "status": status}


def uid_of(obj: Object | None) -> str | None:
    return obj["metadata"]["uid"] if obj else None


def pool_of(obj: Object | None) -> str | None:
    return obj["metadata"]["labels"][POOL_LABEL] if obj else None


def names(cache: Cache) -> list[str]:
    return sorted(obj["metadata"]["name"] for obj in cache.items())


def test_a_created_pod_that_was_noted_survives_a_list_from_before_it() -> None:
    """A3: creates are remembered until the watch shows them."""
    cache = Cache(PODS)
    cache.note(pod("a", 12))
    apply_list(cache, [], "11")
    assert names(cache) == ["a"]
    apply_list(cache, [], "13")
    assert names(cache) == []


def test_what_a_newer_list_lacks_is_gone_and_what_failed_to_list_is_not() -> None:
    cache = Cache(PODS)
    assert not cache.synced
    apply_list(cache, [pod("a", 5), pod("b", 6)], "10")
    assert cache.synced
    apply_list(cache, [pod("b", 6)], "11")
    assert names(cache) == ["b"]
    final = cache.final("uid-a")
    assert final is not None
    assert not final.seen


def test_an_older_version_never_replaces_a_newer_one_and_tells_nobody() -> None:
    cache = Cache(PODS)
    told: list[tuple[Object | None, Object | None]] = []
    cache.subscribe(lambda old, new: told.append((old, new)))
    cache.note(pod("a", 100, phase="Running"))
    cache.note(pod("a", 99, phase="Pending"))
    cache.note(pod("a", 100, phase="Pending"))
    assert cache.get("ns", "a") == pod("a", 100, phase="Running")
    assert len(told) == 1


def test_versions_are_compared_as_numbers() -> None:
    cache = Cache(PODS)
    cache.note(pod("a", 9, phase="Pending"))
    cache.note(pod("a", 10, phase="Running"))
    found = cache.get("ns", "a")
    assert found is not None
    assert found["status"]["phase"] == "Running"


def test_a_deleted_event_hands_the_final_object_to_subscribers() -> None:
    cache = Cache(PODS)
    told: list[tuple[Object | None, Object | None]] = []
    cache.note(pod("a", 5, phase="Running"))
    cache.subscribe(lambda old, new: told.append((old, new)))
    last = pod("a", 9, phase="Failed")
    cache.apply_deleted(last)
    assert told == [(last, None)]
    final = cache.final("uid-a")
    assert final is not None
    assert final.object == last
    assert final.seen


def test_the_final_object_counts_even_if_the_removal_was_noticed_before_it_came() -> None:
    cache = Cache(PODS)
    cache.note(pod("a", 5, phase="Running"))
    cache.note_gone("ns", "a", "uid-a")
    cache.apply_deleted(pod("a", 9, phase="Failed"))
    final = cache.final("uid-a")
    assert final is not None
    assert final.seen
    assert final.object["status"]["phase"] == "Failed"


def test_repeated_events_of_a_deleted_object_do_not_bring_it_back() -> None:
    cache = Cache(PODS)
    cache.apply_deleted(pod("a", 9))
    cache.note(pod("a", 5))
    cache.note(pod("a", 8))
    assert names(cache) == []


def test_an_object_that_matches_the_selector_again_comes_back() -> None:
    cache = Cache(PODS)
    cache.note(pod("a", 5))
    cache.apply_deleted(pod("a", 6))
    cache.note(pod("a", 7))
    assert names(cache) == ["a"]


def test_an_old_deletion_does_not_take_what_is_known_to_match_again() -> None:
    cache = Cache(PODS)
    cache.note(pod("a", 7))
    cache.apply_deleted(pod("a", 6))
    assert names(cache) == ["a"]


def test_a_new_object_of_the_same_name_replaces_the_old_one() -> None:
    cache = Cache(PODS)
    told: list[tuple[str | None, str | None]] = []
    cache.subscribe(lambda old, new: told.append((uid_of(old), uid_of(new))))
    cache.note(pod("a", 5, uid="one"))
    cache.note(pod("a", 8, uid="two"))
    cache.apply_deleted(pod("a", 7, uid="one"))
    assert told == [(None, "one"), ("one", None), (None, "two")]
    assert [obj["metadata"]["uid"] for obj in cache.items()] == ["two"]


def test_a_delete_answered_with_a_status_removes_that_very_object() -> None:
    cache = Cache(PODS)
    cache.note(pod("a", 5, uid="two"))
    cache.note_deleted("ns", "a", {"kind": "Status", "details": {"uid": "one"}})
    assert names(cache) == ["a"]
    cache.note_deleted("ns", "a", {"kind": "Status", "details": {"uid": "two"}})
    assert names(cache) == []


def test_a_delete_answered_with_the_object_leaves_it_until_its_event() -> None:
    cache = Cache(PODS)
    cache.note(pod("a", 5))
    answer = pod("a", 6)
    answer["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    cache.note_deleted("ns", "a", answer)
    found = cache.get("ns", "a")
    assert found is not None
    assert "deletionTimestamp" in found["metadata"]


def test_a_pod_that_went_with_another_pools_label_is_gone_for_the_pool_that_knew_it() -> None:
    cache = Cache(PODS)
    told: list[tuple[str | None, str | None]] = []
    cache.note(pod("a", 1, pool="p"))
    cache.subscribe(lambda old, new: told.append((pool_of(old), pool_of(new))))
    cache.apply_deleted(pod("a", 3, pool="q"))
    assert told == [("p", "q"), ("q", None)]
    assert names(cache) == []


def test_a_broken_subscriber_harms_neither_the_cache_nor_the_others() -> None:
    cache = Cache(PODS)
    told: list[Object | None] = []

    def broken(old: Object | None, new: Object | None) -> None:
        raise ValueError(old, new)

    cache.subscribe(broken)
    cache.subscribe(lambda _old, new: told.append(new))
    cache.note(pod("a", 5))
    assert told == [pod("a", 5)]
    assert names(cache) == ["a"]
