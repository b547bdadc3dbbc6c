"""Lines that are to be copied name a program that the reader's shell finds."""

import sys
from pathlib import Path

import pytest

from controller.cli.cluster.called import Cluster, command


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A virtual environment of this name, that no PATH has."""
    folder = tmp_path / "a b" / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "podslots"):
        (folder / name).write_text("")
        (folder / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.chdir(tmp_path / "a b")
    return folder


def test_by_its_name_where_the_path_has_it(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(own))
    assert command() == "podslots"


def test_by_its_path_where_the_path_has_none_or_another(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command() == ".venv/bin/podslots"
    other = tmp_path / "podslots"
    other.write_text("")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command() == ".venv/bin/podslots"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert command() == f"'{own}/podslots'"


def test_as_it_is_where_none_was_installed(own: Path) -> None:
    (own / "podslots").unlink()
    assert command() == "podslots"


def test_a_line_to_be_copied_means_the_same_cluster_namespace_and_person() -> None:
    given = Cluster(kubeconfig="/k x", context="c", namespace="team", stands_in_for="anna")
    options = "--kubeconfig '/k x' --context c -n team --as anna"
    assert given.podslots("approve", "net") == f"{command()} approve net {options}"
    assert given.kubectl("auth", "can-i", namespace="other") == f"kubectl auth can-i {options.replace('team', 'other')}"
    assert Cluster().podslots("plans") == f"{command()} plans"


def test_kubectl_is_told_of_a_kubeconfig_that_it_does_not_find_by_itself() -> None:
    given = Cluster(found=".podslots/local/cluster/kubeconfig")
    assert given.kubectl("get", "ns") == "kubectl get ns --kubeconfig .podslots/local/cluster/kubeconfig"
    assert "--kubeconfig" not in given.podslots("plans")
