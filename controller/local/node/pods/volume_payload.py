"""What files a Pod's volume holds, from the objects it names. Pure; `volumes` writes them."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from controller.local.node.pods.environment import PodFacts, field, resource
from controller.local.node.pods.pod_spec import Json, PodSpec

DEFAULT_MODE = 0o644

Payload = dict[str, "File"]
ObjectLookup = Callable[[str, str], Json | None]  # (kind, name) in the Pod's namespace; None if there is none


@dataclass(frozen=True)
class File:
    """One file's content and permission bits."""

    content: bytes
    mode: int


class VolumeError(Exception):
    """A volume that cannot be made, for now or ever: a FailedMount event, and its containers wait."""


def secret_data(secret: Json) -> dict[str, bytes]:
    """A Secret's keys and decoded values."""
    return {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}


def config_map_data(config_map: Json) -> dict[str, bytes]:
    """A ConfigMap's keys and values, text and binary."""
    text = {key: value.encode() for key, value in (config_map.get("data") or {}).items()}
    binary = {key: base64.b64decode(value) for key, value in (config_map.get("binaryData") or {}).items()}
    return {**text, **binary}


def payload(volume: Json, pod: PodSpec, facts: PodFacts, lookup: ObjectLookup) -> Payload | None:
    """The files of a secret, configMap, downwardAPI or projected volume; None for one that holds none of ours.

    Raises VolumeError if an object or key that is not optional is missing, or the kind of volume is not offered.
    """
    if "emptyDir" in volume or "hostPath" in volume:
        return None
    if (source := volume.get("secret")) is not None:
        return _from_object("Secret", source.get("secretName"), source, _mode(source, DEFAULT_MODE), lookup)
    if (source := volume.get("configMap")) is not None:
        return _from_object("ConfigMap", source.get("name"), source, _mode(source, DEFAULT_MODE), lookup)
    if (source := volume.get("downwardAPI")) is not None:
        return _downward(source, _mode(source, DEFAULT_MODE), pod, facts)
    if (projected := volume.get("projected")) is not None:
        return _projected(volume["name"], projected, pod, facts, lookup)
    raise _unsupported(volume["name"], volume)


def _projected(name: str, projected: Json, pod: PodSpec, facts: PodFacts, lookup: ObjectLookup) -> Payload:
    mode = _mode(projected, DEFAULT_MODE)
    files: Payload = {}
    for source in projected.get("sources") or ():
        if (part := source.get("secret")) is not None:
            files |= _from_object("Secret", part.get("name"), part, mode, lookup)
        elif (part := source.get("configMap")) is not None:
            files |= _from_object("ConfigMap", part.get("name"), part, mode, lookup)
        elif (part := source.get("downwardAPI")) is not None:
            files |= _downward(part, mode, pod, facts)
        else:
            raise _unsupported(name, source)
    return files


def _from_object(kind: str, name: str | None, source: Json, mode: int, lookup: ObjectLookup) -> Payload:
    found = lookup(kind, name or "")
    if found is None:
        if source.get("optional"):
            return {}
        raise VolumeError(f'{kind.lower()} "{name}" not found')
    data = secret_data(found) if kind == "Secret" else config_map_data(found)
    items = source.get("items")
    if not items:
        return {key: File(value, mode) for key, value in data.items()}
    files: Payload = {}
    for item in items:
        if item["key"] in data:
            files[_safe(item["path"])] = File(data[item["key"]], _mode(item, mode, "mode"))
        elif not source.get("optional"):
            raise VolumeError(f"references non-existent {kind.lower()} key: {item['key']}")
    return files


def _downward(source: Json, mode: int, pod: PodSpec, facts: PodFacts) -> Payload:
    files: Payload = {}
    resources = {container.name: container.resources or {} for container in pod.containers}
    for item in source.get("items") or ():
        if "fieldRef" in item:
            text = field(item["fieldRef"]["fieldPath"], facts)
        else:
            reference = item["resourceFieldRef"]
            text = resource(reference, resources.get(reference.get("containerName", ""), {}), facts)
        files[_safe(item["path"])] = File(text.encode(), _mode(item, mode, "mode"))
    return files


def _mode(source: Mapping[str, int | None], default: int, key: str = "defaultMode") -> int:
    mode = source.get(key)
    return default if mode is None else int(mode)


def _safe(path: str) -> str:
    """A relative path that stays inside its volume; the API server checks this too."""
    parts = path.split("/")
    if ".." in parts or path.startswith(("/", "..")):
        raise VolumeError(f"invalid path in volume: {path}")
    return path


def _unsupported(name: str, volume: Json) -> VolumeError:
    kinds = ", ".join(sorted(key for key in volume if key != "name")) or "nothing"
    return VolumeError(f'volume "{name}" of {kinds} is not supported here')
