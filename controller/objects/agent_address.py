"""Where a Pod's containers find its agent: `PODSLOTS_URL`, made of the address that Kubernetes gives the Pod."""

from typing import Any

from agent.wire import PORT
from controller.objects.pool import Tls

Json = dict[str, Any]

URL, POD_IP = "PODSLOTS_URL", "PODSLOTS_POD_IP"


def variables(tls: Tls | None) -> list[Json]:
    """The variables of a container."""
    return [
        {"name": POD_IP, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": URL, "value": f"http{'s' if tls else ''}://$({POD_IP}):{PORT}"},
    ]


def bracket(pod_spec: Json) -> None:
    """Have the URL right where Pods have IPv6 addresses: Kubernetes puts these into a variable as they are."""
    for container in pod_spec["containers"]:
        for entry in container.get("env") or ():
            if entry["name"] == URL:
                entry["value"] = entry["value"].replace(f"$({POD_IP})", f"[$({POD_IP})]")
