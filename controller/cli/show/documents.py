"""Documents for programs: JSON and YAML, of objects and of findings."""

import json
from collections.abc import Iterable

from controller.kube.api import Object, Resource

OBJECT_OUTPUTS = ("json", "yaml", "name")


def as_text(document: object, output: str) -> str:
    """The document as `output` says, json or yaml."""
    if output == "json":
        return json.dumps(document, indent=2)
    import yaml  # noqa: PLC0415 - 15 ms that the other outputs do not need

    return str(yaml.dump(document, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False)).rstrip()


def listed(objects: Iterable[tuple[Resource, Object]], *, alone: bool) -> Object:
    """Objects as a List, or the one object itself if it stands `alone`."""
    items = [_whole(resource, obj) for resource, obj in objects]
    return items[0] if alone else {"apiVersion": "v1", "kind": "List", "items": items}


def full_name(resource: Resource) -> str:
    """A kind as kubectl prints it before a name, as `slottask.podslots.dev`."""
    return f"{resource.kind.lower()}.{resource.group}" if resource.group else resource.kind.lower()


def short_name(resource: Resource) -> str:
    """A kind before a name where there is no doubt whose it is, as `slottask`."""
    return resource.kind.lower()


def name_line(resource: Resource, obj: Object) -> str:
    """As kubectl's `-o name` has it, `slottask.podslots.dev/network`."""
    return f"{full_name(resource)}/{obj['metadata']['name']}"


def _whole(resource: Resource, obj: Object) -> Object:
    """An object with its kind, which lists leave out, and without `managedFields`, as kubectl shows it."""
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {"apiVersion": resource.api_version, "kind": resource.kind, **obj, "metadata": metadata}
