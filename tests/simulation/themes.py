"""What a history is about. Of everything at once any one thing happens rarely; half of the seeds look closer at one."""

import random
from dataclasses import dataclass

from controller.kube.api import Object
from controller.objects.pool import DEFAULT_LAYOUT

EVERY_TYPE = ("plan", "apply", "plan_and_apply")

# A verb, and what a resource's plural or a path ends with.
POD_WRITES: tuple[tuple[str, str], ...] = (("patch", "pods"), ("delete", "pods"), ("POST", "/drain"), ("POST", "/open"))
DEPLOYMENT_CALLS = (
    ("get", "deployments"),
    ("patch", "deployments"),
    ("patch", "deployments"),
    ("create", "deployments"),
)
TASK_WRITES: tuple[tuple[str, str], ...] = (
    ("patch", "slottasks"),
    ("create", "leases"),
    ("POST", "/slots/acquire"),
    ("POST", "approve"),
    ("POST", "ack"),
)


@dataclass(frozen=True)
class Theme:
    """`mishaps` may happen (empty: a mix of all); a leader is caught at `traps`; people bring tasks of `kinds`, and do
    `changes` to pools (empty: all that `Operator` knows); a pool may have `more_pods` than its least.
    """

    name: str
    mishaps: tuple[str, ...] = ()
    mishap_seconds: tuple[float, ...] = (3.0, 8.0, 20.0)
    traps: tuple[tuple[str, str], ...] = (*POD_WRITES, ("create", "pods"), *TASK_WRITES)
    kinds: tuple[str, ...] = ("plan", "plan", "apply", "plan_and_apply", "plan_and_apply")
    task_seconds: tuple[float, ...] = (0.5, 5.0, 30.0, 60.0, 120.0)
    lock_share: float = 0.4
    locks: tuple[str, ...] = ("vpc", "dns")
    layouts: tuple[tuple[tuple[str, ...], ...], ...] = (DEFAULT_LAYOUT, (EVERY_TYPE,), (EVERY_TYPE,) * 2)
    min_idle_seconds: tuple[int, ...] = (0, 5, 30)
    more_pods: tuple[int, ...] = (1, 2, 3)
    sizes: tuple[int, ...] = ()
    """If there are any, the pool has one of these, and no autoscaling."""
    updates: tuple[dict[str, int], ...] = ({},)
    """Their `updateStrategy`."""
    modes: tuple[str, ...] = ("Pods",)
    """In which of them a pool begins."""
    behaviors: tuple[Object, ...] = ()
    """If there are any, how fast its size may change."""
    freezes: tuple[Object, ...] = ()
    signal: bool = False
    """Whether its size follows a Prometheus."""
    operator_share: float = 0.6
    changes: tuple[str, ...] = ()
    bystander_share: float = 0.5
    pools: int = 1
    """The first one is brought any task, the others only such as need a lock."""
    tasks: int = 12
    """At most."""
    cancel_waiting_share: float = 0.004
    """How likely a task that waits is cancelled, each time that somebody looks at it."""
    ttl_seconds: tuple[int, ...] = (30, 86400)
    gives_up: bool = False
    """Whether, in the end, all that waits in the first pool is cancelled: then it is the others' turn."""
    cancel_running_share: float = 0.004
    """The same of one that runs."""
    stops: bool = False
    """Whether steps have commands before them, limits and short graces, and processes that tidy up when stopped."""
    endings: bool = False
    """Whether plans end with codes that their tasks name: nothing to change, try again. They hand a file over."""
    replace_share: float = 0.2
    """How likely somebody deletes the pool while it is used, and makes it again."""
    kept_seconds: tuple[int, ...] = ()
    """How long tasks are kept after their end; empty: a day."""
    mount_seconds: float = 0.0
    """How long a mounted Secret takes at most to show what is written."""
    rotation_seconds: tuple[int, ...] = (30 * 86400,)
    lease_seconds: tuple[float, ...] = (15.0,)
    leases_fail: bool = False
    """Leaders go on for long after they were replaced, against all promises: Pods must be deleted safely even so."""


def _pods(value: int, period_seconds: int) -> Object:
    return {"policies": [{"type": "Pods", "value": value, "periodSeconds": period_seconds}]}


ANYTHING = Theme("anything")
THEMES = (
    *(ANYTHING,) * 6,
    Theme(
        "steps that are stopped",
        mishaps=(
            "worker is told to end",
            "worker dies while it stops a step",
            "a pod is deleted while it works",
            "a pod is deleted while it works",
            "worker is paused",
            "agent dies",
            "agent is cut off",
        ),
        mishap_seconds=(8.0, 20.0),
        kinds=("plan", "apply", "plan_and_apply"),
        task_seconds=(5.0, 20.0, 60.0),
        lock_share=0.2,
        operator_share=0.1,
        bystander_share=0.0,
        cancel_running_share=0.03,
        replace_share=0.0,
        stops=True,
    ),
    Theme(
        "plans that end otherwise",
        mishaps=(
            "agent is cut off",
            "leader dies at a write",
            "leader has no API",
            "worker dies",
            "a pod goes while nobody looks",
        ),
        mishap_seconds=(3.0, 8.0),
        traps=TASK_WRITES,
        kinds=("plan", "apply", "plan_and_apply", "plan_and_apply"),
        task_seconds=(0.5, 5.0, 30.0),
        lock_share=0.2,
        operator_share=0.2,
        endings=True,
    ),
    Theme(
        "Pods that come and go",
        mishaps=("leader is paused at a write", "leader is paused at a write", "history is gone"),
        mishap_seconds=(4.0, 8.0),
        traps=POD_WRITES,
        task_seconds=(0.5, 5.0),
        lock_share=0.0,
        min_idle_seconds=(0,),
        more_pods=(1, 1, 2),
        operator_share=0.1,
        lease_seconds=(4.0,),
    ),
    Theme(
        "leaders that never stop",
        mishaps=("leader is paused at a write", "leader is paused at a write", "history is gone"),
        mishap_seconds=(4.0, 8.0),
        traps=(*POD_WRITES, ("get", "pods"), ("get", "pods")),
        task_seconds=(0.5, 5.0),
        lock_share=0.0,
        min_idle_seconds=(0,),
        more_pods=(1, 1, 2),
        operator_share=0.1,
        lease_seconds=(4.0,),
        leases_fail=True,
    ),
    Theme(
        "leaders that come back",
        mishaps=(
            "leader is paused at a write",
            "leader is paused",
            "leader dies",
            "leader is stopped",
            "watches stall",
        ),
        mishap_seconds=(8.0, 20.0),
        traps=TASK_WRITES,
        task_seconds=(0.5, 5.0),
        lease_seconds=(4.0,),
    ),
    Theme(
        "leaders that take over",
        mishaps=("leader dies", "leader is stopped", "watches stall", "watches stall", "a clock jumps"),
        mishap_seconds=(5.0, 10.0),
        task_seconds=(30.0, 60.0, 120.0),
        more_pods=(1,),
        lease_seconds=(4.0,),
    ),
    Theme(
        "one lock",
        mishaps=(
            "pod vanishes",
            "pod dies",
            "pod is said to have failed",
            "agent is cut off",
            "leader dies at a write",
        ),
        kinds=("apply", "apply", "plan_and_apply"),
        task_seconds=(30.0, 60.0),
        lock_share=1.0,
        locks=("vpc",),
    ),
    Theme(
        "approvals",
        mishaps=("a plan is edited", "agent dies", "agent forgets", "pod dies", "leader dies at a write"),
        kinds=("plan_and_apply",),
        task_seconds=(0.5, 5.0, 30.0),
        traps=TASK_WRITES,
    ),
    Theme(
        "agents and workers that restart",
        mishaps=(
            "agent dies",
            "an old message comes again",
            "worker dies",
            "worker dies at a start",
            "worker is paused",
            "disk fails to sync",
        ),
        mishap_seconds=(3.0, 8.0),
        task_seconds=(0.5, 5.0),
    ),
    Theme(
        "agents that forget",
        mishaps=("agent forgets", "agent forgets", "worker is paused", "worker dies"),
        task_seconds=(0.5, 30.0, 60.0),
        operator_share=0.2,
        bystander_share=1.0,
    ),
    Theme(
        "Pods that can't start",
        mishaps=("node refuses pods", "node refuses pods", "watches end", "leader is paused"),
        mishap_seconds=(8.0, 20.0),
        operator_share=0.2,
    ),
    Theme(
        "Pods that go while nobody looks",
        mishaps=("a pod goes while nobody looks", "pod is deleted by force", "pod dies"),
        mishap_seconds=(20.0,),
        task_seconds=(5.0, 30.0, 60.0),
        operator_share=0.2,
    ),
    Theme(
        "pools that come and go",
        mishaps=("leader is paused at a write", "leader dies", "watches stall"),
        changes=("make and delete a pool", "make and delete a pool", "scale"),
        operator_share=1.0,
        replace_share=0.7,
    ),
    Theme(
        "sizes that are lowered",
        mishaps=("watches end", "agent is cut off"),
        mishap_seconds=(20.0,),
        task_seconds=(30.0, 60.0, 120.0),
        kinds=("plan",),
        lock_share=0.0,
        changes=("scale", "scale to one"),
        operator_share=1.0,
        more_pods=(3,),
        tasks=40,
    ),
    Theme(
        "pools that share a lock",
        mishaps=("agent is cut off", "worker is paused"),
        mishap_seconds=(20.0,),
        kinds=("apply",),
        task_seconds=(5.0, 5.0, 120.0),
        tasks=40,
        lock_share=0.5,
        layouts=((EVERY_TYPE,),),
        locks=("vpc", "dns", "database"),
        min_idle_seconds=(0, 5),
        operator_share=0.0,
        pools=2,
        gives_up=True,
        replace_share=0.0,
        more_pods=(1,),
        cancel_waiting_share=0.02,
    ),
    Theme(
        "tokens that rotate",
        mishaps=("leader dies at a write", "leader is paused", "watches stall", "agent dies", "agent is cut off"),
        mishap_seconds=(8.0, 20.0),
        traps=(("patch", "secrets"), ("patch", "secrets"), ("create", "secrets"), *POD_WRITES),
        task_seconds=(5.0, 30.0, 60.0),
        changes=("rotate", "rotate", "scale", "edit template"),
        operator_share=1.0,
        replace_share=0.0,
        mount_seconds=90.0,
        rotation_seconds=(60, 86400),
    ),
    Theme(
        "token Secrets that are deleted",
        mishaps=("leader dies at a write", "leader is paused at a write", "watches stall"),
        mishap_seconds=(8.0, 20.0),
        traps=(("patch", "secrets"), ("create", "secrets"), ("patch", "pods")),
        kinds=("plan_and_apply", "plan"),
        task_seconds=(5.0, 30.0, 120.0),
        changes=("delete token secret", "delete token secret", "rotate"),
        operator_share=1.0,
        replace_share=0.7,
        mount_seconds=90.0,
    ),
    Theme(
        "tasks that go soon after their end",
        mishaps=("watches end", "agent is cut off"),
        mishap_seconds=(20.0,),
        kinds=("plan",),
        task_seconds=(0.5, 5.0),
        lock_share=0.0,
        tasks=40,
        kept_seconds=(1, 5),
        operator_share=0.2,
    ),
    Theme(
        "limits and clocks",
        mishaps=("a clock jumps", "a clock jumps", "agent dies", "agent forgets"),
        mishap_seconds=(3.0, 8.0),
        kinds=("plan_and_apply",),
        task_seconds=(0.5, 5.0),
        ttl_seconds=(30, 90),
    ),
    Theme(
        "templates that change",
        mishaps=("leader dies", "leader is stopped", "watches end", "node refuses pods"),
        mishap_seconds=(20.0,),
        task_seconds=(0.5, 5.0, 30.0),
        lock_share=0.1,
        changes=("edit template",),
        operator_share=1.0,
        bystander_share=0.0,
        replace_share=0.0,
        sizes=(1, 3, 4),
        updates=({}, {}, {"maxUnavailable": 2, "maxSurge": 2}, {"maxSurge": 0}),
    ),
)


BESIDE = (
    Theme(
        "addresses that are used again",
        mishaps=("pod dies", "pod vanishes", *("an old message comes again",) * 3),
        mishap_seconds=(3.0,),
        kinds=("plan",),
        task_seconds=(0.5, 5.0, 30.0),
        lock_share=0.0,
        min_idle_seconds=(0,),
        more_pods=(2, 3),
        operator_share=0.1,
        bystander_share=0.0,
        lease_seconds=(4.0,),
    ),
    Theme(
        "sizes that change slowly",
        mishaps=("leader dies", "leader is stopped", "leader dies at a write", "watches end", "node refuses pods"),
        mishap_seconds=(20.0,),
        task_seconds=(0.5, 5.0, 30.0),
        kinds=("plan", "apply", "apply"),
        lock_share=0.0,
        min_idle_seconds=(0, 5),
        more_pods=(3, 4),
        behaviors=(
            {"scaleUp": _pods(1, 20), "scaleDown": _pods(1, 60)},
            {"scaleUp": _pods(2, 30), "scaleDown": {**_pods(1, 45), "stabilizationWindowSeconds": 30}},
            {"scaleUp": {**_pods(1, 10), "stabilizationWindowSeconds": 5}, "scaleDown": _pods(2, 40)},
        ),
        freezes=({"start": "*/10 * * * *", "durationSeconds": 120, "timeZone": "Asia/Kolkata"},),
        changes=("scale",),
        operator_share=0.3,
        bystander_share=0.0,
        replace_share=0.1,
        lease_seconds=(4.0,),
    ),
    Theme(
        "sizes by a Prometheus",
        mishaps=(*("prometheus gives no answer",) * 3, "prometheus lies", "leader dies", "agent dies", "watches end"),
        mishap_seconds=(20.0,),
        traps=(),
        task_seconds=(0.5, 5.0, 30.0, 120.0),
        min_idle_seconds=(0, 5),
        more_pods=(3, 4),
        behaviors=({"scaleUp": _pods(4, 15), "scaleDown": _pods(4, 15)},),
        signal=True,
        operator_share=0.0,
        replace_share=0.0,
        lease_seconds=(4.0,),
    ),
    Theme(
        "Pods of Deployments",
        mishaps=(
            "leader dies",
            "leader dies at a write",
            "leader is paused at a write",
            "agent is cut off",
            "agent forgets",
            "a pod goes while nobody looks",
            "pod is deleted by force",
            "watches stall",
        ),
        mishap_seconds=(8.0, 20.0),
        traps=(*POD_WRITES, *DEPLOYMENT_CALLS),
        task_seconds=(0.5, 5.0, 30.0),
        lock_share=0.1,
        min_idle_seconds=(0, 5),
        changes=("switch mode", "scale", "scale", "edit template"),
        operator_share=0.7,
        bystander_share=0.2,
        modes=("Deployment", "Deployment", "Pods"),
        lease_seconds=(4.0,),
    ),
    Theme(
        "Deployments and leaders that never stop",
        mishaps=(
            "leader is paused at a write",
            "leader is paused at a write",
            "leader dies at a write",
            "agent forgets",
        ),
        mishap_seconds=(4.0, 8.0),
        traps=(*DEPLOYMENT_CALLS, ("get", "deployments"), *POD_WRITES),
        task_seconds=(0.5, 5.0),
        lock_share=0.0,
        min_idle_seconds=(0,),
        changes=("switch mode",),
        operator_share=0.1,
        modes=("Deployment", "Deployment"),
        lease_seconds=(4.0,),
        leases_fail=True,
    ),
)
"""Those that no seed draws: they are asked for by name."""

BY_NAME = {theme.name: theme for theme in (*THEMES, *BESIDE)}


def theme_of(rng: random.Random) -> Theme:
    """The theme of a seed."""
    return rng.choice(THEMES)
