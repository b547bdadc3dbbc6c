"""The version stands in one place; what shows it elsewhere is written from there."""

import shutil
from importlib.metadata import version
from pathlib import Path

from agent import __version__
from manifests.versions import PLACES, ROOT, files


def test_all_show_this_version() -> None:
    assert all(path.read_text() == text for path, text in files())
    assert version("podslots") == __version__


def test_a_new_one_reaches_every_place(tmp_path: Path) -> None:
    for pattern in PLACES:
        for path in ROOT.glob(pattern):
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    written = dict(files("99.8.7", tmp_path))
    found = {str(path.relative_to(tmp_path)) for path, text in written.items() if text != path.read_text()}
    assert found >= {"Dockerfile.agent", "Dockerfile.controller", "README.md", "docs/operations.md"}
    assert "manifests/base/controller/deployment.yaml" in found


def test_images_that_are_installed_are_those_of_this_version() -> None:
    text = (ROOT / "manifests" / "install.yaml").read_text()
    assert f"podslots/agent:{__version__}" in text
    assert f"podslots/controller:{__version__}" in text
