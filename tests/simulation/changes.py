"""What people do to pools, Pods and nodes while everything else goes on."""

import asyncio
import random
from collections.abc import Callable

from controller import names
from controller.kube.api import NODES, PODS, SECRETS, SLOTPOOLS
from controller.local.apiserver.errors import ApiError as Refusal
from controller.local.apiserver.store.deletion import DeleteOptions
from tests.simulation.node import NODE
from tests.simulation.replica import NS
from tests.simulation.themes import Theme
from tests.simulation.world import POOL, World

CHANGES = (
    "scale",
    "scale",
    "edit template",
    "ask for drain",
    "cordon",
    "pause",
    "forget",
    "edit label",
    "make and delete a pool",
)


class Operator:
    """Changes something every now and then, and in the end puts it back."""

    def __init__(self, world: World, mean_seconds: float, theme: Theme) -> None:
        self._world = world
        self._changes = theme.changes or CHANGES
        self._made = 0
        self._mean_seconds = mean_seconds
        self._rng = random.Random(f"{world.seed}/operator")
        self._autoscaling = world.cluster.all(SLOTPOOLS)[0]["spec"].get("autoscaling")

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / self._mean_seconds))
            what = self._rng.choice(self._changes)
            self._world.rules.note(f"--- somebody does: {what}")
            does: Callable[[], None] = getattr(self, f"_{what.replace(' ', '_')}")
            try:
                does()
            except Refusal as refusal:
                self._world.rules.note(f"refused: {refusal.message}")

    def put_back(self) -> None:
        """Restore pools and node, except for the template."""
        cluster = self._world.cluster
        cluster.patch(NODES, "", NODE, {"spec": {"unschedulable": None}})
        if self._autoscaling is not None and cluster.find(SLOTPOOLS, NS, POOL) is not None:
            scaler = {"paused": None, **self._autoscaling}
            cluster.patch(SLOTPOOLS, NS, POOL, {"spec": {"autoscaling": scaler}})

    def _scale(self) -> None:
        least = self._rng.randint(0, 2)
        size = {"minReplicas": least, "maxReplicas": max(1, least + self._rng.randint(0, 2))}
        self._world.cluster.patch(SLOTPOOLS, NS, POOL, {"spec": {"autoscaling": size}})

    def _scale_to_one(self) -> None:
        size = {"minReplicas": 0, "maxReplicas": 1}
        self._world.cluster.patch(SLOTPOOLS, NS, POOL, {"spec": {"autoscaling": size}})

    def _make_and_delete_a_pool(self) -> None:
        """At once, or as soon as something of it is there."""
        self._made += 1
        world, name = self._world, f"brief-{self._made}"
        world.add_pool(name, autoscaling={"minReplicas": self._rng.randint(0, 1), "maxReplicas": 1})
        seconds, propagation = self._rng.choice([0.0, 0.05, 0.3, 3.0]), self._rng.choice(["Background", "Foreground"])

        async def delete() -> None:
            await asyncio.sleep(seconds)
            world.cluster.delete(SLOTPOOLS, NS, name, DeleteOptions(propagation=propagation))

        world.spawn(delete())

    def _rotate(self) -> None:
        self._made += 1
        self._world.ask_for_rotation(f"request {self._made}")

    def _delete_token_secret(self) -> None:
        """Not in the foreground: with the pool deleted so at once, nothing but an admission policy saves its Pods."""
        self._world.cluster.delete(SECRETS, NS, names.token_secret(POOL))

    def _pause(self) -> None:
        spec = {"replicas": self._rng.randint(0, 2), "autoscaling": {"paused": self._rng.choice([True, None])}}
        self._world.cluster.patch(SLOTPOOLS, NS, POOL, {"spec": spec})

    def _edit_template(self) -> None:
        worker = {"name": "worker", "image": f"terraform:{self._rng.randint(2, 9)}"}
        spec = {"template": {"spec": {"containers": [worker]}}}
        self._world.cluster.patch(SLOTPOOLS, NS, POOL, {"spec": spec})

    def _switch_mode(self) -> None:
        now = self._world.cluster.find(SLOTPOOLS, NS, POOL) or {"spec": {}}
        mode = "Deployment" if now["spec"].get("mode", "Pods") == "Pods" else "Pods"
        self._world.cluster.patch(SLOTPOOLS, NS, POOL, {"spec": {"mode": mode}})

    def _annotate(self, name: str, value: str) -> None:
        self._world.cluster.patch(PODS, NS, name, {"metadata": {"annotations": {names.DRAIN_REQUESTED: value}}})

    def _ask_for_drain(self) -> None:
        pods = self._world.pods()
        if pods:
            self._annotate(self._rng.choice(pods)["metadata"]["name"], "please")

    def _cordon(self) -> None:
        self._world.cluster.patch(NODES, "", NODE, {"spec": {"unschedulable": self._rng.choice([True, None])}})

    def _forget(self) -> None:
        """`podslots forget`, of a Pod that somebody knows to be over."""
        for pod in self._world.node.pods.values():
            found = self._world.cluster.find(PODS, pod.namespace, pod.name)
            if pod.over and found is not None and found["metadata"]["uid"] == pod.uid:
                annotations = {names.FORGET: pod.uid}
                self._world.cluster.patch(PODS, NS, pod.name, {"metadata": {"annotations": annotations}})
                return

    def _edit_label(self) -> None:
        """By somebody who may: a Pod that drains is said to be active. The other way round is breaking the glass."""
        for pod in self._world.pods():
            if pod["metadata"]["labels"].get(names.STATE_LABEL) == "draining":
                labels = {names.STATE_LABEL: self._rng.choice(["active", "what?"])}
                self._world.cluster.patch(PODS, NS, pod["metadata"]["name"], {"metadata": {"labels": labels}})
                return
