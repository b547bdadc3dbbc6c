"""Pods: defaults, validation, and which parts of a spec may change.

The defaults are those the code here and the kubelet read, in the real server's words; they follow
k8s.io/kubernetes/pkg/apis/core/v1/defaults.go and the admission plugins that run in every cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from controller.local.apiserver.errors import Cause, forbidden_field
from controller.local.apiserver.store.pod_validation import spec_causes
from controller.local.apiserver.store.strategy import Strategy

Json = dict[str, Any]

_TOLERATION_SECONDS = 300
_DEFAULT_TOLERATIONS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
# Volume sources whose files get this mode by default: 0644.
_FILE_MODE = 0o644

_IMMUTABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


_CONTAINER_STATUSES = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")


class PodStrategy(Strategy):
    """Pods."""

    def prepare_create(self, body: Json, now: datetime) -> Json:
        """A new Pod is Pending, whatever status it came with."""
        del now
        spec = dict(body.get("spec") or {})
        default_spec(spec)
        return {
            "metadata": body["metadata"],
            "spec": spec,
            "status": {"phase": "Pending", "qosClass": _qos_class(spec)},
        }

    def prepare_update(self, new: Json, old: Json, subresource: str) -> Json:
        """Status carries labels and annotations too; neither side touches the other's part."""
        if subresource == "status":
            status = dict(new.get("status") or {})
            status["qosClass"] = old["status"].get("qosClass", "BestEffort")
            status["conditions"] = [
                {"lastProbeTime": None, "lastTransitionTime": None, **condition}
                for condition in status.get("conditions") or ()
            ]
            if not status["conditions"]:
                del status["conditions"]
            for kind in _CONTAINER_STATUSES:
                if kind in status:
                    status[kind] = [{"lastState": {}, "state": {}, **shown} for shown in status[kind] or ()]
            metadata = dict(new["metadata"])
            _keep(metadata, old["metadata"], "ownerReferences")
            return {**old, "metadata": metadata, "status": status}
        spec = new.get("spec") or {}
        if spec is not old["spec"]:
            spec = dict(spec)
            default_spec(spec)
            if spec == old["spec"]:
                spec = old["spec"]
        return {"metadata": new["metadata"], "spec": spec, "status": old["status"]}

    def validate(self, body: Json) -> list[Cause]:
        """What a kubelet could not run."""
        return list(spec_causes(body["spec"]))

    def validate_update(self, new: Json, old: Json, subresource: str) -> list[Cause]:
        """Images, tolerations and the deadline may change, nothing else."""
        if subresource or new["spec"] is old["spec"]:
            return []
        causes = self.validate(new)
        if not causes and _frozen_part(new["spec"], old["spec"]) != old["spec"]:
            causes.append(forbidden_field("spec", _IMMUTABLE))
        return causes

    def grace_seconds(self, body: Json, asked: int | None) -> int | None:
        """The Pod's own grace, unless the request names one; none if nothing can be running."""
        spec, status = body["spec"], body.get("status") or {}
        if not spec.get("nodeName") or status.get("phase") in ("Failed", "Succeeded"):
            return 0
        seconds: int = asked if asked is not None else spec.get("terminationGracePeriodSeconds", 0)
        return seconds if seconds >= 0 else 1

    def bookmark(self) -> Json:
        """Go encodes an empty Pod so."""
        return {"spec": {"containers": None}, "status": {}}


def _keep(new: Json, old: Json, name: str) -> None:
    if name in old:
        new[name] = old[name]
    else:
        new.pop(name, None)


# --- defaults ---------------------------------------------------------------------------------------------


def default_spec(spec: Json) -> None:
    """Fills a spec in place; its nested parts are replaced, not changed."""
    for part in ("containers", "initContainers"):
        if spec.get(part):
            spec[part] = [_default_container(container) for container in spec[part]]
    if spec.get("volumes"):
        spec["volumes"] = [_default_volume(volume) for volume in spec["volumes"]]
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("serviceAccountName", spec.get("serviceAccount", "default"))
    spec["serviceAccount"] = spec["serviceAccountName"]
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    tolerations = list(spec.get("tolerations") or ())
    known = {t.get("key") or "" for t in tolerations if t.get("effect") in (None, "", "NoExecute")}
    tolerations.extend(
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _TOLERATION_SECONDS}
        for key in _DEFAULT_TOLERATIONS
        if key not in known and "" not in known
    )
    spec["tolerations"] = tolerations
    spec.setdefault("priority", 0)
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")


def _default_container(given: Json) -> Json:
    container = dict(given)
    if container.get("ports"):
        container["ports"] = [{**port, "protocol": port.get("protocol", "TCP")} for port in container["ports"]]
    resources = dict(container.get("resources") or {})
    if resources.get("limits"):
        resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}
    container["resources"] = resources
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault("imagePullPolicy", _pull_policy(container.get("image", "")))
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if name in container:
            container[name] = _default_probe(container[name])
    if container.get("lifecycle"):
        container["lifecycle"] = {hook: _default_handler(h) for hook, h in container["lifecycle"].items()}
    if container.get("env"):
        container["env"] = [_default_env(variable) for variable in container["env"]]
    return container


def _pull_policy(image: str) -> str:
    tag = image.rpartition("/")[2].partition(":")[2]
    return "Always" if "@" not in image and tag in ("", "latest") else "IfNotPresent"


def _default_probe(given: Json) -> Json:
    defaults = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
    return {**defaults, **_default_handler(given)}


def _default_handler(given: Json) -> Json:
    handler = dict(given)
    if "httpGet" in handler:
        handler["httpGet"] = {"path": "/", "scheme": "HTTP", **handler["httpGet"]}
    if "grpc" in handler:
        handler["grpc"] = {"service": "", **handler["grpc"]}
    return handler


def _default_env(variable: Json) -> Json:
    reference = (variable.get("valueFrom") or {}).get("fieldRef")
    if reference is None:
        return variable
    return {**variable, "valueFrom": {**variable["valueFrom"], "fieldRef": {"apiVersion": "v1", **reference}}}


def _default_volume(given: Json) -> Json:
    volume = dict(given)
    if len(volume) == 1:
        volume["emptyDir"] = {}
    for source in ("secret", "configMap", "projected", "downwardAPI"):
        if source in volume:
            volume[source] = {"defaultMode": _FILE_MODE, **volume[source]}
    if "downwardAPI" in volume:
        volume["downwardAPI"] = _default_downward(volume["downwardAPI"])
    if "projected" in volume:
        sources = [_default_projection(source) for source in volume["projected"].get("sources") or ()]
        volume["projected"] = {**volume["projected"], "sources": sources}
    if "hostPath" in volume:
        volume["hostPath"] = {"type": "", **volume["hostPath"]}
    return volume


def _default_projection(source: Json) -> Json:
    if "downwardAPI" in source:
        return {**source, "downwardAPI": _default_downward(source["downwardAPI"])}
    if "serviceAccountToken" in source:
        return {**source, "serviceAccountToken": {"expirationSeconds": 3600, **source["serviceAccountToken"]}}
    return source


def _default_downward(given: Json) -> Json:
    items = [
        {**item, "fieldRef": {"apiVersion": "v1", **item["fieldRef"]}} if "fieldRef" in item else item
        for item in given.get("items") or ()
    ]
    return {**given, "items": items} if items else given


def _qos_class(spec: Json) -> str:
    guaranteed, any_set = True, False
    for container in _containers(spec):
        resources = container.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        any_set = any_set or bool(requests or limits)
        for name in ("cpu", "memory"):
            if name not in limits or requests.get(name, limits[name]) != limits[name]:
                guaranteed = False
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _containers(spec: Json) -> Iterator[Json]:
    yield from spec.get("initContainers") or ()
    yield from spec.get("containers") or ()


def _frozen_part(new: Json, old: Json) -> Json:
    """The new spec with the fields that may change set back to the old ones."""
    frozen = dict(new)
    for part in ("containers", "initContainers"):
        news, olds = new.get(part) or (), old.get(part) or ()
        if len(news) == len(olds) and news:
            frozen[part] = [{**n, "image": o.get("image")} for n, o in zip(news, olds, strict=True)]
    for name in ("activeDeadlineSeconds",):
        _keep(frozen, old, name)
    if all(toleration in new.get("tolerations", ()) for toleration in old.get("tolerations", ())):
        _keep(frozen, old, "tolerations")
    if old.get("terminationGracePeriodSeconds", 0) < 0 and new.get("terminationGracePeriodSeconds") == 1:
        _keep(frozen, old, "terminationGracePeriodSeconds")
    if len(new.get("schedulingGates") or ()) < len(old.get("schedulingGates") or ()):
        _keep(frozen, old, "schedulingGates")
    return frozen
