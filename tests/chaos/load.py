"""What people do meanwhile: tasks of all kinds, approvals right and wrong, cancels, deletes, changes of size."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from controller import names
from controller.errors import AlreadyExists, ApiError, ApiUnavailable, NotFound
from controller.kube.api import LEASES, SLOTPOOLS, SLOTTASKS, Object
from tests.support.at_once import AT_ONCE
from tests.support.cluster import FINAL, NAMESPACE, Cluster

Json = dict[str, Any]

AUTOSCALED, FIXED = "scaled", "fixed"
PASSING = ("passing-a", "passing-b")
"""Pools that come and go, under the same names again and again."""
POOLS = (*(AUTOSCALED,) * 5, *(FIXED,) * 3, *PASSING)
MOST_UNDER_WAY = 10
KEYS = ("vpc", "dns", "iam")
TURN_SECONDS = 0.3
TROUBLE = (ApiError, ApiUnavailable, OSError, TimeoutError)
"""The API server is being made to fail. What was to be done is done another time."""

MODES = ("Pods", "Deployment")
ONE = [{"accepts": ["plan", "apply", "plan_and_apply"]}, {"accepts": ["plan"]}]


class Load:
    """Drives a cluster. `counts` has what was done, by kind."""

    def __init__(self, cluster: Cluster, rng: random.Random, say: Callable[[str], None]) -> None:
        self.counts: Counter[str] = Counter()
        self._cluster = cluster
        self._rng = rng
        self._say = say
        self._made = 0
        self._decided: set[tuple[str, int]] = set()

    async def begin(self) -> None:
        """Create the pools, one of them in Deployment mode."""
        modes = self._rng.sample(MODES, 2)
        await self._cluster.create_pool(AUTOSCALED, autoscaling=autoscaling(0, 2), mode=modes[0])
        await self._cluster.create_pool(
            FIXED,
            replicas=1,
            autoscaling=None,
            slots=ONE,
            reservation={"ttlSeconds": 15},
            template=template("one"),
            mode=modes[1],
        )

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            await self.turn(new=True)
            await asyncio.sleep(self._rng.uniform(0.5, 1.5) * TURN_SECONDS)

    async def turn(self, *, new: bool) -> bool:
        """Look at the tasks, and do something about them; whether all have ended. `new`: make more of them."""
        try:
            async with asyncio.timeout(10):
                tasks = await self._cluster.list_all(SLOTTASKS)
                under_way = [task for task in tasks if phase(task) not in FINAL]
                for task in under_way:
                    if phase(task) == "AwaitingApproval":
                        await self._decide(task, final=not new)
                if new:
                    await self._something(under_way)
                else:
                    await self._end_homeless(under_way)
                    await self._unlock({task["metadata"]["uid"] for task in tasks if phase(task) == "Lost"})
        except TROUBLE:
            return False
        return not under_way

    async def _end_homeless(self, under_way: list[Object]) -> None:
        """Nobody makes the pools any more that some tasks wait for."""
        for task in under_way:
            if task["spec"]["pool"] in PASSING and phase(task) == "Queued" and not task["spec"].get("cancel"):
                await self._patch(task, {"cancel": True})
                self.counts["cancels of the homeless"] += 1

    async def _unlock(self, lost: set[str]) -> None:
        """What `podslots unlock` does. The lock of a lost apply is a person's to free, as long as its Pod is there."""
        for lease in await self._cluster.list_all(LEASES):
            if lease["metadata"]["name"].startswith("podslots-lock-") and lease["spec"].get("holderIdentity") in lost:
                await self._cluster.api.delete(
                    LEASES, NAMESPACE, lease["metadata"]["name"], uid=lease["metadata"]["uid"]
                )
                self.counts["unlocks"] += 1

    async def _something(self, under_way: list[Object]) -> None:
        chance = self._rng.random()
        if chance < 0.06:
            await self._resize()
        elif chance < 0.08:
            await self._update()
        elif chance < 0.09:
            await self._rotate()
        elif chance < 0.105:
            await self._switch_mode()
        elif chance < 0.135:
            await self._make_a_pool()
        elif chance < 0.155:
            await self._delete_a_pool()
        elif chance < 0.185 and under_way:
            await self._patch(self._rng.choice(under_way), {"cancel": True})
            self.counts["cancels"] += 1
        elif chance < 0.205 and under_way:
            name = self._rng.choice(under_way)["metadata"]["name"]
            await self._cluster.api.delete(SLOTTASKS, NAMESPACE, name)
            self.counts["deletes"] += 1
        elif len(under_way) < MOST_UNDER_WAY:
            await self._create()

    async def _create(self) -> None:
        rng = self._rng
        (kind,) = rng.choices(["plan", "plan_and_apply", "apply"], weights=[5, 5, 2])
        spec: Json = {"pool": rng.choice(POOLS), "priority": rng.choice([0, 0, 0, 5])}
        if rng.random() < 0.5:
            spec["lockKey"] = rng.choice(KEYS)
        if kind == "plan_and_apply" and rng.random() < 0.25:
            spec["approvalPolicy"] = "Auto"
        if rng.random() < 0.3:
            spec["retry"] = {"planMaxAttempts": rng.randint(1, 4)}
        if rng.random() < 0.1:
            spec["onLostReservation"] = "Replan"
        self._made += 1
        try:
            await self._cluster.create_task(
                f"t{self._made:04}", kind, plan=self._command("plan"), apply=self._command("apply"), **spec
            )
        except AlreadyExists:  # the one before came through after all
            return
        self.counts[f"{kind} tasks"] += 1

    def _command(self, step: str) -> str:
        """A step of up to three seconds; some fail, some leave processes behind, some do not mind SIGTERM."""
        rng = self._rng
        work = f"echo {step} of $PODSLOTS_TASK; sleep {rng.uniform(0.0, 3.0) ** 2 / 3:.2f}"
        if rng.random() < 0.1:
            work = f"trap '' TERM; {work}"
        if rng.random() < 0.1:
            work = f"sleep 300 & {work}"
        if step == "plan":
            work += "; echo planned > tfplan"
        return f"{work}; exit {rng.choice([0, 0, 0, 0, 0, 0, 0, 0, 1])}"

    async def _decide(self, task: Object, *, final: bool) -> None:
        """Approve, mostly; sometimes wrongly, sometimes not at all. In the end everything is decided."""
        status = task["status"]
        key = task["metadata"]["uid"], int(status["attempt"])
        if key in self._decided and not final:
            return
        approval = {"attempt": status["attempt"], "planDigest": status["planDigest"], "by": "admin"}
        chance = self._rng.random()
        if chance < 0.1 and not final:
            approval["planDigest"] = "sha256:" + "0" * 64
            kind = "wrong approvals"
        elif chance < 0.2 and not final:
            self._decided.add(key)
            self.counts["left to wait"] += 1
            return
        elif chance < 0.3:
            await self._patch(task, {"cancel": True})
            kind = "cancels of reservations"
        else:
            kind = "approvals"
        if kind != "cancels of reservations":
            await self._patch(task, {"approval": approval})
        if kind != "wrong approvals":
            self._decided.add(key)
        self.counts[kind] += 1

    async def _patch(self, task: Object, spec: Json) -> None:
        await self._cluster.patch_task(task["metadata"]["name"], spec)

    async def _resize(self) -> None:
        if self._rng.random() < 0.5:
            least = self._rng.randint(0, 1)
            change: Json = {"autoscaling": autoscaling(least, self._rng.randint(max(least, 1), 3))}
            await self._cluster.api.patch(SLOTPOOLS, NAMESPACE, AUTOSCALED, {"spec": change})
        else:
            change = {"replicas": self._rng.randint(0, 2)}
            await self._cluster.api.patch(SLOTPOOLS, NAMESPACE, FIXED, {"spec": change})
        self._say(f"resize: {change}")
        self.counts["resizes"] += 1

    async def _make_a_pool(self) -> None:
        name, rng = self._rng.choice(PASSING), self._rng
        spec: Json = {"autoscaling": autoscaling(rng.randint(0, 1), 1), "slots": ONE, "template": template(name)}
        with suppress(AlreadyExists):
            await self._cluster.create_pool(name, deletionPolicy=rng.choice(["Drain", "Force"]), **spec)
            self._say(f"pool {name}")
            self.counts["pools made"] += 1

    async def _delete_a_pool(self) -> None:
        name = self._rng.choice(PASSING)
        with suppress(NotFound):
            await self._cluster.api.delete(SLOTPOOLS, NAMESPACE, name)
            self._say(f"no pool {name}")
            self.counts["pools deleted"] += 1

    async def _update(self) -> None:
        """A new template, or one of those before, as an undo brings back: every Pod is replaced, once it is idle."""
        change = {"template": template(f"v{self._rng.randint(0, 9)}")}
        await self._cluster.api.patch(SLOTPOOLS, NAMESPACE, self._rng.choice([AUTOSCALED, FIXED]), {"spec": change})
        self.counts["template updates"] += 1

    async def _rotate(self) -> None:
        """New tokens for a pool, as `podslots rotate` asks for them."""
        note = {"metadata": {"annotations": {names.ROTATION_REQUESTED: f"{self._rng.getrandbits(32):x}"}}}
        await self._cluster.api.patch(SLOTPOOLS, NAMESPACE, self._rng.choice([AUTOSCALED, FIXED]), note)
        self.counts["token rotations"] += 1

    async def _switch_mode(self) -> None:
        name, mode = self._rng.choice([AUTOSCALED, FIXED]), self._rng.choice(MODES)
        await self._cluster.api.patch(SLOTPOOLS, NAMESPACE, name, {"spec": {"mode": mode}})
        self._say(f"mode of {name}: {mode}")
        self.counts[f"mode {mode}"] += 1

    async def shrink(self) -> bool:
        """Want no Pod any more; whether that could be said."""
        try:
            none = {"autoscaling": autoscaling(0, 3)}
            await self._cluster.api.patch(SLOTPOOLS, NAMESPACE, AUTOSCALED, {"spec": none})
            # Enough to work off what is queued; it is deleted afterwards.
            await self._cluster.api.patch(SLOTPOOLS, NAMESPACE, FIXED, {"spec": {"replicas": 1}})
        except TROUBLE:
            return False
        return True


def phase(task: Object) -> str:
    """A task's phase."""
    return str((task.get("status") or {}).get("phase", "Queued"))


def autoscaling(least: int, most: int) -> Json:
    """Quick to let idle Pods go."""
    return {
        "minReplicas": least,
        "maxReplicas": most,
        "minIdleSeconds": 0,
        "scaleUpUtilizationPercent": 90,
        "behavior": AT_ONCE,
    }


def template(version: str) -> Json:
    """A Pod template with a marker in it."""
    worker = {"name": "worker", "image": "podslots/tools:test", "env": [{"name": "VERSION", "value": version}]}
    return {"spec": {"terminationGracePeriodSeconds": 40, "containers": [worker]}}
