"""Everything that is shipped, and every Pod that the controller makes of the examples, runs under `restricted`."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.objects.pool import PoolSpec
from controller.objects.template import TokenSecret, build_pod
from manifests.check import NO_OBJECTS
from tests.support.pod_security import refused
from tests.support.repository import ROOT

Json = dict[str, Any]

MANIFESTS = ROOT / "manifests"
PLAIN: Json = {"spec": {"template": {"spec": {"containers": [{"name": "worker", "image": "w"}]}}}}
TLS: Json = {"auth": {"tls": {"secretName": "t", "clientAuth": {"secretName": "c"}}}}


def documents() -> Iterator[tuple[Path, Json]]:
    for path in sorted(MANIFESTS.rglob("*.yaml")):
        if path.name.endswith(NO_OBJECTS):
            continue
        for document in yaml.safe_load_all(path.read_text()):
            yield path, document


def built(pool: Json) -> Json:
    """The spec of the Pod that the controller makes of a pool."""
    pool = {"metadata": {"name": "p"}, **pool}
    pool["metadata"] |= {"namespace": "ns", "uid": "u"}
    secret = TokenSecret(name="s", uid="u")
    made = build_pod(pool, PoolSpec.parse(pool), name="p-1", token_secret=secret, agent_image="a")
    spec: Json = made["spec"]
    return spec


def shipped() -> dict[str, Json]:
    """Every Pod's spec, by where it stands."""
    found = {}
    for path, document in documents():
        place, spec = f"{path.relative_to(MANIFESTS)}: {document['kind']}", document.get("spec") or {}
        if document["kind"] == "Pod":
            found[place] = spec
        elif document["kind"] == "SlotPool":
            found[place] = built(document)
        elif "template" in spec:
            found[place] = spec["template"]["spec"]
    return found


def test_there_is_what_is_looked_at() -> None:
    kinds = {place.partition(": ")[2] for place in shipped()}
    assert {"Deployment", "SlotPool", "Pod"} <= kinds


@pytest.mark.parametrize("place", shipped())
def test_what_is_shipped_is_restricted(place: str) -> None:
    assert list(refused(shipped()[place])) == []


@pytest.mark.parametrize("more", [{}, TLS], ids=["plain", "with TLS"])
def test_the_controller_makes_restricted_pods(more: Json) -> None:
    """Of a template that says nothing of security."""
    pool = copy.deepcopy(PLAIN)
    pool["spec"] |= more
    assert list(refused(built(pool))) == []


@pytest.mark.parametrize(
    ("container", "pod"),
    [
        ({"securityContext": {"allowPrivilegeEscalation": True}}, {}),
        ({"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}}, {}),
        ({"securityContext": {"capabilities": {}}}, {}),
        ({"securityContext": {"runAsUser": 0}}, {}),
        ({"securityContext": {"privileged": True}}, {}),
        ({"ports": [{"containerPort": 1, "hostPort": 1}]}, {}),
        ({"readinessProbe": {"httpGet": {"port": 1, "host": "h"}}}, {}),
        ({}, {"hostNetwork": True}),
        ({}, {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
        ({}, {"securityContext": {"runAsNonRoot": False}}),
        ({}, {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
    ],
)
def test_what_restricted_refuses_is_found(container: Json, pod: Json) -> None:
    spec = built(copy.deepcopy(PLAIN))
    spec.update(pod)
    spec["containers"][0].update(container)
    assert list(refused(spec))
