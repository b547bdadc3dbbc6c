"""Pages link what is there, show objects that are valid, and name commands and flags that exist."""

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from controller.cli.main import main
from controller.crds import folder
from controller.local.apiserver.schema.structural import CustomSchema
from controller.local.apiserver.schema.validation import validate
from controller.names import GROUP
from controller.objects.template_rules import check_template
from manifests.check import problems
from tests.support.kubectl import KUBECTL
from tests.support.pages import PAGES, Block, anchors, blocks, links
from tests.support.repository import ROOT

BLOCKS = [block for page in PAGES for block in blocks(page)]
ELSEWHERE = {"kustomize.config.k8s.io", "monitoring.coreos.com", "cert-manager.io"}
"""Groups of which nothing here has the schemas."""
PIPELINES = {".github/workflows/infra.yml", ".gitlab-ci.yml"}
LANGUAGES = {"sh", "console", "yaml", "json", "hcl", "dockerfile", "python", "mermaid", "csv", "promql", ""}


def shown(block: Block) -> str:
    return block.place


def test_every_page_is_linked_from_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / target.partition("#")[0]).resolve() for target in links(index)}
    assert set(PAGES) - {index, ROOT / "README.md"} <= linked
    assert index in {(ROOT / target.partition("#")[0]).resolve() for target in links(ROOT / "README.md")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert not broken


SOURCES = ("agent", "binary", "controller", "manifests", "metrics", "tests")
NAMED = re.compile(r"`((?:[a-z_]+/)+[a-z_]+(?:\.py)?)/?`")
ABOUT_THE_CODE = {"a-task.md", "architecture.md"}
"""Pages whose paths are those of the code, without `controller/` or `agent/` before them."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_that_a_page_names_are_there(page: Path) -> None:
    named = {path.removesuffix(".py") for path in NAMED.findall(page.read_text())}
    within = [ROOT, ROOT / "agent", ROOT / "controller"] if page.name in ABOUT_THE_CODE else [ROOT]
    wanted = {path for path in named if page.name in ABOUT_THE_CODE or path.partition("/")[0] in SOURCES}
    missing = {path for path in wanted if not any(there(folder / path) for folder in within)}
    assert not missing


def there(path: Path) -> bool:
    return path.is_dir() or path.with_suffix(".py").is_file()


@pytest.mark.parametrize("block", BLOCKS, ids=shown)
def test_a_block_says_what_it_is(block: Block) -> None:
    """So that none is overlooked: a shell's block in another language's name would never be run."""
    assert block.language in LANGUAGES
    assert block.language or not any(line.startswith(("podslots ", "kubectl ")) for line in block.text.splitlines())


@cache
def schema(kind: str) -> CustomSchema | None:
    for path in folder().glob("*.yaml"):
        definition = yaml.safe_load(path.read_text())
        if definition["spec"]["names"]["kind"] == kind:
            return CustomSchema.compile(definition["spec"]["versions"][0])
    return None


LEAST: dict[str, dict[str, Any]] = {
    "SlotPool.spec.autoscaling": {"maxReplicas": 20},
    "SlotPool": {"template": {"spec": {"containers": [{"name": "worker", "image": "any"}]}}},
    "SlotTask": {"pool": "any", "type": "plan", "steps": {"plan": {"command": ["true"]}}},
}


def whole_object(part: str | None, document: dict[str, Any]) -> dict[str, Any]:
    """The object that a block is a part of (`SlotPool`, `SlotPool.spec.autoscaling`), with the least that it needs."""
    if part is None:
        return document
    if part == "SlotPool.spec.autoscaling":
        return whole_object("SlotPool", {"autoscaling": {**LEAST[part], **document}})
    spec = {**LEAST[part], **document.get("spec", document)}
    return {"apiVersion": f"{GROUP}/v1alpha1", "kind": part, "spec": spec}


def wrong(document: dict[str, Any]) -> list[str]:
    """What is wrong with an object."""
    group = document.get("apiVersion", "").partition("/")[0]
    if group != GROUP:
        return [] if group in ELSEWHERE else list(problems(document))
    found = schema(document["kind"])
    assert found is not None, document["kind"]
    own, unknown = found.prune({name: part for name, part in document.items() if name != "metadata"})
    metadata = {"name": "n", "namespace": "ns", "uid": "u", "resourceVersion": "1", **document.get("metadata", {})}
    stored = {"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z", **metadata}, **found.default(own)}
    causes = [f"{cause.field}: {cause.message}" for cause in validate(found, stored, None)]
    pods = [] if document["kind"] != "SlotPool" else wrong_pod(document["spec"]["template"])
    return [*(f"{path}: unknown field" for path in unknown), *causes, *pods]


def wrong_pod(template: dict[str, Any]) -> list[str]:
    """What is wrong with a pool's template, as a Pod: the CRD takes any fields there. Raises InvalidObject."""
    check_template(template)
    return list(problems({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "n"}, **template}))


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=shown)
def test_objects_are_valid(block: Block) -> None:
    if block.left_out or block.options.get("file") in PIPELINES:
        return
    for document in yaml.safe_load_all(block.text):
        whole = whole_object(block.options.get("part-of"), document)
        assert isinstance(whole, dict), "no object; say part-of=KIND, or why it is not checked"
        assert "kind" in whole, "no object; say part-of=KIND, or why it is not checked"
        assert not wrong(whole)
        for task in tasks_within(whole):
            assert not wrong(task)


KUSTOMIZATIONS = [block for block in BLOCKS if block.options.get("file", "").endswith("kustomization.yaml")]


@pytest.mark.parametrize("block", [block for block in KUSTOMIZATIONS if "../manifests" in block.text], ids=shown)
def test_a_kustomization_of_the_clone_builds(block: Block, tmp_path: Path) -> None:
    (tmp_path / "manifests").symlink_to(ROOT / "manifests")
    folder = tmp_path / "install"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(block.text)
    built = subprocess.run([KUBECTL, "kustomize", folder], check=True, capture_output=True, text=True, timeout=60)
    for expected in re.findall(r"newName: (\S+), newTag: ([\w.]+)", block.text):
        assert ":".join(expected) in built.stdout
    assert ("imagePullSecrets" in block.text) == ("imagePullSecrets" in built.stdout)


def tasks_within(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Tasks that a ConfigMap carries as text."""
    texts = document.get("data", {}).values() if document["kind"] == "ConfigMap" else ()
    return [yaml.safe_load(text) for text in texts if f"apiVersion: {GROUP}/" in text]


COMMANDS = [(block, words) for block in BLOCKS if block.language in {"sh", "console"} for words in block.commands()]


@pytest.mark.parametrize(
    ("block", "words"), COMMANDS, ids=[f"{block.place}-{number}" for number, (block, _) in enumerate(COMMANDS)]
)
def test_commands_and_flags_exist(block: Block, words: list[str]) -> None:
    del block
    known = podslots_flags(words[1:]) if words[0] == "podslots" else kubectl_flags(words[1:])
    own = words[: words.index("--")] if "--" in words else words
    flags = {word.partition("=")[0] for word in own[1:] if re.fullmatch(r"--?[A-Za-z][\w-]*(=.*)?", word)}
    assert flags <= known, f"{' '.join(words)}: no such flag"


def podslots_flags(words: list[str]) -> set[str]:
    """The flags of a command and of those above it. AssertionError if there is no such command."""
    command: click.Command = main
    found = {"-h", "--help"}
    rest = iter(words)
    while True:
        options = [option for option in command.params if isinstance(option, click.Option)]
        found |= {flag for option in options for flag in (*option.opts, *option.secondary_opts)}
        with_value = {flag for option in options if not option.is_flag for flag in option.opts}
        if not isinstance(command, click.Group):
            return found
        word = next(rest, "--help")
        while word.startswith("-") and word not in {"--help", "--version"}:
            if word in with_value:
                next(rest)
            word = next(rest, "--help")
        if word.startswith("-"):
            return found
        chosen = command.get_command(click.Context(command), word)
        assert chosen is not None, f"no such command: podslots {' '.join(words)}"
        command = chosen


@cache
def kubectl_says(*words: str) -> str:
    return subprocess.run([KUBECTL, *words], check=False, capture_output=True, text=True, timeout=60).stdout


def kubectl_flags(words: list[str]) -> set[str]:
    """The flags that kubectl tells of a command, and of all. AssertionError if there is no such command."""
    first = 2 if words[0] in {"-n", "--namespace"} else 0
    names = [word for word in words[first:] if not word.startswith("-")]
    depth = 0
    while depth < len(names) and re.search(
        rf"^Usage:\n  kubectl {' '.join(names[: depth + 1])}\b",
        kubectl_says(*names[: depth + 1], "--help"),
        re.MULTILINE,
    ):
        depth += 1
    assert depth or not names, f"no such command: kubectl {' '.join(words)}"
    told = kubectl_says(*names[:depth], "--help") + kubectl_says("options")
    return {"-h", "--help", *re.findall(r"(?<![\w-])(--?[A-Za-z][\w-]*)(?=[=,: ])", told)}


NOT_RUN = {
    "cli.md": {"it installs into the reader's own folders"},
    "README.md": {
        "it needs a container engine",
        "tests of their own run the demo",
    },
    "getting-started.md": {
        "it installs into the reader's own folders",
        "it needs a container engine",
        "it needs the images",
        "the embedded cluster has no port-forward, and its Pods can be reached directly",
    },
    "local.md": {
        "the addresses stand for those of the reader's Pods",
    },
    "monitoring.md": {
        "it is of Alertmanager's configuration",
        "it is of Grafana's configuration",
        "it is of Prometheus' configuration",
        "there is no Grafana here",
    },
    "operations.md": {
        "it needs OpenShift",
        "it needs the images",
        "tests of uninstalling run it",
        "the embedded cluster has no network policies",
    },
    "performance.md": {
        "it takes minutes; tests run each subject for a moment",
    },
    "protection.md": {
        "it needs a cluster",
    },
    "security.md": {
        "it is a part of a pool",
        "it is for a container of a Pod; tests of secured pools make this call",
        "it is a part of a Prometheus configuration",
    },
    "status-page.md": {
        "it needs a cluster",
        "it takes the port forwarded above",
    },
    "simulator.md": {
        "it needs a Prometheus that has seen a day; a test of its own asks a real one",
    },
    "terraform-workspace.md": {
        "the embedded cluster has no CronJobs; its task is created below",
    },
}
"""What no test runs or checks, so that none is added unseen."""


def test_what_is_left_out_is_known() -> None:
    told: dict[str, set[str]] = {}
    for block in BLOCKS:
        if block.left_out:
            told.setdefault(block.page.name, set()).add(block.left_out)
    assert told == NOT_RUN
