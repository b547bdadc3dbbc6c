"""podslots as people install it: a built wheel, by pipx, without the source tree."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.repository import ROOT

pytestmark = pytest.mark.long

TASKS = """
apiVersion: podslots.dev/v1alpha1
kind: SlotPool
metadata: {name: pool}
spec:
  autoscaling: {maxReplicas: 1}
  template: {spec: {containers: [{name: worker, image: any}]}}
---
apiVersion: podslots.dev/v1alpha1
kind: SlotTask
metadata: {name: net}
spec:
  pool: pool
  type: plan_and_apply
  steps:
    plan: {command: [sh, -c, "echo the plan; echo p >tfplan"]}
    apply: {command: [sh, -c, "echo applied"]}
"""


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ONLY_LOCAL = PROJECT["optional-dependencies"]["local"]


class Installed:
    """The programs that pipx has put on the PATH, started in a folder that has nothing of ours."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.bin = folder / "bin"
        self.python = str(folder / "pipx" / "venvs" / "podslots" / "bin" / "python")
        self.home = home
        self.environ = {"PATH": f"{self.bin}:{os.environ['PATH']}", "HOME": str(home), "TMPDIR": str(home)}

    def run(self, *command: str, text: str = "", seconds: float = 120.0) -> str:
        """Its output. AssertionError if it fails."""
        done = subprocess.run(
            [self.python if command[0] == "python" else str(self.bin / command[0]), *command[1:]],
            check=False,
            cwd=self.home,
            env=self.environ,
            input=text,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)], check=True)
    (wheel,) = folder.glob("podslots-*.whl")
    constraints = f"--pip-args=--constraint {ROOT / 'constraints.txt'}"
    pipx = (sys.executable, "-m", "pipx", "install", "--python", sys.executable, constraints, f"{wheel}[local]")
    environ = {**os.environ, "PIPX_HOME": str(folder / "pipx"), "PIPX_BIN_DIR": str(folder / "bin")}
    done = subprocess.run(pipx, check=False, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "home").mkdir()
    return Installed(folder, folder / "home")


def test_the_demo_holds(installed: Installed) -> None:
    """All that it needs is in the wheel: definitions, policies, schemas, pages."""
    output = installed.run("python", "-m", "controller.demo", "--unattended", "--shell", "--plan-seconds", "2")
    verdict = json.loads(output.splitlines()[-1])
    assert (verdict["ok"], verdict["tasks"], verdict["applies_on_plan_pod"]) == (True, {"Succeeded": 15}, 3)


def test_a_task_goes_its_whole_way_by_hand(installed: Installed) -> None:
    said = installed.run("podslots", "local", "up", "--detach")
    try:
        assert "\nStop it with: podslots local down\n" in said
        installed.run("podslots", "submit", "-f", "-", text=TASKS)
        installed.run("podslots", "wait", "net", "--for", "AwaitingApproval", "--timeout", "10m")
        assert "the plan" in installed.run("kubectl-podslots", "approve", "net", "--yes")
        installed.run("podslots", "wait", "net", "--timeout", "10m")
        assert installed.run("podslots", "logs", "net", "--step", "apply") == "applied\n"
        assert "What happened:" in installed.run("podslots", "describe", "task", "net")
        versions = json.loads(installed.run("podslots", "version", "-o", "json"))
        assert versions["client"] == versions["controller"]
    finally:
        installed.run("podslots", "local", "down", "--force")


def test_its_programs_are_there(installed: Installed) -> None:
    for program in ("podslots", "kubectl-podslots", "slot-agent", "slot-controller"):
        assert "--help" in installed.run(program, "--help")


def test_without_the_extra_it_is_for_clusters_and_says_what_is_missing(installed: Installed) -> None:
    """As in the controller's image. Taken away here, as a second environment would take as long as the first."""
    pip = (sys.executable, "-m", "pip", "--python", installed.python)
    subprocess.run([*pip, "uninstall", "--quiet", "--yes", *ONLY_LOCAL], check=True)
    for program in ("podslots", "slot-controller"):
        assert "--help" in installed.run(program, "--help")
    folders = "from controller import crds; print(len(list(crds.folder().glob('*'))), crds.policies_folder().is_dir())"
    assert installed.run("python", "-c", folders).split()[1] == "True"
    refused = subprocess.run([installed.bin / "podslots", "local", "up"], check=False, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: the embedded cluster is not installed. Install podslots with its extra")
