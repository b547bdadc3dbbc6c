"""What a release is made of is read from the Dockerfiles, and what is missing is said."""

from pathlib import Path

import pytest

from agent import __version__
from binary.release import IMAGES, ReleaseError, build_stage, check_changelog, check_labels, copied, size
from tests.support.repository import ROOT

DOCKERFILE = """\
# syntax=docker/dockerfile:1
FROM python AS build
ARG VERSION
# A comment.
RUN one \\
    && two
COPY a.txt b.txt ./
COPY folder folder
FROM scratch
COPY --from=build /image/ /
LABEL org.opencontainers.image.title="t"
"""


def test_the_first_stage_is_read_with_lines_that_go_on() -> None:
    instructions = build_stage(DOCKERFILE)
    assert ("RUN", "one      && two") in instructions
    assert list(copied(instructions)) == [("a.txt", "a.txt"), ("b.txt", "b.txt"), ("folder", "folder")]


def test_a_label_that_is_missing_is_named() -> None:
    with pytest.raises(ReleaseError, match=r"Dockerfile\.x has no label description, licenses, version, revision"):
        check_labels("x", DOCKERFILE)


def test_a_version_without_a_section_is_refused() -> None:
    with pytest.raises(ReleaseError, match=r"no section 1\.2\.0"):
        check_changelog("# Changelog\n\n## Unreleased\n\n## 1.2.0rc1\n", "1.2.0")
    check_changelog("# Changelog\n\n## 1.2.0 - 2026-11-29\n", "1.2.0")


@pytest.mark.parametrize("name", IMAGES)
def test_what_the_images_copy_is_there_and_is_put_where_it_is_found(name: str) -> None:
    text = (ROOT / f"Dockerfile.{name}").read_text()
    check_labels(name, text)
    found = list(copied(build_stage(text)))
    assert ("agent", "agent") in found
    assert all((ROOT / source).exists() for source, _ in found)
    assert IMAGES[name] in text


def test_sizes_are_of_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "link").symlink_to("a")
    assert size(tmp_path / "a") == 3
    assert size(tmp_path) == 3 + len("a")


def test_the_changelog_has_this_version() -> None:
    check_changelog((ROOT / "CHANGELOG.md").read_text(), __version__)
