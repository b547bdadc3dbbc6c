"""The parts of a Pod's JSON that the kubelet acts on, as typed values. Pure.

The API server has defaulted and checked the object; absent fields get the API's defaults here all the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Json = Mapping[str, Any]
DEFAULT_GRACE_SECONDS = 30.0
DEFAULT_PROBE_PERIOD_SECONDS = 10.0


class Role(StrEnum):
    """What a container is in its Pod. A sidecar is an init container with restartPolicy Always."""

    INIT = "init"
    SIDECAR = "sidecar"
    MAIN = "main"


@dataclass(frozen=True)
class Exec:
    """Run a command in the container; exit code 0 is success."""

    command: Sequence[str]


@dataclass(frozen=True)
class HttpGet:
    """GET; a status of 200 to 399 is success. An empty host is the Pod's address."""

    host: str
    port: int | str
    path: str = "/"
    scheme: str = "http"
    headers: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class TcpSocket:
    """Connect; being accepted is success. An empty host is the Pod's address."""

    host: str
    port: int | str


@dataclass(frozen=True)
class Sleep:
    """Do nothing for a while; always a success."""

    seconds: float


Handler = Exec | HttpGet | TcpSocket | Sleep


@dataclass(frozen=True)
class Probe:
    """A question asked again and again. Times in seconds, thresholds in answers of a kind in a row."""

    handler: Handler
    initial_delay: float = 0.0
    period: float = DEFAULT_PROBE_PERIOD_SECONDS
    timeout: float = 1.0
    success_threshold: int = 1
    failure_threshold: int = 3
    grace_seconds: float | None = None  # instead of the Pod's, when failing it ends the container


@dataclass(frozen=True)
class Mount:
    """Where a program expects a volume. The sub path, with `expands`, may hold $(VAR) of the container's."""

    volume: str
    path: str
    sub_path: str = ""
    expands: bool = False


@dataclass(frozen=True)
class ContainerSpec:
    """One container. `env`, `env_from` and `resources` stay JSON: `environment` reads them."""

    name: str
    role: Role
    image: str = ""
    command: Sequence[str] = ()
    args: Sequence[str] = ()
    working_directory: str = ""
    env: Sequence[Json] = ()
    env_from: Sequence[Json] = ()
    resources: Json | None = None
    mounts: Sequence[Mount] = ()
    ports: Mapping[str, int] | None = None
    startup: Probe | None = None
    liveness: Probe | None = None
    readiness: Probe | None = None
    post_start: Handler | None = None
    pre_stop: Handler | None = None


@dataclass(frozen=True)
class PodSpec:
    """One Pod: init containers first, each list in the order written."""

    uid: str
    namespace: str
    name: str
    containers: Sequence[ContainerSpec]
    restart_policy: str = "Always"
    grace_seconds: float = DEFAULT_GRACE_SECONDS
    volumes: Sequence[Json] = ()
    readiness_gates: Sequence[str] = ()
    host_network: bool = False


def parse(pod: Json) -> PodSpec:
    """The typed view of a Pod object. KeyError, TypeError or ValueError if it is none."""
    metadata, spec = pod["metadata"], pod["spec"]
    init = [
        _container(entry, Role.SIDECAR if entry.get("restartPolicy") == "Always" else Role.INIT)
        for entry in spec.get("initContainers") or ()
    ]
    main = [_container(entry, Role.MAIN) for entry in spec["containers"]]
    grace = spec.get("terminationGracePeriodSeconds")
    return PodSpec(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        containers=(*init, *main),
        restart_policy=spec.get("restartPolicy") or "Always",
        grace_seconds=DEFAULT_GRACE_SECONDS if grace is None else float(grace),
        volumes=tuple(spec.get("volumes") or ()),
        readiness_gates=tuple(gate["conditionType"] for gate in spec.get("readinessGates") or ()),
        host_network=bool(spec.get("hostNetwork")),
    )


def _container(entry: Json, role: Role) -> ContainerSpec:
    lifecycle = entry.get("lifecycle") or {}
    return ContainerSpec(
        name=entry["name"],
        role=role,
        image=entry.get("image") or "",
        command=tuple(entry.get("command") or ()),
        args=tuple(entry.get("args") or ()),
        working_directory=entry.get("workingDir") or "",
        env=tuple(entry.get("env") or ()),
        env_from=tuple(entry.get("envFrom") or ()),
        resources=entry.get("resources") or {},
        mounts=tuple(_mounts(entry.get("volumeMounts") or ())),
        ports={p["name"]: int(p["containerPort"]) for p in entry.get("ports") or () if p.get("name")},
        startup=_probe(entry.get("startupProbe")),
        liveness=_probe(entry.get("livenessProbe")),
        readiness=_probe(entry.get("readinessProbe")),
        post_start=_handler(lifecycle.get("postStart")),
        pre_stop=_handler(lifecycle.get("preStop")),
    )


def _mounts(entries: Iterable[Json]) -> Iterable[Mount]:
    for entry in entries:
        expression = entry.get("subPathExpr") or ""
        sub_path = expression or entry.get("subPath") or ""
        yield Mount(entry["name"], entry["mountPath"], sub_path, bool(expression))


def _probe(entry: Json | None) -> Probe | None:
    handler = _handler(entry)
    if entry is None or handler is None:
        return None
    grace = entry.get("terminationGracePeriodSeconds")
    return Probe(
        handler=handler,
        initial_delay=float(entry.get("initialDelaySeconds") or 0),
        period=float(entry.get("periodSeconds") or DEFAULT_PROBE_PERIOD_SECONDS),
        timeout=float(entry.get("timeoutSeconds") or 1),
        success_threshold=int(entry.get("successThreshold") or 1),
        failure_threshold=int(entry.get("failureThreshold") or 3),
        grace_seconds=None if grace is None else float(grace),
    )


def _handler(entry: Json | None) -> Handler | None:
    if not entry:
        return None
    if command := entry.get("exec"):
        return Exec(tuple(command.get("command") or ()))
    if get := entry.get("httpGet"):
        headers = tuple((header["name"], header["value"]) for header in get.get("httpHeaders") or ())
        path = "/" + (get.get("path") or "").removeprefix("/")
        scheme = (get.get("scheme") or "HTTP").lower()
        return HttpGet(get.get("host") or "", get["port"], path, scheme, headers)
    if socket := entry.get("tcpSocket"):
        return TcpSocket(socket.get("host") or "", socket["port"])
    if sleep := entry.get("sleep"):
        return Sleep(float(sleep["seconds"]))
    return None
