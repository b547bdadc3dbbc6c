"""A Pod's volumes as host folders: made, filled, kept up to date, removed."""

import contextlib
import random
import shutil
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from controller.local.node.pods.environment import ConfigError, PathRewriter, PodFacts, expand
from controller.local.node.pods.pod_spec import ContainerSpec, Json, PodSpec
from controller.local.node.pods.volume_payload import File, ObjectLookup, Payload, VolumeError, payload

_DATA = "..data"


class Volumes:
    """The volumes of one Pod, under a folder of its own."""

    def __init__(self, folder: Path, pod: PodSpec, writer: "AtomicWriter") -> None:
        self._folder = folder
        self._pod = pod
        self._writer = writer

    def host_folder(self, volume: Json) -> Path:
        """Where a volume is or will be."""
        if (host := volume.get("hostPath")) is not None:
            return Path(host["path"])
        return self._folder / str(volume["name"])

    def prepare(self, volume: Json, facts: PodFacts, lookup: ObjectLookup) -> Path:
        """Make a volume, or bring it up to date; its host folder. One that is up to date is only looked at.

        Raises VolumeError if it can't be made for now.
        """
        try:
            files = payload(volume, self._pod, facts, lookup)
        except ConfigError as error:
            raise VolumeError(error.message) from error
        if (host := volume.get("hostPath")) is not None:
            return _host_path(host)
        target = self.host_folder(volume)
        target.mkdir(parents=True, exist_ok=True)
        if files is None:
            target.chmod(0o777)  # as a real emptyDir: containers may run under any user
        else:
            self._writer.write(target, files)
        return target


def rewriter(container: ContainerSpec, folders: Mapping[str, Path], variables: Mapping[str, str]) -> PathRewriter:
    """The container's mount paths and the host folders behind them. Sub paths that don't exist are made as folders."""
    paths: dict[str, str] = {}
    for mount in container.mounts:
        folder = folders[mount.volume]
        if mount.sub_path:
            sub_path = expand(mount.sub_path, variables) if mount.expands else mount.sub_path
            if sub_path.startswith("/") or ".." in sub_path.split("/"):
                raise ConfigError("CreateContainerConfigError", f"invalid subPath: {sub_path}")
            folder /= sub_path
            if not folder.exists():
                folder.mkdir(parents=True)
        paths[mount.path] = str(folder)
    return PathRewriter(paths)


def _host_path(source: Json) -> Path:
    path, kind = Path(source["path"]), source.get("type") or ""
    if kind in {"Directory", "DirectoryOrCreate"}:
        if kind == "DirectoryOrCreate":
            path.mkdir(parents=True, exist_ok=True)
        if not path.is_dir():
            raise VolumeError(f"hostPath type check failed: {path} is not a directory")
    elif kind == "FileOrCreate":
        path.touch()
    elif kind == "File" and not path.is_file():
        raise VolumeError(f"hostPath type check failed: {path} is not a file")
    return path


class AtomicWriter:
    """Writes a set of files so that a reader sees all old ones or all new ones: the kubelet's `..data` symlink.

    Each file is a symlink into `..data`, itself a symlink to a folder with a name of its own that holds one version.
    Writing a new version and renaming a new `..data` over the old is one step for every file. A crash between
    leaves a folder or a link too many, which the next write removes.
    """

    def __init__(self, now: Callable[[], datetime], rng: random.Random) -> None:
        self._now = now
        self._rng = rng

    def write(self, target: Path, files: Payload) -> None:
        """Make `target` hold exactly these files."""
        data = target / _DATA
        if data.is_symlink() and _read(data.resolve()) == files:
            return
        version = target / f"..{self._now():%Y_%m_%d_%H_%M_%S}.{self._rng.getrandbits(40):010x}"
        version.mkdir(mode=0o755)
        for name, file in files.items():
            path = version / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            path.write_bytes(file.content)
            path.chmod(file.mode)
        link = target / "..data_tmp"
        with contextlib.suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(version.name)
        link.rename(data)
        wanted = {name.split("/")[0] for name in files}
        for name in wanted:
            if not (target / name).is_symlink():
                (target / name).symlink_to(f"{_DATA}/{name}")
        for path in target.iterdir():
            if path.name.startswith(".."):
                if path not in {data, version}:
                    shutil.rmtree(path)
            elif path.name not in wanted:
                path.unlink()


def _read(version: Path) -> Payload:
    """The files of a written version, to compare."""
    return {
        str(path.relative_to(version)): File(path.read_bytes(), path.stat().st_mode & 0o7777)
        for path in version.rglob("*")
        if path.is_file()
    }
