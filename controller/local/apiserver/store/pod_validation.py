"""Validation of Pod specs: what no kubelet could run is refused, in the words of the real server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from controller.local.apiserver.errors import (
    Cause,
    duplicate,
    forbidden_field,
    invalid_value,
    required,
    unsupported_value,
)
from controller.local.apiserver.store.strategy import LABEL_RULE, is_dns_label

Json = dict[str, Any]

_MAX_PORT = 65535


def spec_causes(spec: Json) -> Iterator[Cause]:
    """What is wrong with a spec that has its defaults."""
    volumes = [volume.get("name", "") for volume in spec.get("volumes") or ()]
    yield from _name_causes("spec.volumes", volumes)
    if not spec.get("containers"):
        yield required("spec.containers")
    names: list[str] = []
    for part in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(part) or ()):
            path = f"spec.{part}[{index}]"
            name = container.get("name", "")
            yield from _one_name_causes(f"{path}.name", name, names)
            names.append(name)
            yield from _container_causes(path, container, set(volumes), init=part == "initContainers")
    yield from _choice(spec, "spec.", "restartPolicy", ("Always", "OnFailure", "Never"))
    yield from _choice(spec, "spec.", "dnsPolicy", ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and deadline < 1:
        yield invalid_value("spec.activeDeadlineSeconds", str(deadline), "must be between 1 and 2147483647, inclusive")
    grace = spec["terminationGracePeriodSeconds"]
    if grace < 0:
        yield invalid_value("spec.terminationGracePeriodSeconds", str(grace), "must be greater than or equal to 0")


def _container_causes(path: str, container: Json, volumes: set[str], *, init: bool) -> Iterator[Cause]:
    if not container.get("image"):
        yield required(f"{path}.image")
    yield from _port_causes(path, container)
    yield from _env_causes(path, container)
    yield from _mount_causes(path, container, volumes)
    yield from _choice(container, f"{path}.", "imagePullPolicy", ("Always", "IfNotPresent", "Never"))
    if init:
        yield from _init_causes(path, container)


def _port_causes(path: str, container: Json) -> Iterator[Cause]:
    for index, port in enumerate(container.get("ports") or ()):
        number = port.get("containerPort", 0)
        if not 0 < number <= _MAX_PORT:
            where = f"{path}.ports[{index}].containerPort"
            yield invalid_value(where, str(number), "must be between 1 and 65535, inclusive")


def _env_causes(path: str, container: Json) -> Iterator[Cause]:
    for index, variable in enumerate(container.get("env") or ()):
        where = f"{path}.env[{index}]"
        if not variable.get("name"):
            yield required(f"{where}.name")
        if variable.get("value") and variable.get("valueFrom"):
            yield invalid_value(f"{where}.valueFrom", '""', "may not be specified when `value` is not empty")


def _mount_causes(path: str, container: Json, volumes: set[str]) -> Iterator[Cause]:
    mounts: list[str] = []
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        where = f"{path}.volumeMounts[{index}]"
        if mount.get("name") not in volumes:
            yield Cause("FieldValueNotFound", f"Not found: {_quote(mount.get('name', ''))}", f"{where}.name")
        mount_path = mount.get("mountPath", "")
        if not mount_path:
            yield required(f"{where}.mountPath")
        elif mount_path in mounts:
            yield invalid_value(f"{where}.mountPath", _quote(mount_path), "must be unique")
        mounts.append(mount_path)


def _init_causes(path: str, container: Json) -> Iterator[Cause]:
    policy = container.get("restartPolicy")
    if policy not in (None, "Always", "OnFailure", "Never"):
        yield unsupported_value(f"{path}.restartPolicy", _quote(policy), ('"Always"', '"Never"', '"OnFailure"'))
    if policy == "Always":
        return
    for name in ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle"):
        if name in container:
            text = "may not be set for init containers without restartPolicy=Always"
            yield forbidden_field(f"{path}.{name}", text)


def _name_causes(path: str, names: Iterable[str]) -> Iterator[Cause]:
    seen: list[str] = []
    for index, name in enumerate(names):
        yield from _one_name_causes(f"{path}[{index}].name", name, seen)
        seen.append(name)


def _one_name_causes(path: str, name: str, seen: list[str]) -> Iterator[Cause]:
    if not name:
        yield required(path)
    elif not is_dns_label(name):
        yield invalid_value(path, _quote(name), LABEL_RULE)
    elif name in seen:
        yield duplicate(path, _quote(name))


def _choice(owner: Json, path: str, name: str, allowed: tuple[str, ...]) -> Iterator[Cause]:
    value = owner.get(name)
    if value is not None and value not in allowed:
        yield unsupported_value(path + name, _quote(value), [_quote(choice) for choice in sorted(allowed)])


def _quote(text: str) -> str:
    return orjson.dumps(text).decode()
