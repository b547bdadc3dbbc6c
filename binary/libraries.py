"""The shared libraries that a set of programs needs, the C library and its loader among them."""

import os
import re
import subprocess
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from binary.errors import BuildError

_LINE = re.compile(r"\s*(?:(?P<name>\S+) => )?(?P<path>/\S+) \(0x[0-9a-f]+\)")
_MISSING = re.compile(r"\s*(\S+) => not found")

LATER = "libgcc_s.so.1"
"""The C library loads this one itself when a thread ends early."""


def needed(files: Iterable[Path]) -> tuple[dict[str, Path], Path]:
    """Every library that these files need, directly or not, by its name; and their loader."""
    found: dict[str, Path] = {}
    loader: Path | None = None
    for file in files:
        for match in _ldd(file):
            name, path = match["name"], Path(match["path"])
            if name is None or name.startswith("ld-"):
                loader = path.resolve()
            else:
                found[name] = path.resolve()
    if loader is None or "libc.so.6" not in found:
        raise BuildError("the binary takes its C library from where it is built, which must be glibc")
    later = found["libc.so.6"].parent / LATER
    if later.exists():
        found.setdefault(LATER, later.resolve())
    return found, loader


def _ldd(file: Path) -> list[re.Match[str]]:
    result = subprocess.run(  # noqa: S603 - on files that we compiled or installed
        ["ldd", str(file)],  # noqa: S607 - of the C library, wherever that is
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        # Where Python's own library is, which need not be where the system looks.
        env={**os.environ, "LC_ALL": "C", "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR"))},
    )
    if missing := _MISSING.findall(result.stdout):
        raise BuildError(f"{file} needs {', '.join(missing)}, not to be found here")
    return [match for line in result.stdout.splitlines() if (match := _LINE.fullmatch(line))]
