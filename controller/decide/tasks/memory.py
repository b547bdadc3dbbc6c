"""Whether a lost step was lost because its worker's container ran out of memory. Pure.

Where the kernel kills the container's processes as one, nobody is left in it to say why: its kubelet does, in the Pod.
"""

from datetime import datetime
from typing import Any

from controller.names import worker_container
from controller.objects.times import read_time

Object = dict[str, Any]

OUT_OF_MEMORY = "OOMKilled"


def ran_out(pod: Object, slot: int, since: datetime | None) -> str | None:
    """What to say if the container of a slot was killed for its memory after `since`, when the step started."""
    name = worker_container(slot)
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    status: Object = next((entry for entry in statuses if entry.get("name") == name), {})
    for state in ("state", "lastState"):
        ended = (status.get(state) or {}).get("terminated") or {}
        if ended.get("reason") == OUT_OF_MEMORY and not _before(ended.get("finishedAt"), since):
            limit = _limit(pod, name)
            return f"memory ran out{f' (limit {limit})' if limit else ''}: container {name} was killed"
    return None


def _before(text: object, moment: datetime | None) -> bool:
    """Whether a time of the Pod's status, which has whole seconds, is certainly before a moment."""
    if moment is None or not isinstance(text, str):
        return False
    try:
        return read_time(text) < moment.replace(microsecond=0)
    except ValueError:
        return False


def _limit(pod: Object, name: str) -> str | None:
    for container in (pod.get("spec") or {}).get("containers") or ():
        if container.get("name") == name:
            limit = ((container.get("resources") or {}).get("limits") or {}).get("memory")
            return str(limit) if limit is not None else None
    return None
