"""The manifests hang together: names, images, and examples that this version takes."""

import asyncio
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from controller import crds, names
from controller.config import Config
from controller.kube.api import PODS
from controller.objects.pool import PoolSpec
from controller.objects.task import Task
from controller.objects.template import TokenSecret, build_pod
from controller.own_image import agent_image
from manifests import render
from tests.support.kubectl import KUBECTL
from tests.support.memory_api import MemoryApi
from tests.support.repository import ROOT

MANIFESTS = ROOT / "manifests"


def documents(folder: Path) -> list[dict[str, Any]]:
    files = [path for path in sorted(folder.rglob("*.yaml")) if path.name != "kustomization.yaml"]
    found = [yaml.safe_load_all(path.read_text()) for path in files]
    return [document for group in found for document in group]


def test_every_manifest_is_part_of_the_base() -> None:
    listed = set()
    for path in (MANIFESTS / "base").rglob("kustomization.yaml"):
        for name in yaml.safe_load(path.read_text())["resources"]:
            target = path.parent / name
            listed.add((target / "kustomization.yaml" if target.is_dir() else target).resolve())
    written = {*(MANIFESTS / "base").rglob("*.yaml"), MANIFESTS / "protection" / "kustomization.yaml"}
    assert listed | {MANIFESTS / "base" / "kustomization.yaml"} == written


def test_the_base_can_be_built() -> None:
    built = subprocess.run([KUBECTL, "kustomize", str(MANIFESTS / "base")], check=True, capture_output=True, timeout=30)
    kinds = [document["kind"] for document in yaml.safe_load_all(built.stdout)]
    assert kinds.count("CustomResourceDefinition") == 3


def test_the_one_file_is_the_base() -> None:
    built = subprocess.run([KUBECTL, "kustomize", str(MANIFESTS / "base")], check=True, capture_output=True, timeout=30)
    assert (MANIFESTS / "install.yaml").read_text() == render.HEADER + built.stdout.decode()


IMAGES = """
resources: [base]
images:
  - {name: podslots/controller, newName: registry.example.com/tools/podslots-controller, newTag: "1.2.3"}
  - {name: podslots/agent, newName: registry.example.com/tools/podslots-agent, newTag: "1.2.3"}
"""


def test_kustomize_sets_the_images_of_controller_and_agent(tmp_path: Path) -> None:
    """The agent's, too, which the controller reads from its own Pod; nothing is left of the names in the base."""
    for folder in ("base", "protection"):
        shutil.copytree(MANIFESTS / folder, tmp_path / folder)
    (tmp_path / "kustomization.yaml").write_text(IMAGES)
    built = subprocess.run([KUBECTL, "kustomize", str(tmp_path)], check=True, capture_output=True, timeout=30)
    found = [document for document in yaml.safe_load_all(built.stdout) if document["kind"] == "Deployment"]
    spec = found[0]["spec"]["template"]["spec"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "podslots-system", "name": "p"}, "spec": spec}
    api = MemoryApi()
    api.put(PODS, pod)
    agent = asyncio.run(agent_image(api, "podslots-system", "p"))
    assert agent == "registry.example.com/tools/podslots-agent:1.2.3"
    assert spec["containers"][0]["image"] == "registry.example.com/tools/podslots-controller:1.2.3"
    assert re.findall(r"podslots/(?:agent|controller)[:@]", built.stdout.decode()) == []


def test_the_crds_are_found_from_the_source_tree() -> None:
    assert crds.folder() == MANIFESTS / "base" / "crds"


def test_the_deployment_gives_the_controller_settings_it_reads() -> None:
    deployment = next(document for document in documents(MANIFESTS / "base") if document["kind"] == "Deployment")
    spec = deployment["spec"]["template"]["spec"]
    container = spec["containers"][0]
    fields = {"metadata.namespace": "podslots-system", "metadata.name": "a-pod"}
    given = {entry["name"]: fields[entry["valueFrom"]["fieldRef"]["fieldPath"]] for entry in container["env"]}
    config = Config.from_environ(given)
    assert config.image_pod == "a-pod"
    assert [entry["name"] for entry in spec["initContainers"]] == [names.AGENT_CONTAINER]
    assert config.namespace == deployment["metadata"]["namespace"]
    assert config.http_port == container["ports"][0]["containerPort"]


def test_the_examples_can_be_used() -> None:
    objects = documents(MANIFESTS / "examples")
    placed = {"namespace": "default", "uid": "u", "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"}
    pools = {}
    for pool in (obj for obj in objects if obj["kind"] == "SlotPool"):
        pool["metadata"].update(placed)
        spec = pools[pool["metadata"]["name"]] = PoolSpec.parse(pool)
        build_pod(pool, spec, name="p", token_secret=TokenSecret(name="s", uid="u"), agent_image="a")
    for task in (obj for obj in objects if obj["kind"] == "SlotTask"):
        task["metadata"].update(placed)
        assert pools[task["spec"]["pool"]].accepts(Task.parse(task).spec.type)
