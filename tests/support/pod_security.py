"""Kubernetes' Pod Security Standard `restricted`, field by field, as of 1.34: what a Pod has that it refuses.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected"),
    "secret",
}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
SELINUX_TYPES = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
SECCOMP = {"RuntimeDefault", "Localhost"}
APPARMOR = {None, *SECCOMP}


def refused(spec: Json) -> Iterator[str]:
    """Each field of a Pod's spec that `restricted` refuses, or misses."""
    pod = spec.get("securityContext") or {}
    yield from (name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name))
    for volume in spec.get("volumes") or []:
        yield from (f"volume {volume['name']}: {kind}" for kind in volume.keys() - {"name"} - VOLUMES)
    yield from (f"sysctl {entry['name']}" for entry in pod.get("sysctls") or [] if entry["name"] not in SYSCTLS)
    yield from (f"Pod: {problem}" for problem in _context(pod))
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind) or []:
            yield from (f"container {container['name']}: {problem}" for problem in _container(container, pod))


def _container(container: Json, pod: Json) -> Iterator[str]:
    own = container.get("securityContext") or {}
    yield from _context(own)
    both = {**pod, **own}
    if both.get("runAsNonRoot") is not True:
        yield "runAsNonRoot is not true"
    if (both.get("seccompProfile") or {}).get("type") not in SECCOMP:
        yield "seccompProfile is none"
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if own.get("procMount", "Default") != "Default":
        yield "procMount"
    yield from _capabilities(own.get("capabilities") or {})
    if any(port.get("hostPort") for port in container.get("ports") or []):
        yield "hostPort"
    hooks = container.get("lifecycle") or {}
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        yield from (f"{name} has a host" for _ in _hosts(container.get(name) or {}))
    for name in ("postStart", "preStop"):
        yield from (f"{name} has a host" for _ in _hosts(hooks.get(name) or {}))


def _capabilities(given: Json) -> Iterator[str]:
    if "ALL" not in (given.get("drop") or []):
        yield "capabilities does not drop ALL"
    if set(given.get("add") or []) - {"NET_BIND_SERVICE"}:
        yield "capabilities adds some"


def _hosts(handler: Json) -> list[str]:
    return [kind for kind in ("httpGet", "tcpSocket") if (handler.get(kind) or {}).get("host")]


def _context(context: Json) -> Iterator[str]:
    """What a Pod's and a container's security context have in common."""
    if context.get("runAsUser") == 0:
        yield "runAsUser is 0"
    if context.get("runAsNonRoot") is False:
        yield "runAsNonRoot is false"
    if (seccomp := (context.get("seccompProfile") or {}).get("type")) is not None and seccomp not in SECCOMP:
        yield "seccompProfile"
    if (context.get("appArmorProfile") or {}).get("type") not in APPARMOR:
        yield "appArmorProfile"
    selinux = context.get("seLinuxOptions") or {}
    if selinux.get("type") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield "seLinuxOptions"
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield "hostProcess"
