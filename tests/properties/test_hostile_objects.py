"""Objects that the cluster takes and that mean harm: the controller says what is wrong, and other pools go on.

A whole controller on virtual time, with all that it does; the API server is one in memory, before which the schemas of
the definitions stand.
"""

import asyncio
import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml
from hypothesis import event, given, note, settings
from hypothesis import strategies as st

from controller import names
from controller.crds import folder
from controller.kube.api import LEASES, PODS, SECRETS, SLOTPOOLS, SLOTTASKS, Object, Resource
from controller.local.apiserver.schema.structural import CustomSchema
from controller.local.apiserver.schema.validation import validate
from tests.bench.stage import (
    NAMESPACE,
    Many,
    StageAgents,
    StageApi,
    active_pods,
    pool_object,
    prepared,
    staged,
    task_object,
)
from tests.support import virtual_time
from tests.support.schema_values import Json, specs

Hostile = list[tuple[Resource, Object]]
CUSTOM = (SLOTPOOLS, SLOTTASKS)
VERSIONS: dict[str, Json] = {
    kind.plural: yaml.safe_load((folder() / f"{kind.plural}.yaml").read_text())["spec"]["versions"][0]
    for kind in CUSTOM
}
SCHEMAS = {plural: CustomSchema.compile(version) for plural, version in VERSIONS.items()}
QUIET_REQUESTS = 60
"""Of a minute in which nothing happens. The Lease is renewed, and what fails is tried again ever more seldom."""


@dataclass
class Found:
    """What became of it. `objects` are the hostile ones as they are now; None: gone."""

    phase: str | None = None
    errors: list[str] = field(default_factory=list)
    requests: int = 0
    objects: list[Object | None] = field(default_factory=list)


@contextmanager
def errors_of(found: Found) -> Iterator[None]:
    class Errors(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.errors.append(logging.Formatter().format(record))

    handler = Errors(logging.ERROR)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def stored(resource: Resource, obj: Object) -> Object | None:
    """The object as the cluster stores it; None if it is refused."""
    if resource not in CUSTOM:
        return obj
    schema = SCHEMAS[resource.plural]
    own, _ = schema.prune({name: copy.deepcopy(obj[name]) for name in ("spec", "status") if name in obj})
    whole = schema.default({**obj, **own})
    return None if list(validate(schema, whole, None)) else whole


def play(hostile: Hostile) -> Found:
    """A pool that has slots for all of these objects, and a task for it after them; then a minute of rest."""

    async def main() -> Found:
        found = Found()
        api, (pool,) = await prepared(pool_object("good", replicas=2))
        api.many = {PODS: [pods_of(pool)]}
        for resource, obj in hostile:
            api.put(resource, copy.deepcopy(obj))
        with errors_of(found):
            async with staged(api, StageAgents()) as stage:
                await asyncio.sleep(5)
                api.put(SLOTTASKS, task_object("the-good-one", "good"))
                await stage.until(lambda: phase(api) == "Running" or stage.passes > 10_000)
                await asyncio.sleep(30)
                before = sum(api.requests.values())
                await asyncio.sleep(60)
                found.requests = sum(api.requests.values()) - before
                assert not stage.running.done()
        found.phase = phase(api)
        found.objects = [now(api, resource, obj["metadata"]["name"]) for resource, obj in hostile]
        return found

    return virtual_time.run(main)


def pods_of(pool: Object) -> Many:
    return active_pods(2, pool)


def phase(api: StageApi) -> str | None:
    obj = now(api, SLOTTASKS, "the-good-one")
    found: str | None = (obj or {}).get("status", {}).get("phase")
    return found


def now(api: StageApi, resource: Resource, name: str) -> Object | None:
    try:
        return api.find(resource, NAMESPACE, name)
    except Exception:  # noqa: BLE001 - it is gone
        return None


def check(found: Found) -> None:
    assert not found.errors
    assert found.phase == "Running"
    assert found.requests < QUIET_REQUESTS
    for obj in found.objects:
        if obj is not None and obj.get("kind") == SLOTTASKS.kind and "deletionTimestamp" not in obj["metadata"]:
            assert obj["status"].get("phase") or obj["status"].get("queuedReason") or obj["status"].get("conditions")


def pool_with(status: Any = None, **metadata: Any) -> tuple[Resource, Object]:
    obj = pool_object("bad")
    obj["metadata"] |= {"uid": "uid-bad", "creationTimestamp": "2026-03-01T11:00:00Z", **metadata}
    return SLOTPOOLS, {**obj, **({"status": status} if status is not None else {})}


def task_with(pool: str = "good", **status: Any) -> tuple[Resource, Object]:
    return SLOTTASKS, task_object("bad-task", pool, **status)


def secret_with(**metadata: Any) -> tuple[Resource, Object]:
    given = {"name": names.token_secret("bad"), "namespace": NAMESPACE, "labels": {names.POOL_LABEL: "bad"}}
    return SECRETS, {"apiVersion": "v1", "kind": "Secret", "metadata": {**given, **metadata}, "data": {}}


def locked_task() -> tuple[Resource, Object]:
    obj = task_object("bad-task", "good")
    steps = {"apply": {"command": ["true"]}}
    return SLOTTASKS, {**obj, "spec": {**obj["spec"], "type": "apply", "steps": steps, "lockKey": "k"}}


def lease_with(spec: Object) -> tuple[Resource, Object]:
    given = {"name": names.lock_lease("k"), "namespace": NAMESPACE, "labels": {names.LOCK_LABEL: "x"}}
    return LEASES, {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": given, "spec": spec}


DELETED = {"deletionTimestamp": "2026-03-01T11:59:00Z", "deletionGracePeriodSeconds": 0}
EDGES = ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-23:59"]
CASES: dict[str, Hostile] = {
    "a deleted pool that waits for another's finalizer": [pool_with(**DELETED, finalizers=["a/b"])],
    "the same, with ours": [pool_with(**DELETED, finalizers=[names.POOL_FINALIZER, "a/b"])],
    "a Secret of no pool that waits for another's finalizer": [secret_with(**DELETED, finalizers=["a/b"])],
    "one that waits for ours, too": [secret_with(**DELETED, finalizers=[names.TOKENS_FINALIZER, "a/b"])],
    "a size below none": [pool_with({"desiredReplicas": -1})],
    **{f"a task that waits until {time}": [task_with(phase="Queued", notBefore=time)] for time in EDGES},
    **{f"a task that ended at {time}": [task_with(phase="Succeeded", finishTime=time)] for time in EDGES},
    **{
        f"a pool with a condition since {time}": [
            pool_with({"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": time}]})
        ]
        for time in EDGES
    },
    **{
        f"tokens since {time}": [
            pool_with(finalizers=[names.POOL_FINALIZER]),
            secret_with(annotations={names.TOKEN_SINCE: time, names.CURRENT_TOKEN: "t1-a", names.NEXT_TOKEN: "t2-b"}),
        ]
        for time in EDGES
    },
    "a lockKey's Lease of nobody": [locked_task(), lease_with({})],
    "a lockKey's Lease of a stranger": [locked_task(), lease_with({"holderIdentity": "stranger", "renewTime": "x"})],
}


@pytest.mark.parametrize("hostile", CASES.values(), ids=CASES)
def test_what_others_wrote_breaks_nothing(hostile: Hostile) -> None:
    check(play(hostile))


def schema_of(plural: str, part: str) -> Json:
    found: Json = VERSIONS[plural]["schema"]["openAPIV3Schema"]["properties"][part]
    without = {name: schema for name, schema in found["properties"].items() if name not in {"template", "pool"}}
    return {**found, "properties": without, "required": []}


KEYS = [value for name, value in vars(names).items() if name.isupper() and str(value).startswith(names.PREFIX)]
WORDS = ["", "good", "bad", "active", "draining", "uid-good", "x", "{}", "-1", *EDGES]
metadata = st.fixed_dictionaries(
    {},
    optional={
        "annotations": st.dictionaries(st.sampled_from(KEYS), st.sampled_from(WORDS), max_size=3),
        "labels": st.dictionaries(st.sampled_from(KEYS), st.sampled_from(WORDS[:7]), max_size=2),
        "finalizers": st.lists(
            st.sampled_from([names.TASK_FINALIZER, names.POOL_FINALIZER, "a/b"]), unique=True, max_size=2
        ),
        "generation": st.sampled_from([1, 2**62]),
    },
)
tasks = st.tuples(
    st.sampled_from(["good", "bad", "nowhere"]),
    metadata,
    st.none() | specs(schema_of("slottasks", "spec")),
    st.none() | specs(schema_of("slottasks", "status")),
)
pools = st.tuples(
    metadata, st.none() | specs(schema_of("slotpools", "spec")), st.none() | specs(schema_of("slotpools", "status"))
)


def task_of(number: int, pool: str, more: Json, spec: Any, status: Any) -> tuple[Resource, Object]:
    obj = task_object(f"bad-{number}", pool)
    obj["metadata"] |= more
    if isinstance(spec, dict):
        obj["spec"] = {**obj["spec"], **spec}
    return SLOTTASKS, {**obj, **({"status": status} if status is not None else {})}


@pytest.mark.long
@pytest.mark.timeout(1200)
@settings(max_examples=150)
@given(st.lists(tasks, max_size=3), st.none() | pools)
def test_no_object_that_the_cluster_takes_breaks_anything(made: list[Any], bad_pool: Any) -> None:
    hostile = [task_of(number, *parts) for number, parts in enumerate(made)]
    if bad_pool is not None:
        more, spec, status = bad_pool
        resource, obj = pool_with(status, **more)
        hostile.append((resource, {**obj, "spec": {**obj["spec"], **(spec if isinstance(spec, dict) else {})}}))
    taken = [(resource, whole) for resource, obj in hostile if (whole := stored(resource, obj)) is not None]
    event(f"{len(taken)} of {len(hostile)} are taken")
    note(str(taken))
    check(play(taken))
