"""What somebody may have meant by a field that an object does not have, by the definition of its kind."""

import re
from typing import Any

from controller import crds
from controller.cli.cluster.nearest import meant
from controller.kube.api import Resource

_UNKNOWN = re.compile(r'unknown field "(?P<path>[^"]+)"')
_INDEX = re.compile(r"\[\d+\]")


def with_meant(resource: Resource, message: str, *, doctor: str) -> str:
    """The API server's message, each field in it followed by the one at its place that comes nearest, if any does.

    Of a field that this version has, the cluster's definition is older. `doctor`: the command that says so at length.
    """
    if not _UNKNOWN.search(message):
        return message
    schema = _schema(resource)
    return _UNKNOWN.sub(lambda found: found[0] + _meant(schema, found["path"], doctor), message)


def _meant(schema: Any, path: str, doctor: str) -> str:
    *above, field = _INDEX.sub(".[]", path).split(".")
    for part in above:
        schema = schema.get("items", {}) if part == "[]" else _property(schema, part)
    known = schema.get("properties", {})
    if field in known:
        return f" (this cluster's definitions are older: {doctor})"
    near = meant(field, known)
    return f" ({near.removeprefix('; ')})" if "did you mean" in near else ""


def _property(schema: Any, name: str) -> Any:
    other = schema.get("additionalProperties")
    return schema.get("properties", {}).get(name, other if isinstance(other, dict) else {})


def _schema(resource: Resource) -> Any:
    """Of this kind, as this installation has it; empty if it has none."""
    import yaml  # noqa: PLC0415 - for mistakes only

    try:
        text = (crds.folder() / f"{resource.plural}.yaml").read_text()
    except OSError:
        return {}
    versions = yaml.safe_load(text)["spec"]["versions"]
    return next((each["schema"]["openAPIV3Schema"] for each in versions if each["name"] == resource.version), {})
