"""What people do to Pods: ask for a drain, declare one dead. Both are annotations; only the controller acts."""

from collections.abc import Callable

import click

from controller import names
from controller.cli.session import Connection
from controller.kube.api import PODS, Object


async def drain(connection: Connection, name: str) -> str:
    """Ask for the Pod to be drained and deleted as soon as it is idle. Nothing is interrupted."""
    pod = await _slot_pod(connection, name)
    note = {names.DRAIN_REQUESTED: connection.now().strftime("%Y-%m-%dT%H:%M:%SZ")}
    await _annotate(connection, pod, note)
    return f"{name}: drain requested; it goes when its slots are idle"


async def forget(connection: Connection, name: str, confirm: Callable[[str], bool]) -> str:
    """Declare a Pod dead that nothing else proves dead."""
    pod = await _slot_pod(connection, name)
    node = (pod.get("spec") or {}).get("nodeName") or "no node"
    phase = (pod.get("status") or {}).get("phase", "Unknown")
    warning = (
        f"Pod {name} ({phase}, on {node}) will be treated as dead: its tasks end as lost or are tried again,\n"
        "its lockKeys become free, and it is deleted. Do this only when you know that its containers no longer run,\n"
        "because the machine is off or wiped. If they do run, an apply may happen twice."
    )
    if not confirm(warning):
        raise click.ClickException("not forgotten")
    await _annotate(connection, pod, {names.FORGET: pod["metadata"]["uid"]})
    return f"{name}: declared dead"


async def _slot_pod(connection: Connection, name: str) -> Object:
    pod = await connection.get(PODS, name)
    if names.POOL_LABEL not in (pod["metadata"].get("labels") or {}):
        raise click.ClickException(f"Pod {name} belongs to no pool")
    return pod


async def _annotate(connection: Connection, pod: Object, annotations: dict[str, str]) -> None:
    """The UID in the patch keeps it off a Pod that took the name meanwhile."""
    metadata = pod["metadata"]
    patch: Object = {"metadata": {"uid": metadata["uid"], "annotations": annotations}}
    await connection.api.patch(PODS, connection.namespace, metadata["name"], patch)
