"""Volumes: what they hold, and that a reader never sees half of a change."""

import base64
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from controller.local.node.pods.environment import PodFacts
from controller.local.node.pods.pod_spec import ContainerSpec, Mount, PodSpec, Role
from controller.local.node.pods.volume_payload import File, VolumeError, payload
from controller.local.node.pods.volumes import AtomicWriter, Volumes, rewriter

POD = PodSpec("uid", "ns", "p", (ContainerSpec("c", Role.MAIN),))
RAW = {"metadata": {"name": "p", "namespace": "ns", "uid": "uid", "labels": {"a": "b"}}, "spec": {}}
FACTS = PodFacts(RAW, "127.1.1.2", "127.1.1.1", "local", {})
OBJECTS: dict[tuple[str, str], dict[str, Any]] = {
    ("Secret", "tok"): {"data": {"token": base64.b64encode(b"abc").decode(), "next": base64.b64encode(b"d").decode()}},
    ("ConfigMap", "conf"): {"data": {"a": "1"}, "binaryData": {"b": base64.b64encode(b"\x00").decode()}},
}


def files(volume: dict[str, Any]) -> dict[str, File] | None:
    return payload({"name": "v", **volume}, POD, FACTS, lambda kind, name: OBJECTS.get((kind, name)))


def writer() -> AtomicWriter:
    return AtomicWriter(lambda: datetime(2026, 1, 1, tzinfo=UTC), random.Random(1))


@pytest.mark.parametrize(
    ("volume", "expected"),
    [
        ({"emptyDir": {}}, None),
        ({"hostPath": {"path": "/x"}}, None),
        ({"secret": {"secretName": "tok"}}, {"token": File(b"abc", 0o644), "next": File(b"d", 0o644)}),
        (
            {"secret": {"secretName": "tok", "defaultMode": 0o400, "items": [{"key": "token", "path": "x/y"}]}},
            {"x/y": File(b"abc", 0o400)},
        ),
        ({"secret": {"secretName": "no", "optional": True}}, {}),
        ({"configMap": {"name": "conf"}}, {"a": File(b"1", 0o644), "b": File(b"\x00", 0o644)}),
        (
            {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"labels": File(b'a="b"\n', 0o644)},
        ),
        (
            {
                "projected": {
                    "defaultMode": 0o440,
                    "sources": [
                        {"secret": {"name": "tok", "items": [{"key": "next", "path": "n", "mode": 0o400}]}},
                        {"configMap": {"name": "conf", "items": [{"key": "a", "path": "a"}]}},
                    ],
                }
            },
            {"n": File(b"d", 0o400), "a": File(b"1", 0o440)},
        ),
    ],
)
def test_what_a_volume_holds(volume: dict[str, Any], expected: dict[str, File] | None) -> None:
    assert files(volume) == expected


@pytest.mark.parametrize(
    "volume",
    [
        {"secret": {"secretName": "no"}},
        {"secret": {"secretName": "tok", "items": [{"key": "no", "path": "x"}]}},
        {"secret": {"secretName": "tok", "items": [{"key": "token", "path": "../x"}]}},
        {"persistentVolumeClaim": {"claimName": "x"}},
        {"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
    ],
)
def test_what_cannot_be_mounted_says_so(volume: dict[str, Any]) -> None:
    with pytest.raises(VolumeError):
        files(volume)


def test_files_change_all_at_once_through_one_symlink(tmp_path: Path) -> None:
    write = writer()
    write.write(tmp_path, {"a": File(b"1", 0o400), "b": File(b"1", 0o440)})
    assert (tmp_path / "a").read_bytes() == b"1"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o400
    before = (tmp_path / "..data").readlink()
    assert (tmp_path / "a").readlink() == Path("..data/a")
    write.write(tmp_path, {"a": File(b"2", 0o400), "c/d": File(b"3", 0o644)})
    assert (tmp_path / "..data").readlink() != before
    assert (tmp_path / "a").read_bytes() == b"2"
    assert (tmp_path / "c" / "d").read_bytes() == b"3"
    assert not (tmp_path / "b").exists()
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith("..2")) == ["..data", "a", "c"]
    assert len(list(tmp_path.glob("..2*"))) == 1


def test_the_same_content_is_not_written_again(tmp_path: Path) -> None:
    write = writer()
    write.write(tmp_path, {"a": File(b"1", 0o400)})
    before = (tmp_path / "..data").readlink()
    write.write(tmp_path, {"a": File(b"1", 0o400)})
    assert (tmp_path / "..data").readlink() == before


def test_leftovers_of_a_killed_write_are_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "..2020_half").mkdir()
    (tmp_path / "..data_tmp").symlink_to("..2020_half")
    writer().write(tmp_path, {"a": File(b"1", 0o644)})
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith("..2026")) == ["..data", "a"]


def test_mount_paths_lead_to_folders_and_sub_paths(tmp_path: Path) -> None:
    volumes = Volumes(tmp_path, POD, writer())
    folder = volumes.prepare({"name": "work", "emptyDir": {}}, FACTS, lambda *_: None)
    mounts = (Mount("work", "/work"), Mount("work", "/slot", "slot-$(N)", expands=True), Mount("work", "/raw", "$(N)"))
    paths = rewriter(ContainerSpec("c", Role.MAIN, mounts=mounts), {"work": folder}, {"N": "1"})
    assert paths.text("/work/x /slot/y /raw") == f"{folder}/x {folder}/slot-1/y {folder}/$(N)"
    assert (folder / "slot-1").is_dir()
