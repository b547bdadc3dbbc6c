"""A pool as `podslots describe` tells it."""

from collections.abc import Mapping
from typing import Any

from controller.cli.cluster.session import Connection
from controller.cli.show import tables
from controller.cli.show.tables import has_ended
from controller.cli.show.times import age, time_or_none
from controller.cli.verbs.describe.parts import Happening, changes, conditions, events, fields, section, told
from controller.kube.api import PODS, SLOTTASKS, Object
from controller.names import POOL_LABEL


def describe_pool(connection: Connection, pool: Object, width: int) -> str:
    """All of it."""
    spec, status, now = pool.get("spec") or {}, pool.get("status") or {}, connection.now()
    name, slots = pool["metadata"]["name"], status.get("slots") or {}
    lines = fields(
        {
            "Name": name,
            "Namespace": pool["metadata"].get("namespace"),
            "Age": age(pool, now),
            "Status": tables.standing(pool),
            "Size": _size(spec),
            "Pods": f"{status.get('readyReplicas', 0)} ready of {status.get('replicas', 0)}, "
            f"{status.get('desiredReplicas', 0)} desired, {status.get('updatedReplicas', 0)} updated",
            "Slots": ", ".join(f"{slots.get(state, 0)} {state}" for state in ("idle", "running", "reserved")),
            "Layout": "; ".join(f"{number}: {accepts}" for number, accepts in enumerate(_layout(spec))),
        },
        width,
    )
    lines += conditions(status, now, width)
    everything = connection.list_all(PODS, everywhere=False, label_selector=f"{POOL_LABEL}={name}")
    lines += section("Pods", tables.pods(everything, now, namespaces=False))
    tasks = connection.list_all(SLOTTASKS, everywhere=False)
    left = [task for task in tasks if (task.get("spec") or {}).get("pool") == name and not has_ended(task)]
    lines += section("Tasks that have not ended", tables.tasks(left, now, namespaces=False))
    happened = [*changes(status), *events(connection, pool)]
    if created := time_or_none(pool["metadata"].get("creationTimestamp")):
        happened.append(Happening(created, "Created", rank=-1))
    return "\n".join([*lines, *told(happened, now, width)])


def _layout(spec: Mapping[str, Any]) -> list[str]:
    return [", ".join(slot.get("accepts") or ()) for slot in spec.get("slots") or ()]


def _size(spec: Mapping[str, Any]) -> str:
    scaling = spec.get("autoscaling")
    if not scaling:
        return f"{spec.get('replicas', 0)} Pods, set by hand"
    paused = ", paused" if scaling.get("paused") else ""
    return f"{scaling.get('minReplicas', 0)} to {scaling.get('maxReplicas')} Pods, by demand{paused}"
