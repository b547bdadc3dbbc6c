"""The bundle as a folder, and as one file: the layout that launcher.c reads and `slot-agent install` copies.

    FOLDER/slot-agent          the launcher, what people and containers execute
    FOLDER/.slot-agent-HASH/   the bundle; HASH names its content, so that two versions can lie side by side
        program                Python with all modules inside
        lib/                   the C library, its loader, other libraries, and modules that are shared objects
        launcher               for `install`, which puts it beside the copy of the bundle
        LICENSES               of everything in it
    manifest.json          what belongs to the bundle, and its name

The one file is the launcher with all of these behind its end. They are not compressed: images and downloads are, and
unpacking then is a copy within the kernel.
"""

import hashlib
import json
import shutil
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from binary import libraries, licenses, modules, program

NAME = "slot-agent"
PAGE_BYTES = 4096
RUN = frozenset({program.NAMES["PROGRAM"], program.NAMES["LOADER"], "launcher"})
_ENTRY, _TRAILER = struct.Struct("<QQII"), struct.Struct("<QQ8s")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was built: its name, and its files by their names within it."""

    name: str
    files: Mapping[str, Path]


def build(folder: Path) -> Bundle:
    """Compile and collect everything below `folder`."""
    selected = modules.select()
    files = {program.NAMES["PROGRAM"]: folder / "program"}
    program.compile_program([module for module in selected if not module.is_extension], folder, folder / "program")
    for module in selected:
        if module.is_extension:
            files[f"lib/{module.name}.so"] = _stripped(module.path, folder / "lib" / f"{module.name}.so")
    found, loader = libraries.needed(files.values())
    files[program.NAMES["LOADER"]] = loader
    system = found["libc.so.6"].parent
    for name, path in found.items():
        # The distribution's are stripped already, and threads of the C library can't be debugged once stripped further.
        of_system = path.parent.samefile(system)
        files[f"lib/{name}"] = path if of_system else _stripped(path, folder / "lib" / name)
    (folder / "LICENSES").write_text(licenses.collect(selected, [loader, *found.values()]))
    files["LICENSES"] = folder / "LICENSES"
    bundle = _name(files)
    program.compile_launcher(bundle, folder, folder / "launcher")
    files["launcher"] = folder / "launcher"
    (folder / "manifest.json").write_text(json.dumps({"name": bundle, "files": sorted(files)}, indent=1))
    files["manifest.json"] = folder / "manifest.json"
    return Bundle(bundle, dict(sorted(files.items())))


def write_file(bundle: Bundle, target: Path) -> None:
    """The bundle as one file, whole or not at all."""
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{NAME}.", delete=False) as output:
        output.write(bundle.files["launcher"].read_bytes())
        rows = bytearray()
        for name, path in bundle.files.items():
            output.write(bytes(-output.tell() % PAGE_BYTES))
            content = path.read_bytes()
            mode = 0o555 if name in RUN else 0o444
            rows += _ENTRY.pack(output.tell(), len(content), mode, len(name)) + name.encode()
            output.write(content)
        listed = output.tell()
        output.write(rows + _TRAILER.pack(listed, len(bundle.files), program.NAMES["MAGIC"].encode()))
    Path(output.name).chmod(0o755)
    Path(output.name).replace(target)


def _stripped(source: Path, target: Path) -> Path:
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(source, target)
    program.strip(target)
    return target


def _name(files: Mapping[str, Path]) -> str:
    digest = hashlib.sha256((program.SOURCES / "launcher.c").read_bytes())
    for name, path in sorted(files.items()):
        digest.update(f"{name}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return f".{NAME}-{digest.hexdigest()[:12]}"
