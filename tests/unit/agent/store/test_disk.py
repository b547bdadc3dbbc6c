"""The folder of the journal: what is no file there is an error that names it, and holds nobody up."""

import os
from pathlib import Path

import pytest

from agent.store.disk import FolderDisk


@pytest.mark.parametrize("kind", ["fifo", "device", "link", "loop", "folder"])
def test_what_is_no_file_is_an_error_that_names_it(tmp_path: Path, kind: str) -> None:
    """Read, a FIFO would hold up the start for ever, and /dev/zero take all memory."""
    path = tmp_path / "journal"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "link":
            (tmp_path / "other").write_text("x")
            path.symlink_to("other")
        case "loop":
            path.symlink_to("journal")
        case "folder":
            path.mkdir()
    with pytest.raises(OSError, match="journal"):
        FolderDisk(tmp_path).read("journal")


def test_a_file_is_read_and_a_missing_one_is_none(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b"x")
    assert FolderDisk(tmp_path).read("journal") == b"x"
    assert FolderDisk(tmp_path).read("other") is None
