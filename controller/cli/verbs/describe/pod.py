"""A Pod of a pool as `podslots describe` tells it: its slots and who is in them, and what is asked of it."""

import click

from controller import names
from controller.cli.cluster.session import Connection
from controller.cli.show import tables
from controller.cli.show.tables import has_ended
from controller.cli.show.times import age, time_or_none
from controller.cli.verbs.describe.parts import Happening, changes, conditions, events, fields, section, told
from controller.kube.api import SLOTTASKS, Object

_NOTES = {
    names.DRAIN_REQUESTED: "somebody asked for its drain",
    names.FORGET: "somebody declared it dead",
    names.BREAK_GLASS: "the policies let it be deleted, whatever it holds",
    names.OPENED: "last opened for work",
    names.TEMPLATE_HASH: "template it was made of",
}
"""Annotation → what it says, with its value after it."""


def describe_pod(connection: Connection, pod: Object, width: int) -> str:
    """All of it."""
    metadata, spec, status, now = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}, connection.now()
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    if names.POOL_LABEL not in labels:
        raise click.ClickException(f"Pod {metadata['name']} belongs to no pool")
    lines = fields(
        {
            "Name": metadata["name"],
            "Namespace": metadata.get("namespace"),
            "Age": age(pod, now),
            "Pool": labels[names.POOL_LABEL],
            "State": tables.state_of(pod),
            "Phase": status.get("phase"),
            "Reason": ": ".join(filter(None, (status.get("reason"), status.get("message")))),
            "Ready": tables.condition(pod, "Ready"),
            "IP": status.get("podIP"),
            "Node": spec.get("nodeName"),
            "Images": ", ".join(tables.images(pod)),
        },
        width,
    )
    tasks = connection.list_all(SLOTTASKS, everywhere=False)
    lines += section("Slots", tables.slots([pod], tasks, namespaces=False))
    here = [
        task
        for task in tasks
        if (task.get("status") or {}).get("podUID") == metadata.get("uid") and not has_ended(task)
    ]
    lines += section("Tasks in it", tables.tasks(here, now, namespaces=False))
    notes = [f"  {text}: {annotations[key]}" for key, text in _NOTES.items() if key in annotations]
    lines += ["", "Notes:", *notes] if notes else []
    lines += conditions(status, now, width)
    happened = [*changes(status), *events(connection, pod)]
    if created := time_or_none(metadata.get("creationTimestamp")):
        happened.append(Happening(created, "Created", rank=-1))
    if going := time_or_none(metadata.get("deletionTimestamp")):
        happened.append(Happening(going, "Deleted", "it is on its way out", 101))
    return "\n".join([*lines, *told(happened, now, width)])
