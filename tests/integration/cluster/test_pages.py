"""The documentation's commands, typed page by page into a shell on a terminal, on an embedded cluster.

Questions are answered with yes. Addresses of the reader's own world are replaced by what stands for them here.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.pages import PAGES, Block, blocks
from tests.support.repository import ROOT
from tests.support.terminal import Terminal

pytestmark = pytest.mark.long

BIN = Path(sys.executable).parent
SECONDS = 240.0
RUN = {
    "README.md",
    "docs/getting-started.md",
    "docs/terraform-workspace.md",
    "docs/terraform-setups.md",
    "docs/ci.md",
    "docs/local.md",
    "docs/cli.md",
    "docs/troubleshooting.md",
    "docs/reasons.md",
    "docs/security.md",
    "docs/updates.md",
    "docs/api.md",
    "docs/simulator.md",
}
"""The pages that a test below runs."""
RUN_ELSEWHERE = {"docs/runbooks.md": "test_runbooks.py"}
"""Those that have tests of their own."""


@dataclass
class Reader:
    """Somebody who types what a page says, in a folder of their own."""

    folder: Path
    environ: dict[str, str]
    replaced: Mapping[str, str] = field(default_factory=dict)
    said: str = ""

    def read(self, page: str, *, but: tuple[str, ...] = ()) -> str:
        """Follow a page from top to bottom, without blocks that contain one of `but`. What was on the screen."""
        start = len(self.said)
        for block in blocks(ROOT / page):
            if "file" in block.options:
                self.write(block)
            elif block.language == "sh" and not block.left_out and not any(text in block.text for text in but):
                self.type(self.translated(block.text), block.place)
        return self.said[start:]

    def write(self, block: Block) -> None:
        """Make the file that a block shows."""
        path = self.folder / block.options["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.translated(block.text))

    def type(self, script: str, place: str = "") -> str:
        """Run lines in a shell that stops at the first that fails. What was on the screen."""
        with Terminal(["bash", "-euo", "pipefail", "-c", script], self.environ, self.folder) as terminal:
            code = terminal.until_over(SECONDS, answers={b"[y/N]": b"y\n"})
            text = terminal.seen.decode(errors="replace").replace("\r\n", "\n")
        self.said += text
        assert code == 0, f"{place}: {code}\n{script}\n{text}"
        return text

    def translated(self, text: str) -> str:
        for there, here in self.replaced.items():
            text = text.replace(there, here)
        return text


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader with an embedded cluster of their own."""
    state, folder = tmp_path / "local", tmp_path / "reader"
    folder.mkdir()
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PODSLOTS_", "KUBE"))}
    environ |= {"PATH": f"{BIN}:{environ['PATH']}", "HOME": str(folder), "PAGER": "cat"}
    podslots = [str(BIN / "podslots"), "local"]
    subprocess.run([*podslots, "up", "--detach", "--state-dir", str(state)], check=True, timeout=200)
    try:
        shutil.copy(state / "cluster" / "kubeconfig", folder / "kubeconfig")
        yield Reader(folder, {**environ, "KUBECONFIG": str(folder / "kubeconfig")})
    finally:
        subprocess.run([*podslots, "down", "--force", "--state-dir", str(state)], check=True, timeout=200)


def test_every_block_is_run_or_says_why_not() -> None:
    overlooked = [
        block.place
        for page in PAGES
        for block in blocks(page)
        if block.language == "sh" and not block.left_out and str(page.relative_to(ROOT)) not in {*RUN, *RUN_ELSEWHERE}
    ]
    assert not overlooked


def test_getting_started(reader: Reader) -> None:
    said = reader.read("docs/getting-started.md")
    assert "Hello, world" in said
    assert 'slottask.podslots.dev "hello" deleted' in said


def repository(folder: Path, *modules: str) -> str:
    """A repository with a Terraform configuration that needs no provider from outside, also in `modules`; its URL."""
    there = folder / "infra"
    text = 'resource "terraform_data" "network" {\n  input = "10.0.0.0/16"\n}\n'
    for module in (".", *modules):
        (there / module).mkdir(parents=True, exist_ok=True)
        (there / module / "main.tf").write_text(text)
    git = ["git", "-C", str(there), "-c", "user.name=anna", "-c", "user.email=anna@example.com"]
    for command in (["init", "--quiet", "--initial-branch=main"], ["add", "."], ["commit", "--quiet", "-m", "Network"]):
        subprocess.run([*git, *command], check=True, timeout=60)
    return there.as_uri()


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not on the PATH; hashicorp.com has it")
def test_a_real_terraform_workspace(reader: Reader, tmp_path: Path) -> None:
    reader.replaced = {"https://github.com/example/infra.git": repository(tmp_path, "network")}
    reader.environ |= {
        "GIT_TOKEN": "token-of-git",
        "AWS_ACCESS_KEY_ID": "key-of-aws",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    said = reader.read("docs/terraform-workspace.md")
    assert "Apply complete! Resources: 1 added" in said
    approved = reader.type("kubectl get slottask network-1 -o jsonpath='{.spec.approval.by} {.status.phase}'")
    assert approved == "ben Succeeded"
    documents = yaml.safe_load_all((reader.folder / "drift.yaml").read_text())
    (reader.folder / "nightly.yaml").write_text(next(iter(documents))["data"]["task.yaml"])
    reader.replaced = {"network-1-plan": "network-1-1-plan"}
    assert "terraform_data.network will be created" in reader.read("docs/api.md")
    made = reader.type("kubectl create -f nightly.yaml -o jsonpath='{.metadata.name}'")
    reader.type(f"podslots wait {made} --for Succeeded")
    assert reader.type(f"kubectl get slottask {made} -o jsonpath='{{.status.changed}}'") == "true"


def test_terraform_setups(reader: Reader) -> None:
    """All parts of pools on the page, put together in one pool; its task finds what they promise."""
    reader.replaced = {"ssh-keygen -q -t ed25519 -N '' -C podslots -f deploy-key": "echo a-key >deploy-key"}
    reader.environ |= dict.fromkeys(
        ("REGISTRY_USER", "REGISTRY_PASSWORD", "REGISTRY_TOKEN", "GIT_TOKEN"), "a-long-secret"
    ) | {"AWS_ACCESS_KEY_ID": "key-of-aws", "AWS_SECRET_ACCESS_KEY": "secret-of-aws"}
    reader.read("docs/terraform-setups.md")
    reader.type("kubectl apply -f company-ca.yaml")
    reader.type("kubectl create secret generic google-key --from-literal=key.json='{}'")
    (reader.folder / "pool.yaml").write_text(yaml.safe_dump(pool_of_all_parts("docs/terraform-setups.md")))
    (reader.folder / "task.yaml").write_text(yaml.safe_dump(SHOWS_ITS_SETUP))
    reader.type("podslots submit -f pool.yaml -f task.yaml")
    reader.type("podslots wait shows --timeout 120")
    said = reader.type("podslots logs shows")
    assert re.search(r"^the cache is /.*/slot-[0-2]$", said, re.MULTILINE)
    for expected in ("network_mirror", "github.com ssh-ed25519", "the key is ***"):
        assert expected in said


def pool_of_all_parts(page: str) -> dict[str, object]:
    """One SlotPool with all that the page's blocks of `part-of=SlotPool` add to a template."""
    worker: dict[str, Any] = {"name": "worker", "image": "any"}
    spec: dict[str, Any] = {"containers": [worker]}
    for block in blocks(ROOT / page):
        if block.options.get("part-of") != "SlotPool":
            continue
        given = yaml.safe_load(block.text)["spec"]["template"]["spec"]
        (container,) = given.pop("containers")
        for name in ("env", "envFrom", "volumeMounts"):
            worker.setdefault(name, []).extend(container.get(name, []))
        spec.setdefault("volumes", []).extend(given.pop("volumes", []))
        spec |= given
    pool = {"autoscaling": {"maxReplicas": 1}, "template": {"spec": spec}}
    return {"apiVersion": "podslots.dev/v1alpha1", "kind": "SlotPool", "metadata": {"name": "terraform"}, "spec": pool}


_SHOW = """
touch "$TF_PLUGIN_CACHE_DIR/written" && echo "the cache is $(cd "$TF_PLUGIN_CACHE_DIR" && pwd -P)"
cat "$TF_CLI_CONFIG_FILE" "${GIT_SSH_COMMAND##*=}" && echo "the key is $AWS_SECRET_ACCESS_KEY"
test -s "$GIT_SSL_CAINFO" && test -s "$GOOGLE_APPLICATION_CREDENTIALS"
"""
SHOWS_ITS_SETUP = {
    "apiVersion": "podslots.dev/v1alpha1",
    "kind": "SlotTask",
    "metadata": {"name": "shows"},
    "spec": {"pool": "terraform", "type": "plan", "steps": {"plan": {"command": ["sh", "-euc", _SHOW]}}},
}


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not on the PATH; hashicorp.com has it")
def test_opentofu_and_terragrunt(reader: Reader, tmp_path: Path) -> None:
    """The page's tasks, with Terraform under the other programs' names; Terragrunt's runs it in another folder."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, script in {
        "tofu": 'exec terraform "$@"',
        "terragrunt": 'mkdir -p .cache && cp main.tf .cache && cd .cache && terraform init >&2 && exec terraform "$@"',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    url = repository(tmp_path, "network", "prod/network")
    reader.replaced = {f"https://github.com/example/{name}.git": url for name in ("infra", "live")}
    worker = {"name": "worker", "image": "any", "env": [{"name": "PATH", "value": f"{programs}:{os.environ['PATH']}"}]}
    pool = {"autoscaling": {"maxReplicas": 1}, "template": {"spec": {"containers": [worker]}}}
    tasks = [
        yaml.safe_load(reader.translated(block.text))
        for block in blocks(ROOT / "docs/terraform-setups.md")
        if "kind: SlotTask" in block.text
    ]
    submit(
        reader,
        {"apiVersion": "podslots.dev/v1alpha1", "kind": "SlotPool", "metadata": {"name": "terraform"}, "spec": pool},
    )
    assert [task["metadata"]["name"] for task in tasks] == ["network-tofu", "network-terragrunt"]
    for task in tasks:  # one after the other: a plan that waits for its approval keeps the pool's only slot for it
        name = task["metadata"]["name"]
        submit(reader, task)
        reader.type(f"podslots wait {name} --for AwaitingApproval --timeout 120")
        assert "Apply complete!" in reader.type(f"podslots approve {name} && podslots logs -f {name}")


def submit(reader: Reader, document: dict[str, Any]) -> None:
    """Submit an object as somebody does who wrote it to a file."""
    (reader.folder / "object.yaml").write_text(yaml.safe_dump(document))
    reader.type("podslots submit -f object.yaml")


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not on the PATH; hashicorp.com has it")
def test_from_ci(reader: Reader, tmp_path: Path) -> None:
    """The shell of it first; then both pipelines' own lines, each with a revision of its own."""
    url = repository(tmp_path)
    reader.replaced = {"https://github.com/example/infra.git": url}
    shutil.copy(ROOT / "manifests/examples/pool.yaml", reader.folder)
    reader.type("podslots submit -f pool.yaml")
    head = subprocess.run(["git", "ls-remote", url, "HEAD"], check=True, capture_output=True, text=True, timeout=60)
    reader.environ["REVISION"] = head.stdout.split()[0]
    assert "Apply complete!" in reader.read("docs/ci.md")
    for file, jobs in PIPELINES.items():
        reader.type("kubectl delete slottask --all")
        summary = reader.folder / "summary"
        reader.environ["GITHUB_STEP_SUMMARY"] = str(summary)
        pipeline = yaml.safe_load((reader.folder / file).read_text())
        outputs = reader.folder / "outputs"
        outputs.write_text("")
        reader.environ["GITHUB_OUTPUT"] = str(outputs)
        said = ""
        for job in (*jobs, jobs[-1]):  # a job that is run again, as its user clicks once more, does no harm
            for line in lines_of(pipeline, job):
                reader.environ["DIGEST"] = outputs.read_text().removeprefix("digest=").strip()
                said += reader.type(line, file)
        assert "Apply complete!" in said


PIPELINES = {".github/workflows/infra.yml": ("plan", "apply"), ".gitlab-ci.yml": ("plan", "apply")}


def lines_of(pipeline: dict[str, object], job: str) -> list[str]:
    """The scripts of a job, each to be run in a shell of its own, but for those that install podslots."""
    jobs = pipeline.get("jobs", pipeline)
    assert isinstance(jobs, dict)
    found = jobs[job]
    steps = found.get("steps")
    scripts = [step["run"] for step in steps if "run" in step] if steps else ["\n".join(found["script"])]
    return [script for script in scripts if "pipx install" not in script]


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not on the PATH; hashicorp.com has it")
def test_the_readme_by_hand(tmp_path: Path) -> None:
    """Its own `podslots local up`, in the repository's folder as far as the files of it are concerned."""
    shutil.copytree(ROOT / "manifests", tmp_path / "manifests")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PODSLOTS_", "KUBE"))}
    environ |= {"PATH": f"{BIN}:{environ['PATH']}", "HOME": str(tmp_path), "PAGER": "cat"}
    reader = Reader(tmp_path, environ, {"make venv && . .venv/bin/activate\n": ""})
    try:
        said = reader.read("README.md")
    finally:
        down = [str(BIN / "podslots"), "local", "down", "--force"]
        subprocess.run(down, check=False, timeout=200, cwd=tmp_path, capture_output=True)
    assert "Apply complete!" in said


def test_one_machine(tmp_path: Path) -> None:
    environ = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path), "PAGER": "cat"}
    reader = Reader(tmp_path, environ, {"podslots local up             #": "true             #"})
    try:
        reader.read("docs/local.md")
    finally:
        down = [str(BIN / "podslots"), "local", "down", "--force"]
        subprocess.run(down, check=False, timeout=200, cwd=tmp_path, capture_output=True)


def test_the_command_line(tmp_path: Path) -> None:
    """A shell that reads the script completes by it."""
    environ = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    reader = Reader(tmp_path, environ)
    reader.read("docs/cli.md")
    assert "_podslots_completion" in reader.type(
        'source ".local/share/bash-completion/completions/podslots"; complete -p podslots'
    )


def test_simulator(tmp_path: Path) -> None:
    """It asks no cluster anything."""
    shutil.copytree(ROOT / "manifests", tmp_path / "manifests")
    environ = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path), "PAGER": "cat", "COLUMNS": "200"}
    assert "HPA at 30 %" in Reader(tmp_path, environ).read("docs/simulator.md")
    assert (tmp_path / "day.svg").read_text().startswith("<?xml")


def test_troubleshooting_and_updates(reader: Reader) -> None:
    shutil.copy(ROOT / "manifests/examples/pool.yaml", reader.folder)
    reader.type("podslots submit -f pool.yaml; until podslots doctor; do true; done")
    reader.read("docs/troubleshooting.md")
    reader.read("docs/reasons.md")
    reader.read("docs/security.md")
    (reader.folder / "pool.yaml").write_text((reader.folder / "pool.yaml").read_text().replace("1.11", "1.12"))
    reader.type("podslots submit -f pool.yaml")
    reader.read("docs/updates.md")
