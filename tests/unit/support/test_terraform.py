"""Where the AWS provider is looked for, and what a mirror of our own looks like."""

import platform
import stat
from pathlib import Path

import pytest

from tests.support import terraform
from tests.support.terraform import PROVIDER, find_mirror, make_mirror, mirror_only

EMPTY = Path("/nonexistent")


def mirror_at(folder: Path) -> Path:
    (folder / PROVIDER).mkdir(parents=True)
    return folder


def environ(home: Path, **more: str) -> dict[str, str]:
    """Nothing of this machine: Terraform's own defaults for shared folders are set to nowhere."""
    return {"HOME": str(home), "XDG_DATA_DIRS": str(EMPTY), **more}


def test_a_mirror_that_is_named_is_taken_before_any_other(tmp_path: Path) -> None:
    mirror_at(tmp_path / "unpacked" / "tf-plugins")
    named = environ(tmp_path, PODSLOTS_TEST_MIRROR="/some/mirror")
    assert find_mirror(named, tmp_path / "unpacked") == Path("/some/mirror")


@pytest.mark.parametrize("place", [".terraform.d/plugins", ".local/share/terraform/plugins"])
def test_it_is_found_where_terraform_looks_below_home(tmp_path: Path, place: str) -> None:
    mirror = mirror_at(tmp_path / place)
    assert find_mirror(environ(tmp_path), EMPTY) == mirror


def test_it_is_found_in_the_folders_for_data(tmp_path: Path) -> None:
    own = environ(tmp_path, XDG_DATA_HOME=str(tmp_path / "own"))
    shared = environ(tmp_path, XDG_DATA_DIRS=f"{tmp_path / 'first'}:{tmp_path / 'second'}")
    assert find_mirror(own, EMPTY) is None
    assert find_mirror(shared, EMPTY) is None
    in_own = mirror_at(tmp_path / "own" / "terraform/plugins")
    in_second = mirror_at(tmp_path / "second" / "terraform/plugins")
    assert find_mirror(own, EMPTY) == in_own
    assert find_mirror(shared, EMPTY) == in_second


def test_it_is_found_among_what_was_unpacked_after_terraforms_own_places(tmp_path: Path) -> None:
    (tmp_path / "unpacked" / "another").mkdir(parents=True)
    unpacked = mirror_at(tmp_path / "unpacked" / "plugins")
    assert find_mirror(environ(tmp_path), tmp_path / "unpacked") == unpacked
    below_home = mirror_at(tmp_path / ".terraform.d/plugins")
    assert find_mirror(environ(tmp_path), tmp_path / "unpacked") == below_home


def test_a_mirror_without_the_aws_provider_is_none(tmp_path: Path) -> None:
    (tmp_path / ".terraform.d/plugins/registry.terraform.io/hashicorp/random").mkdir(parents=True)
    assert find_mirror(environ(tmp_path), tmp_path / "nothing") is None


def test_our_own_mirror_has_a_program_where_terraform_looks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    monkeypatch.setattr(terraform, "PROVIDERS_PYTHON", python)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    with pytest.raises(AssertionError, match="make provider"):
        make_mirror(tmp_path / "mirror")
    python.touch()
    mirror = make_mirror(tmp_path / "mirror")
    program = mirror / "registry.terraform.io/podslots/slow/1.0.0" / "linux_arm64" / "terraform-provider-slow_v1.0.0"
    assert program.stat().st_mode & stat.S_IXUSR
    assert str(python) in program.read_text()
    assert f'path = "{mirror}"' in mirror_only(mirror)
