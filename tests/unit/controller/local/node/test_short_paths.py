"""Short names for long folders, for programs that make sockets in them."""

import socket
from pathlib import Path

from controller.local.node.short_paths import ShortPaths


def test_a_socket_can_be_made_in_a_folder_whose_own_path_is_too_long(tmp_path: Path) -> None:
    paths = ShortPaths(tmp_path / "record")
    target = tmp_path / ("x" * 120) / "tmp"
    short = paths.link(target)
    assert len(str(short)) < 60
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short / "plugin1234567890"))
    assert (target / "plugin1234567890").is_socket()
    paths.remove()
    assert not short.exists()
    assert target.is_dir()


def test_the_next_kubelet_finds_the_same_names(tmp_path: Path) -> None:
    first = ShortPaths(tmp_path / "record")
    short = first.link(tmp_path / "a")
    again = ShortPaths(tmp_path / "record")
    assert again.link(tmp_path / "a") == short
    again.remove()


def test_a_folder_that_was_cleaned_away_is_made_anew(tmp_path: Path) -> None:
    first = ShortPaths(tmp_path / "record")
    gone = first.link(tmp_path / "a").parent
    for link in gone.iterdir():
        link.unlink()
    gone.rmdir()
    again = ShortPaths(tmp_path / "record")
    assert again.link(tmp_path / "a").is_dir()
    again.remove()


def test_names_of_folders_that_are_gone_go_too(tmp_path: Path) -> None:
    paths = ShortPaths(tmp_path / "record")
    short = paths.link(tmp_path / "a")
    (tmp_path / "a").rmdir()
    paths.link(tmp_path / "b")
    assert not short.is_symlink()
    paths.remove()
