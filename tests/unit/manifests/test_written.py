"""All that is made of something else is as it is made; a file that differs is found, and written anew."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from manifests import __main__ as manifests


@pytest.mark.parametrize("files", manifests.ALL, ids=lambda files: str(files.__module__))
def test_the_files_are_as_they_are_made(files: manifests.Files) -> None:
    differing = [str(path) for path, text in files() if path.read_text() != text]
    assert not differing, "run `make manifests`"


def test_what_differs_is_found_and_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "a.yaml"

    def files() -> Iterator[tuple[Path, str]]:
        yield file, "made\n"

    monkeypatch.setattr(manifests, "ALL", (files,))
    monkeypatch.setattr("sys.argv", ["manifests", "--check"])
    assert manifests.main() == 1
    assert capsys.readouterr().err == f"not as `make manifests` writes it: {file}\n"
    assert not file.exists()
    monkeypatch.setattr("sys.argv", ["manifests"])
    assert manifests.main() == 0
    assert file.read_text() == "made\n"
    monkeypatch.setattr("sys.argv", ["manifests", "--check"])
    assert manifests.main() == 0
