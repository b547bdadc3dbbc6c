"""The store's decisions, without HTTP: versions, names, concurrency, deletion."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.local.apiserver import lists
from controller.local.apiserver.errors import ApiError
from controller.local.apiserver.store.deletion import DeleteOptions
from controller.local.apiserver.store.patches import MERGE
from controller.local.apiserver.store.selectors import parse
from controller.local.apiserver.store.store import Outcome, Store, WriteOptions

Json = dict[str, Any]

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Cluster:
    """A store with the time and the dice it is given."""

    def __init__(self, seed: int = 0, **options: Any) -> None:
        self.rng = random.Random(seed)
        self.now = NOW
        self.store = Store(**options)
        self.store.bootstrap(self.now, self.rng)

    def create(self, key: str, name: str = "", *, namespace: str = "default", **parts: Any) -> Outcome:
        resource = self.store.registry.by_key(key)
        metadata = {**({"name": name} if name else {}), **parts.pop("metadata", {})}
        home = namespace if resource.namespaced else ""
        return self.store.create(resource, home, {"metadata": metadata, **parts}, now=self.now, rng=self.rng)

    def pod(self, name: str = "", **spec: Any) -> Json:
        metadata = spec.pop("metadata", {})
        spec.setdefault("containers", [{"name": "main", "image": "example:1"}])
        outcome = self.create("pods", name, metadata=metadata, spec=spec)
        assert outcome.record is not None
        return outcome.record.body

    def patch(self, key: str, name: str, patch: Json, *, subresource: str = "") -> Json:
        resource = self.store.registry.by_key(key)
        namespace = "default" if resource.namespaced else ""
        outcome = self.store.patch(resource, namespace, name, content_type=MERGE, patch=patch, subresource=subresource)
        assert outcome.record is not None
        return outcome.record.body

    def delete(self, key: str, name: str, **options: Any) -> Outcome:
        resource = self.store.registry.by_key(key)
        namespace = "default" if resource.namespaced else ""
        return self.store.delete(resource, namespace, name, DeleteOptions(**options), now=self.now)

    def get(self, key: str, name: str, namespace: str = "default") -> Json | None:
        resource = self.store.registry.by_key(key)
        record = self.store.versions.get(key, (namespace if resource.namespaced else "", name))
        return record.body if record is not None else None

    def settle(self) -> None:
        while self.store.collect(self.now):
            pass


def refused(code: int, reason: str) -> Any:
    """Expects a refusal."""
    return pytest.raises(ApiError, check=lambda error: (error.code, error.reason) == (code, reason))


def test_the_same_requests_with_the_same_dice_give_the_same_cluster() -> None:
    """The store reads no clock and rolls no dice of its own."""

    def run() -> list[Json]:
        cluster = Cluster(seed=7)
        for _ in range(5):
            cluster.pod(metadata={"generateName": "p-"})
        cluster.create("secrets", "s", stringData={"a": "b"})
        pods = cluster.store.registry.by_key("pods")
        return [record.body for record in cluster.store.matching(pods, "default")]

    assert run() == run()


def test_versions_rise_over_all_kinds() -> None:
    """One counter serves every resource."""
    cluster = Cluster()
    versions = [
        int(cluster.pod("a")["metadata"]["resourceVersion"]),
        cluster.create("secrets", "s").changes[0].version,
        int(cluster.patch("pods", "a", {"metadata": {"labels": {"x": "y"}}})["metadata"]["resourceVersion"]),
    ]
    assert versions == sorted(set(versions))


def test_a_write_that_changes_nothing_keeps_the_version_and_tells_nobody() -> None:
    cluster = Cluster()
    before = cluster.pod("a", metadata={"labels": {"x": "y"}})
    outcome = cluster.store.patch(
        cluster.store.registry.by_key("pods"), "default", "a", MERGE, {"metadata": {"labels": {"x": "y"}}}
    )
    assert outcome.changes == ()
    assert outcome.record is not None
    assert outcome.record.body == before


def test_unchanged_parts_are_shared_between_versions() -> None:
    """A status update of a Pod costs a status, not a Pod."""
    cluster = Cluster()
    before = cluster.pod("a")
    after = cluster.patch("pods", "a", {"status": {"phase": "Running"}}, subresource="status")
    assert after["spec"] is before["spec"]
    assert before["status"]["phase"] == "Pending"


def test_a_generated_name_that_is_taken_is_tried_again() -> None:
    """T18: names come from dice, and a clash is not the caller's problem."""
    cluster = Cluster()
    names = {cluster.pod(metadata={"generateName": "p-"})["metadata"]["name"] for _ in range(1000)}
    assert len(names) == 1000
    again = Cluster()
    taken = again.pod(metadata={"generateName": "p-"})["metadata"]["name"]
    again.rng = random.Random(0)
    for _ in range(4):  # the namespaces' uids come first
        again.rng.getrandbits(128)
    assert again.pod(metadata={"generateName": "p-"})["metadata"]["name"] != taken


def test_a_name_that_is_taken_is_refused() -> None:
    cluster = Cluster()
    cluster.pod("a")
    with refused(409, "AlreadyExists"):
        cluster.pod("a")


def test_a_dry_run_changes_nothing() -> None:
    cluster = Cluster()
    version = cluster.store.versions.current
    resource = cluster.store.registry.by_key("configmaps")
    options = WriteOptions(dry_run=True)
    document = {"metadata": {"name": "c"}, "data": {"a": "1"}}
    outcome = cluster.store.create(resource, "default", document, now=NOW, rng=cluster.rng, options=options)
    assert outcome.changes == ()
    assert cluster.get("configmaps", "c") is None
    assert cluster.store.versions.current == version


def test_a_put_with_another_uid_is_a_conflict() -> None:
    """An object made anew under an old name is not the one the writer means."""
    cluster = Cluster()
    pod = cluster.pod("a")
    document = {**pod, "metadata": {**pod["metadata"], "uid": "00000000-0000-0000-0000-000000000000"}}
    with refused(409, "Conflict"):
        cluster.store.update(cluster.store.registry.by_key("pods"), "default", "a", document, now=NOW, rng=cluster.rng)


def test_a_lease_put_without_a_version_is_refused() -> None:
    """Nobody takes a lease over blindly."""
    cluster = Cluster()
    cluster.create("leases.coordination.k8s.io", "l", spec={"holderIdentity": "one"})
    resource = cluster.store.registry.by_key("leases.coordination.k8s.io")
    document = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "two"}}
    with refused(422, "Invalid"):
        cluster.store.update(resource, "default", "l", document, now=NOW, rng=cluster.rng)


# --- binding and deletion ---------------------------------------------------------------------------------


def test_a_pod_is_bound_once() -> None:
    cluster = Cluster()
    cluster.pod("a")
    cluster.store.bind("default", "a", "node-1", now=NOW)
    bound = cluster.get("pods", "a")
    assert bound is not None
    assert bound["spec"]["nodeName"] == "node-1"
    assert [c["type"] for c in bound["status"]["conditions"]] == ["PodScheduled"]
    with refused(409, "Conflict"):
        cluster.store.bind("default", "a", "node-2", now=NOW)


def test_a_deleted_pod_is_not_bound() -> None:
    cluster = Cluster()
    cluster.pod("a", metadata={"finalizers": ["example.dev/hold"]})
    cluster.delete("pods", "a")
    with refused(409, "Conflict"):
        cluster.store.bind("default", "a", "node-1", now=NOW)


def test_a_bound_pod_waits_for_its_kubelet() -> None:
    cluster = Cluster()
    cluster.pod("a", nodeName="node-1", terminationGracePeriodSeconds=45)
    cluster.delete("pods", "a")
    pod = cluster.get("pods", "a")
    assert pod is not None
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 45
    assert pod["metadata"]["deletionTimestamp"] == "2026-03-01T12:00:45Z"
    cluster.now += timedelta(seconds=7)
    cluster.delete("pods", "a", grace_seconds=10)
    pod = cluster.get("pods", "a")
    assert pod is not None
    assert pod["metadata"]["deletionTimestamp"] == "2026-03-01T12:00:10Z"
    cluster.delete("pods", "a", grace_seconds=0)
    assert cluster.get("pods", "a") is None


def test_a_finished_pod_goes_at_once_although_bound() -> None:
    cluster = Cluster()
    cluster.pod("a", nodeName="node-1")
    cluster.patch("pods", "a", {"status": {"phase": "Failed"}}, subresource="status")
    cluster.delete("pods", "a")
    assert cluster.get("pods", "a") is None


def test_a_status_patch_does_not_touch_spec_nor_owners() -> None:
    cluster = Cluster()
    cluster.pod("a")
    owner = {"apiVersion": "v1", "kind": "Secret", "name": "s", "uid": "1"}
    patch = {"spec": {"nodeName": "x"}, "metadata": {"ownerReferences": [owner]}, "status": {"phase": "Running"}}
    pod = cluster.patch("pods", "a", patch, subresource="status")
    assert "nodeName" not in pod["spec"]
    assert "ownerReferences" not in pod["metadata"]
    assert pod["status"]["phase"] == "Running"


@pytest.mark.parametrize(
    "patch",
    [
        {"spec": {"restartPolicy": "Never"}},
        {"spec": {"nodeName": "elsewhere"}},
        {"spec": {"terminationGracePeriodSeconds": 5}},
        {"spec": {"containers": [{"name": "main", "image": "example:1", "command": ["x"]}]}},
    ],
)
def test_a_pods_spec_is_immutable(patch: Json) -> None:
    cluster = Cluster()
    cluster.pod("a")
    with refused(422, "Invalid"):
        cluster.patch("pods", "a", patch)


def test_an_image_may_change() -> None:
    cluster = Cluster()
    cluster.pod("a")
    patched = cluster.patch("pods", "a", {"spec": {"containers": [{"name": "main", "image": "example:2"}]}})
    assert patched["spec"]["containers"][0]["image"] == "example:2"
    assert patched["metadata"]["generation"] == 2


# --- collectors -------------------------------------------------------------------------------------------


def owned(*owners: Json) -> Json:
    return {
        "ownerReferences": [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"],
                "blockOwnerDeletion": True,
            }
            for owner in owners
        ]
    }


def owner(cluster: Cluster, name: str) -> Json:
    record = cluster.create("configmaps", name).record
    assert record is not None
    return record.body


def test_dependents_follow_their_last_owner() -> None:
    cluster = Cluster()
    one, two = owner(cluster, "one"), owner(cluster, "two")
    cluster.pod("kid", metadata=owned(one, two))
    cluster.delete("configmaps", "one")
    cluster.settle()
    kid = cluster.get("pods", "kid")
    assert kid is not None
    assert [r["name"] for r in kid["metadata"]["ownerReferences"]] == ["two"]
    cluster.delete("configmaps", "two")
    cluster.settle()
    assert cluster.get("pods", "kid") is None


def test_foreground_deletion_waits_for_dependents() -> None:
    cluster = Cluster()
    body = owner(cluster, "own")
    cluster.pod("kid", nodeName="node-1", metadata=owned(body))
    cluster.delete("configmaps", "own", propagation="Foreground")
    cluster.settle()
    assert cluster.get("configmaps", "own") is not None
    kid = cluster.get("pods", "kid")
    assert kid is not None
    assert "deletionTimestamp" in kid["metadata"]
    cluster.delete("pods", "kid", grace_seconds=0)
    cluster.settle()
    assert cluster.get("configmaps", "own") is None


@pytest.mark.parametrize("propagation", ["Foreground", "Background"])
@pytest.mark.parametrize("first", [True, False])
def test_an_owner_that_stays_keeps_its_dependent(propagation: str, first: bool) -> None:
    """The reference to the owner that goes is taken off, and nothing else: the Pod isn't even marked."""
    cluster = Cluster()
    goes, stays = owner(cluster, "goes"), owner(cluster, "stays")
    references = owned(*((goes, stays) if first else (stays, goes)))
    cluster.pod("kid", nodeName="node-1", metadata=references)
    cluster.delete("configmaps", "goes", propagation=propagation)
    cluster.settle()
    assert cluster.get("configmaps", "goes") is None
    kid = cluster.get("pods", "kid")
    assert kid is not None
    assert "deletionTimestamp" not in kid["metadata"]
    assert [r["name"] for r in kid["metadata"]["ownerReferences"]] == ["stays"]


def test_an_owner_that_is_deleted_but_held_by_a_finalizer_of_its_own_still_keeps_its_dependent() -> None:
    cluster = Cluster()
    goes, held = owner(cluster, "goes"), owner(cluster, "held")
    cluster.patch("configmaps", "held", {"metadata": {"finalizers": ["example.dev/hold"]}})
    cluster.pod("kid", nodeName="node-1", metadata=owned(goes, held))
    cluster.delete("configmaps", "held")
    cluster.delete("configmaps", "goes", propagation="Foreground")
    cluster.settle()
    kid = cluster.get("pods", "kid")
    assert kid is not None
    assert "deletionTimestamp" not in kid["metadata"]
    assert [r["name"] for r in kid["metadata"]["ownerReferences"]] == ["held"]


def test_an_owner_outlives_its_dependents() -> None:
    cluster = Cluster()
    cluster.pod("kid", metadata=owned(owner(cluster, "own")))
    cluster.delete("pods", "kid", grace_seconds=0)
    cluster.settle()
    assert cluster.get("configmaps", "own") is not None


@pytest.mark.parametrize("other", ["Foreground", "Background"])
def test_a_dependent_goes_when_every_owner_goes(other: str) -> None:
    cluster = Cluster()
    one, two = owner(cluster, "one"), owner(cluster, "two")
    cluster.pod("kid", nodeName="node-1", metadata=owned(one, two))
    cluster.delete("configmaps", "one", propagation="Foreground")
    cluster.delete("configmaps", "two", propagation=other)
    cluster.settle()
    kid = cluster.get("pods", "kid")
    assert kid is not None
    assert "deletionTimestamp" in kid["metadata"]
    cluster.delete("pods", "kid", grace_seconds=0)
    cluster.settle()
    assert cluster.get("configmaps", "one") is None
    assert cluster.get("configmaps", "two") is None


def test_an_owner_of_another_namespace_is_no_owner() -> None:
    cluster = Cluster()
    cluster.create("namespaces", "far")
    record = cluster.create("configmaps", "own", namespace="far").record
    assert record is not None
    cluster.pod("kid", metadata=owned(record.body))
    cluster.settle()
    assert cluster.get("pods", "kid") is None


def test_collection_goes_on_after_a_restart() -> None:
    """What the collector had yet to do is found again in what was stored."""
    cluster = Cluster()
    body = owner(cluster, "own")
    cluster.pod("kid", metadata=owned(body))
    cluster.delete("configmaps", "own")
    reborn = Store()
    rows = [
        (key, record.version, record.body)
        for key in cluster.store.versions.resources()
        for record in cluster.store.versions.collection(key).current("")
    ]
    reborn.restore(cluster.store.versions.current, rows)
    while reborn.collect(NOW):
        pass
    assert reborn.versions.get("pods", ("default", "kid")) is None


def test_a_namespaces_pods_go_before_everything_else_and_it_takes_nothing_new() -> None:
    cluster = Cluster()
    cluster.create("namespaces", "team")
    cluster.create("pods", "a", namespace="team", spec={"containers": [{"name": "m", "image": "i"}], "nodeName": "n"})
    cluster.create("secrets", "s", namespace="team")
    cluster.delete("namespaces", "team")
    cluster.settle()
    home = cluster.get("namespaces", "team")
    assert home is not None
    assert home["status"]["phase"] == "Terminating"
    assert cluster.get("secrets", "s", "team") is not None
    with refused(403, "Forbidden"):
        cluster.create("secrets", "t", namespace="team")
    pods = cluster.store.registry.by_key("pods")
    cluster.store.delete(pods, "team", "a", DeleteOptions(grace_seconds=0), now=NOW)
    cluster.settle()
    assert cluster.get("namespaces", "team") is None


@pytest.mark.parametrize("name", ["default", "kube-system", "kube-public"])
def test_the_clusters_own_namespaces_stay(name: str) -> None:
    with refused(403, "Forbidden"):
        Cluster().delete("namespaces", name)


def test_events_expire() -> None:
    cluster = Cluster()
    cluster.create("events", "e", involvedObject={"namespace": "default"})
    cluster.now += timedelta(minutes=59)
    assert cluster.store.expire_events(cluster.now) == ()
    cluster.now += timedelta(minutes=2)
    assert len(cluster.store.expire_events(cluster.now)) == 1


# --- secrets ----------------------------------------------------------------------------------------------


def test_an_immutable_config_map_stays_so() -> None:
    cluster = Cluster()
    cluster.create("configmaps", "c", data={"a": "1"}, immutable=True)
    with refused(422, "Invalid"):
        cluster.patch("configmaps", "c", {"immutable": False})
    with refused(422, "Invalid"):
        cluster.patch("configmaps", "c", {"data": {"a": "2"}})
    assert cluster.patch("configmaps", "c", {"metadata": {"labels": {"a": "b"}}})["metadata"]["labels"] == {"a": "b"}


def test_a_secrets_type_is_fixed() -> None:
    cluster = Cluster()
    cluster.create("secrets", "s")
    with refused(422, "Invalid"):
        cluster.patch("secrets", "s", {"type": "kubernetes.io/tls"})


# --- selection --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "fields", "found"),
    [
        ("app=x", "", ["a", "b"]),
        ("app!=x", "", ["c", "d"]),
        ("app in (x,y),tier", "", ["b"]),
        ("!app", "", ["d"]),
        ("rank>2", "", ["c"]),
        ("rank<3", "", ["a"]),
        ("app notin (x)", "", ["c", "d"]),
        ("", "metadata.name=b", ["b"]),
        ("", "metadata.name!=b,spec.nodeName=", ["a", "c", "d"]),
        ("app=x", "metadata.name=c", []),
    ],
)
def test_selectors(labels: str, fields: str, found: list[str]) -> None:
    cluster = Cluster()
    cluster.pod("a", metadata={"labels": {"app": "x", "rank": "1"}})
    cluster.pod("b", metadata={"labels": {"app": "x", "tier": "1"}}, nodeName="n")
    cluster.pod("c", metadata={"labels": {"app": "y", "rank": "3"}})
    cluster.pod("d")
    pods = cluster.store.registry.by_key("pods")
    selector = parse(pods, labels, fields)
    assert [record.name for record in cluster.store.matching(pods, "default", selector)] == found


@pytest.mark.parametrize("text", ["a b", "a in x", "a in (x", "=x", "a=b c", "a,", "a>x", "a ! b"])
def test_malformed_selectors_are_refused(text: str) -> None:
    with refused(400, "BadRequest"):
        parse(Cluster().store.registry.by_key("pods"), text, "")


def test_a_continue_token_that_is_too_old_is_expired_but_offers_to_go_on() -> None:
    cluster = Cluster(history_limit=4)
    for index in range(6):
        cluster.pod(f"p{index}")
    pods = cluster.store.registry.by_key("pods")
    first = lists.read(cluster.store, pods, "default", lists.ListRequest.parse(pods, {"limit": "2"}))
    for index in range(20):
        cluster.patch("pods", "p0", {"metadata": {"labels": {"n": str(index)}}})
    query = {"limit": "2", "continue": first.continue_token}
    with pytest.raises(ApiError) as caught:
        lists.read(cluster.store, pods, "default", lists.ListRequest.parse(pods, query))
    assert (caught.value.code, caught.value.reason) == (410, "Expired")
    query["continue"] = caught.value.metadata["continue"]
    rest = lists.read(cluster.store, pods, "default", lists.ListRequest.parse(pods, query))
    assert [record.name for record in rest.records] == ["p2", "p3"]


def test_a_list_at_an_exact_version_shows_the_past() -> None:
    cluster = Cluster()
    version = cluster.pod("a")["metadata"]["resourceVersion"]
    cluster.pod("b")
    cluster.delete("pods", "a")
    pods = cluster.store.registry.by_key("pods")
    query = {"resourceVersion": version, "resourceVersionMatch": "Exact"}
    page = lists.read(cluster.store, pods, "default", lists.ListRequest.parse(pods, query))
    assert ([record.name for record in page.records], page.version) == (["a"], int(version))


def test_what_a_controller_revision_holds_never_changes_and_its_number_may() -> None:
    cluster = Cluster()
    cluster.create("controllerrevisions.apps", "p-1", data={"template": {"spec": {}}})
    assert cluster.patch("controllerrevisions.apps", "p-1", {"revision": 7})["revision"] == 7
    for patch, field in (({"data": {"template": None}}, "data"), ({"revision": -1}, "revision")):
        with pytest.raises(ApiError) as refused:
            cluster.patch("controllerrevisions.apps", "p-1", patch)
        assert f"{field}: Invalid value" in refused.value.message
    kept = cluster.get("controllerrevisions.apps", "p-1")
    assert kept is not None
    assert (kept["data"], kept["revision"]) == ({"template": {"spec": {}}}, 7)
