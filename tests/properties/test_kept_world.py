"""What is kept up from change to change equals what counting anew from the same caches finds: the index, and the views.

The changes go through the controller as it is put together, so what wakes a view is tested with it.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from agent.wire import SlotState
from controller import names
from controller.app import Controller
from controller.config import Config
from controller.decide.observe import agent_address
from controller.decide.tasks.task_actions import after_the_end
from controller.decide.view import PodOperation, PodView
from controller.errors import InvalidObject
from controller.kube.cache import Cache
from controller.kube.trimming import trim_pod
from controller.objects.ended_task import trim_task
from controller.objects.pool import PoolSpec
from controller.objects.task import FINAL_PHASES, TaskPhase
from controller.world.index import Index, Key, pool_of
from controller.world.views import DERIVED, Views
from tests.support import virtual_time
from tests.support.agents import FakeAgent, FakeNetwork, state
from tests.support.memory_api import MemoryApi

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
POOLS = ("a", "b")
KEYS: tuple[Key, ...] = (("ns", "a"), ("ns", "b"))
LOCK_KEYS = ("k1", "k2")
LONG = timedelta(days=2)
"""After it every ended task is due to be deleted."""

Object = dict[str, Any]

number = st.integers(0, 2)
pool_name = st.sampled_from(POOLS)
flag = st.booleans()
phase = st.sampled_from((*(phase.value for phase in TaskPhase), "nonsense", None))
lock_key = st.sampled_from((*LOCK_KEYS, None))
pod_phase = st.sampled_from(("Pending", "Running", "Failed"))
label = st.sampled_from((*POOLS, None))
pod_state = st.sampled_from(("starting", "active", "draining"))
operation = st.sampled_from(PodOperation)
moment = st.sampled_from((0.3, 6.0, 15.0, 70.0))

step = st.one_of(
    st.tuples(st.just("task"), number, phase, lock_key, flag),
    st.tuples(st.just("task_gone"), number, flag),
    st.tuples(st.just("pod"), number, label, pod_phase, pod_state, flag),
    st.tuples(st.just("pod_gone"), number, label, flag),
    st.tuples(st.just("node"), st.integers(0, 1), flag, flag),
    st.tuples(st.just("node_gone"), st.integers(0, 1)),
    st.tuples(st.just("pool"), pool_name, flag, st.sampled_from((0, 2, "nonsense", None))),
    st.tuples(st.just("pool_gone"), pool_name),
    st.tuples(st.just("lease"), st.sampled_from(LOCK_KEYS), number),
    st.tuples(st.just("lease_gone"), st.sampled_from(LOCK_KEYS)),
    st.tuples(st.just("agent"), number, st.sampled_from(SlotState), flag),
    st.tuples(st.just("silence"), number, flag),
    st.tuples(st.just("begin"), number, operation),
    st.tuples(st.just("end"), number),
    st.tuples(st.just("dispatch"), number, number),
    st.tuples(st.just("dispatched"), number),
    st.tuples(st.just("time"), moment),
)


def metadata(name: str, uid: str, version: int, **more: Any) -> Object:
    found = {"namespace": "ns", "name": name, "uid": uid, "resourceVersion": str(version)}
    return {**found, "creationTimestamp": "2026-03-01T10:00:00Z", **more}


def a_task(which: int, phase: str | None, lock: str | None, version: int, *, deleting: bool) -> Object:
    """Its pool follows from its number: that never changes. One that has ended lets go of its finalizer some time."""
    let_go = phase in {final.value for final in FINAL_PHASES} and version % 2 and not deleting
    held: Object = {} if let_go else {"finalizers": [names.TASK_FINALIZER]}
    more: Object = {**held, "deletionTimestamp": "2026-03-01T11:00:00Z"} if deleting else held
    spec = {"pool": POOLS[which % 2], "type": "plan", "steps": {"plan": {"command": ["true"]}}}
    status: Object = {"phase": phase, "attempt": 1} if phase else {}
    if phase not in {None, TaskPhase.QUEUED}:
        status |= {"podUID": f"uid{which % 2}", "pod": f"p{which % 2}"}
    if phase in {final.value for final in FINAL_PHASES}:
        status["finishTime"] = "2026-03-01T11:00:00Z"
    return {
        "apiVersion": "podslots.dev/v1alpha1",
        "kind": "SlotTask",
        "metadata": metadata(f"t{which}", f"u{which}", version, **more),
        "spec": spec | ({"lockKey": lock} if lock else {}),
        "status": status,
    }


def a_pod(which: int, pool: str | None, version: int, phase: str, label: str, *, deleting: bool) -> Object:
    labels = {names.STATE_LABEL: label} | ({names.POOL_LABEL: pool} if pool else {})
    more: Object = {"deletionTimestamp": "2026-03-01T11:00:00Z"} if deleting else {}
    owner = {"uid": "first", "controller": True, "kind": "SlotPool", "name": pool or "a"}
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room"}
    status: Object = {"phase": phase, "conditions": [condition] if phase == "Pending" else []}
    spec: Object = {"containers": [{"name": "worker-0"}]}
    if phase != "Pending":
        status["podIP"] = f"10.0.0.{which}"
        spec["nodeName"] = f"n{which % 2}"
    found = metadata(f"p{which}", f"uid{which}", version, labels=labels, ownerReferences=[owner], **more)
    return {"metadata": found, "spec": spec, "status": status}


def a_node(which: int, version: int, *, cordoned: bool, out_of_service: bool) -> Object:
    spec: Object = {"unschedulable": True} if cordoned else {}
    if out_of_service:
        spec["taints"] = [{"key": names.OUT_OF_SERVICE_TAINT, "effect": "NoExecute"}]
    return {
        "metadata": {"name": f"n{which}", "uid": f"node{which}", "resourceVersion": str(version)},
        "spec": spec,
    }


class Scene:
    """A controller that is not run: its caches are changed by hand, and its agents are in memory."""

    def __init__(self) -> None:
        self.network = FakeNetwork()
        for which in range(4):
            self.network.agents[f"http://10.0.0.{which}:8721"] = FakeAgent(state(f"uid{which}"))
        self.controller = Controller(
            Config.from_environ({}),
            MemoryApi(),
            self.network,
            now=self.now,
            rng=random.Random(1),
            random_bytes=lambda count: b"0" * count,
            registry=CollectorRegistry(),
        )
        self.world = self.controller.world
        self.version = 0

    def now(self) -> datetime:
        return NOW + timedelta(seconds=asyncio.get_running_loop().time() - 1000)

    def agent(self, which: int) -> FakeAgent:
        return self.network.agents[f"http://10.0.0.{which}:8721"]

    async def change(self, what: str, *given: Any) -> None:
        self.version += 1
        await getattr(self, f"_{what}")(*given)

    def look(self, *, settle: bool) -> None:
        """What a pass does: it has views made, and may find that nothing is left to be done for tasks that ended."""
        for key in KEYS:
            self.world.views.pods(key)
            for end in self.world.index.open_ends(key, self.now()) if settle else ():
                self.world.index.settled(key, end)

    async def _task(self, which: int, phase: str | None, lock: str | None, deleting: bool) -> None:
        self.controller.caches.tasks.note(a_task(which, phase, lock, self.version, deleting=deleting))

    async def _task_gone(self, which: int, seen: bool) -> None:
        known = self.controller.caches.tasks.get("ns", f"t{which}")
        if known is not None and seen:
            last = a_task(which, "Succeeded", None, self.version, deleting=True)
            self.controller.caches.tasks.apply_deleted(last)
        self.controller.caches.tasks.note_gone("ns", f"t{which}", f"u{which}")
        # A UID is of one object: the next of this name is another one, and this test has no more names than it needs.
        self.controller.caches.tasks._tombstones.clear()

    async def _pod(self, which: int, pool: str | None, phase: str, label: str, deleting: bool) -> None:
        self.controller.caches.pods.note(a_pod(which, pool, self.version, phase, label, deleting=deleting))

    async def _pod_gone(self, which: int, pool: str | None, seen: bool) -> None:
        """What a DELETED event carries may differ from what was known."""
        if seen and self.controller.caches.pods.get("ns", f"p{which}") is not None:
            last = a_pod(which, pool, self.version, "Running", "active", deleting=True)
            self.controller.caches.pods.apply_deleted(last)
        self.controller.caches.pods.note_gone("ns", f"p{which}", f"uid{which}")
        self.controller.caches.pods._tombstones.clear()

    async def _node(self, which: int, cordoned: bool, out_of_service: bool) -> None:
        self.controller.caches.nodes.note(a_node(which, self.version, cordoned=cordoned, out_of_service=out_of_service))

    async def _node_gone(self, which: int) -> None:
        self.controller.caches.nodes.note_gone(None, f"n{which}", f"node{which}")
        self.controller.caches.nodes._tombstones.clear()

    async def _pool(self, name: str, first: bool, replicas: object) -> None:
        uid = "first" if first else "second"
        spec = {"replicas": replicas} if replicas is not None else {}
        self.controller.caches.pools.note({"metadata": metadata(name, uid, self.version), "spec": spec})
        self.controller.caches.pools._tombstones.clear()

    async def _pool_gone(self, name: str) -> None:
        for uid in ("first", "second"):
            self.controller.caches.pools.note_gone("ns", name, uid)
        self.controller.caches.pools._tombstones.clear()

    async def _lease(self, lock: str, holder: int) -> None:
        found = metadata(names.lock_lease(lock), f"lease-{lock}", self.version, annotations={names.LOCK_KEY: lock})
        self.controller.caches.leases.note({"metadata": found, "spec": {"holderIdentity": f"u{holder}"}})

    async def _lease_gone(self, lock: str) -> None:
        self.controller.caches.leases.note_gone("ns", names.lock_lease(lock), f"lease-{lock}")
        self.controller.caches.leases._tombstones.clear()

    async def _agent(self, which: int, slot: SlotState, closing: bool) -> None:
        agent = self.agent(which)
        first, *others = agent.state.slots
        agent.change(slots=(replace(first, state=slot, since=self.now()), *others), closing=closing)
        await asyncio.sleep(0.3)

    async def _silence(self, which: int, silent: bool) -> None:
        self.agent(which).refuse = silent
        self.agent(which).cut()

    async def _begin(self, which: int, operation: PodOperation) -> None:
        self.world.under_way.begin(f"uid{which}", operation)

    async def _end(self, which: int) -> None:
        self.world.under_way.end(f"uid{which}")

    async def _dispatch(self, task: int, pod: int) -> None:
        """At most one operation a task at a time, as in `starting`."""
        if f"u{task}" not in self.world.under_way.dispatching:
            self.world.under_way.dispatch(f"u{task}", f"uid{pod}")

    async def _dispatched(self, task: int) -> None:
        self.world.under_way.dispatched(f"u{task}")

    async def _time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    # --- counting anew ------------------------------------------------------------------------------------------------

    def anew(self) -> tuple[Index, Views]:
        """An index and views of the same objects, which know nothing of how those came to be as they are."""
        old = self.world.index

        def copy(cache: Cache, trim: Callable[[Object], Object] | None = None) -> Cache:
            return Cache(cache.resource, trim) if trim is not None else Cache(cache.resource)

        copies = {
            "pools": copy(old.pools),
            "pods": copy(old.pods, trim_pod),
            "tasks": copy(old.tasks, trim_task),
            "nodes": copy(old.nodes),
            "secrets": copy(old.secrets),
        }
        index = Index(**copies, locks=old.locks)
        told = self.world.under_way.on_pod_changed
        views = Views(index, self.world.following, self.world.under_way, now=self.now)
        self.world.under_way.on_pod_changed = told
        for name, cache in copies.items():
            for obj in getattr(old, name).items():
                cache.note(obj)
        return index, views


def without_memory(view: PodView) -> PodView:
    """What a view says that does not depend on when it was first seen so."""
    return replace(view, idle_seen=None, stuck=False)


def said(spec: PoolSpec | InvalidObject | None) -> object:
    return str(spec) if isinstance(spec, InvalidObject) else spec


def assert_same_index(kept: Index, anew: Index) -> None:
    assert kept.pool_keys() == anew.pool_keys()
    for key in KEYS:
        assert said(kept.spec(key)) == said(anew.spec(key))
        assert (kept.spec(key) is None) == (anew.pools.get(*key) is None)
        assert dict(kept.live(key)) == dict(anew.live(key))
        assert {uid: kept.ended_task(key, uid) for uid in kept.ended(key)} == {
            uid: anew.ended_task(key, uid) for uid in anew.ended(key)
        }
        assert dict(kept.phases(key)) == dict(anew.phases(key))
        found, counted = (
            {obj["metadata"]["uid"]: str(error) for obj, error in index.unreadable(key)} for index in (kept, anew)
        )
        assert found == counted
    for lock in LOCK_KEYS:
        rivals, again = ({task.uid: task for task in index.contenders("ns", [lock])} for index in (kept, anew))
        assert rivals == again
        assert kept.rival_pools("ns", lock) == anew.rival_pools("ns", lock)


def assert_ends_are_looked_at(kept: Index, now: datetime) -> None:
    """What is settled comes back when it is to be deleted, and nothing is forgotten by `next_due`."""
    for key in KEYS:
        waiting = {end.uid: end for end in kept.open_ends(key, now)}
        settled = [kept.ended_task(key, uid) for uid in kept.ended(key) if uid not in waiting]
        dates = [end.delete_at for end in settled if end is not None and end.delete_at]
        due = kept.next_due(key)
        assert not dates or (due is not None and due <= min(dates))
        assert {end.uid for end in kept.open_ends(key, now + LONG)} == set(kept.ended(key))


def assert_nothing_is_left_for_the_rest(index: Index, views: Views, now: datetime) -> None:
    """Of tasks that have ended, all that have something left to be done are looked at."""
    for key in KEYS:
        looked_at = {end.uid for end in (*index.open_ends(key, now), *index.held_ends(key, 100))}
        for uid in index.ended(key) - looked_at:
            end = index.ended_task(key, uid)
            assert end is not None
            where, held = views.whereabouts(key, end), index.holds_lock("ns", end.lock_key, uid)
            assert after_the_end(end, where, lock_held=held, now=now) is None


def assert_same_views(kept: Views, anew: Views, world_index: Index) -> None:
    for key in KEYS:
        found, counted = kept.pods(key), anew.pods(key)
        assert {uid: without_memory(view) for uid, view in found.items()} == {
            uid: without_memory(view) for uid, view in counted.items()
        }
        assert set(found) == {pod["metadata"]["uid"] for pod in world_index.pods.items() if pool_of(pod) == key}
        for view in found.values():
            assert not (view.stuck and view.start_problem is None)
            assert set(DERIVED) <= vars(view).keys(), "the next pass would derive it for all Pods at once"
            assert (view.idle_seen is None) == (view.idle_since is None)
        pool = world_index.pools.get(*key)
        if pool is not None:
            whole, other = (views.pool(key, pool, PoolSpec()) for views in (kept, anew))
            assert {task.uid: task for task in whole.tasks} == {task.uid: task for task in other.tasks}
            assert (whole.blocked, whole.dispatching, whole.creating) == (
                other.blocked,
                other.dispatching,
                other.creating,
            )


def assert_followed(scene: Scene) -> None:
    """An agent is followed for as long as it may answer."""
    index = scene.world.index
    for pod in index.pods.items():
        may_answer = pool_of(pod) is not None and agent_address(pod, index.node_of(pod)) is not None
        assert (scene.controller.fleet.client(pod["metadata"]["uid"]) is not None) == may_answer


@settings(max_examples=300)
@given(st.lists(st.tuples(step, flag, flag), min_size=15, max_size=40))
def test_what_is_kept_up_is_as_if_it_were_counted_anew(steps: Any) -> None:
    async def main() -> None:
        scene = Scene()
        async with scene.controller.fleet:
            for change, look, settle in steps:
                await scene.change(*change)
                if look:
                    scene.look(settle=settle)
            index, views = scene.anew()
            assert_same_index(scene.world.index, index)
            assert_same_views(scene.world.views, views, scene.world.index)
            assert_followed(scene)
            assert_ends_are_looked_at(scene.world.index, scene.now())
            assert_nothing_is_left_for_the_rest(index, views, scene.now())

    virtual_time.run(main)
