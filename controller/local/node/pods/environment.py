"""A container's command line and environment: references resolved, $(VAR) expanded, mount paths replaced. Pure.

A process here shares the machine's file system: there are no mount namespaces, so nothing can appear at a container's
`mountPath`. Instead every occurrence of one of the container's mount paths, as a path of its own or the first segments
of one, becomes the volume's folder on the host, in the command, the arguments and the environment's values. So
programs find their folders by arguments and injected environment variables; a path that is fixed inside a program is
not replaced. What Secrets hold is data and left alone.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.local.node.pods.pod_spec import ContainerSpec, Json

Lookup = Callable[[str], Mapping[str, str] | None]  # the data of a ConfigMap or Secret by name, in the Pod's namespace

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z0-9_.\-]+)\)")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")
# Before a path: its text's start, or anything that cannot belong to the same path; or a local URL's scheme.
_BEFORE = r"(?:(?<![\w.\-/~%+])|(?<=file://)|(?<=unix://))"
_AFTER = r"(?=/|$|[^\w.\-])"
_SUFFIXES = {
    "": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40,
}  # fmt: skip


class ConfigError(Exception):
    """A container cannot be made as its Pod says, for now: shown as the waiting reason and message."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class PodFacts:
    """What references to the Pod's own fields resolve to."""

    pod: Json
    pod_ip: str
    host_ip: str
    node_name: str
    capacity: Mapping[str, str]


@dataclass(frozen=True)
class Sources:
    """Where values come from."""

    facts: PodFacts
    config_map: Lookup
    secret: Lookup


@dataclass(frozen=True)
class Resolved:
    """An environment before mount paths are replaced; `secrets` names the variables whose text is data."""

    variables: Mapping[str, str]
    secrets: frozenset[str]


def resolve(container: ContainerSpec, base: Mapping[str, str], sources: Sources) -> Resolved:
    """All variables: base, then envFrom, then env, each later one winning. ConfigError if a reference is missing."""
    variables = dict(base)
    secrets: set[str] = set()
    for entry in container.env_from:
        found, secret = _from_source(entry, sources)
        variables.update(found)
        secrets = secrets | set(found) if secret else secrets - set(found)
    for entry in container.env:
        name = entry["name"]
        secrets.discard(name)
        reference = entry.get("valueFrom")
        if not reference:
            variables[name] = expand(entry.get("value") or "", variables)
            continue
        value = _value_from(container, reference, sources)
        if value is None:  # optional and missing
            continue
        variables[name] = value
        if "secretKeyRef" in reference:
            secrets.add(name)
    return Resolved(variables, frozenset(secrets))


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace $(VAR) where VAR is known; $$ stands for one $. Unknown ones stay as they are."""

    def replace(match: re.Match[str]) -> str:
        return "$" if match[1] is None else variables.get(match[1], match[0])

    return _REFERENCE.sub(replace, text)


class PathRewriter:
    """Replaces mount paths by host folders, the longest first and each place once."""

    def __init__(self, folders: Mapping[str, str]) -> None:
        normal = {path.rstrip("/"): folder for path, folder in folders.items()}
        if "" in normal:
            raise ConfigError("CreateContainerError", "a volume at / cannot be mounted here")
        paths = "|".join(re.escape(path) for path in sorted(normal, key=len, reverse=True))
        self._folders = normal
        self._pattern = re.compile(f"{_BEFORE}({paths}){_AFTER}") if paths else None

    def text(self, text: str) -> str:
        """One text with its paths replaced."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: self._folders[match[1]], text)

    def argv(self, argv: Iterable[str]) -> tuple[str, ...]:
        """Each argument with its paths replaced."""
        return tuple(self.text(argument) for argument in argv)

    def environment(self, resolved: Resolved) -> dict[str, str]:
        """Each variable with its paths replaced, but for those that came from Secrets."""
        return {
            name: value if name in resolved.secrets else self.text(value) for name, value in resolved.variables.items()
        }


def command_line(container: ContainerSpec, image_command: Sequence[str], variables: Mapping[str, str]) -> list[str]:
    """The command, else the image's as configured, then the arguments, expanded. ConfigError without a command."""
    command = container.command or image_command
    if not command:
        message = (
            f'container "{container.name}" has no command, and no command is configured for its image '
            f'"{container.image}": containers run as processes of this machine, images are not pulled'
        )
        raise ConfigError("CreateContainerError", message)
    return [expand(argument, variables) for argument in (*command, *container.args)]


def field(path: str, facts: PodFacts) -> str:
    """The value of a fieldRef's fieldPath. ConfigError for one that is not offered here."""
    metadata, spec = facts.pod["metadata"], facts.pod["spec"]
    if match := _SUBSCRIPT.fullmatch(path):
        return str((metadata.get(match[1]) or {}).get(match[2], ""))
    values: dict[str, str] = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": facts.node_name,
        "spec.serviceAccountName": spec.get("serviceAccountName") or "default",
        "status.podIP": facts.pod_ip,
        "status.podIPs": facts.pod_ip,
        "status.hostIP": facts.host_ip,
        "status.hostIPs": facts.host_ip,
    }
    if path in values:
        return values[path]
    if path in {"metadata.labels", "metadata.annotations"}:
        pairs = metadata.get(path.removeprefix("metadata.")) or {}
        return "".join(f"{key}={_quote(pairs[key])}\n" for key in sorted(pairs))
    raise ConfigError("CreateContainerConfigError", f'fieldPath "{path}" is not supported')


def resource(reference: Json, resources: Json, facts: PodFacts) -> str:
    """The value of a resourceFieldRef: a limit or request in units of its divisor, rounded up."""
    kind, _, name = str(reference["resource"]).partition(".")
    amount = (resources.get(kind) or {}).get(name) or (resources.get("limits") or {}).get(name)
    value = _quantity(str(amount or facts.capacity.get(name, "0")))
    divisor = _quantity(str(reference.get("divisor") or "1")) or 1.0
    return str(math.ceil(value / divisor))


def _from_source(entry: Json, sources: Sources) -> tuple[dict[str, str], bool]:
    secret = "secretRef" in entry
    reference: Json = entry["secretRef"] if secret else entry["configMapRef"]
    data = (sources.secret if secret else sources.config_map)(reference["name"])
    if data is None:
        if not reference.get("optional"):
            raise _missing("secret" if secret else "configmap", reference["name"])
        data = {}
    prefix = entry.get("prefix") or ""
    return {prefix + key: value for key, value in data.items()}, secret


def _value_from(container: ContainerSpec, reference: Json, sources: Sources) -> str | None:
    facts = sources.facts
    if "fieldRef" in reference:
        return field(reference["fieldRef"]["fieldPath"], facts)
    if "resourceFieldRef" in reference:
        return resource(reference["resourceFieldRef"], container.resources or {}, facts)
    for key, lookup, kind in (
        ("secretKeyRef", sources.secret, "secret"),
        ("configMapKeyRef", sources.config_map, "configmap"),
    ):
        if key in reference:
            return _keyed(reference[key], lookup, kind, str(facts.pod["metadata"]["namespace"]))
    raise ConfigError("CreateContainerConfigError", f"valueFrom {sorted(reference)} is not supported")


def _keyed(reference: Json, lookup: Lookup, kind: str, namespace: str) -> str | None:
    data = lookup(reference["name"])
    if data is not None and reference["key"] in data:
        return data[reference["key"]]
    if reference.get("optional"):
        return None
    if data is None:
        raise _missing(kind, reference["name"])
    title = "Secret" if kind == "secret" else "ConfigMap"
    message = f"couldn't find key {reference['key']} in {title} {namespace}/{reference['name']}"
    raise ConfigError("CreateContainerConfigError", message)


def _missing(kind: str, name: str) -> ConfigError:
    return ConfigError("CreateContainerConfigError", f'{kind} "{name}" not found')


def _quantity(text: str) -> float:
    """A Kubernetes quantity as a number."""
    number = text.rstrip("KMGTikm")
    return float(number) * _SUFFIXES[text[len(number) :]]


def _quote(value: Any) -> str:
    """As Go's %q, which the downward API uses: double quotes, with backslash escapes."""
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'
