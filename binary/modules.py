"""Which Python modules go into the binary."""

import _imp
import json
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any

from binary.errors import BuildError

ROOT = Path(__file__).parent.parent

ENTRIES = ("agent.__main__", "agent.worker.__main__", "agent.app", "agent.commands")

ENCODINGS = ("ascii", "idna", "latin_1", "punycode", "unicode_escape", "utf_8", "utf_8_sig")
"""Found by name when they are needed, so that no import tells of them."""

OPTIONAL = ("_bz2", "_lzma", "bz2", "lzma")
"""Loaded where they are found, by shutil for archives, and not missed where they aren't."""

EXCLUDED = (
    # Nobody here calls what these are for.
    "_pydecimal", "aiohttp.pytest_plugin", "aiohttp.test_utils", "aiohttp.worker", "distutils", "doctest", "ensurepip",
    "ftplib", "idlelib", "lib2to3", "multiprocessing", "pdb", "pip", "pkg_resources", "pydoc", "pydoc_data", "pytest",
    "readline", "rlcompleter", "setuptools", "site", "sqlite3", "test", "tkinter", "turtle", "unittest", "venv", "xml",
    "xmlrpc",
    # Installed beside it, perhaps; the agent must not depend on that.
    "aiodns", "brotli", "brotlicffi", "pydantic", "twisted",
    # What the agent and its workers must not know.
    "controller", "yaml", "click", "rich",
)  # fmt: skip

_TRACE = """
import importlib, json, sys
sys.path[:0] = {paths!r}
for name in {entries!r}:
    importlib.import_module(name)
print(json.dumps([*sys.modules]))
"""


@dataclass(frozen=True, slots=True)
class Module:
    """One module as it lies in this environment."""

    name: str
    path: Path
    is_package: bool
    is_extension: bool


def select() -> list[Module]:
    """Follow the imports of the sub-commands, in the order in which a worker loads them first.

    What the source says is followed without running it, into every function; what compiled modules import shows only
    when they run. Both are needed.
    """
    loaded = _loaded()
    if missed := [name for name in loaded if _is_excluded(name)]:
        raise BuildError(f"left out of the binary, but loaded when it starts: {', '.join(missed)}")
    finder = ModuleFinder(_paths(), excludes=[*EXCLUDED, *OPTIONAL])
    for name in (*ENTRIES, *(f"encodings.{encoding}" for encoding in ENCODINGS)):
        finder.import_hook(name)
    for name in loaded:
        with suppress(ImportError):  # built in, or made by another one, as os.path
            finder.import_hook(name)
    rank = {name: place for place, name in reversed([*enumerate(loaded)])}
    modules = [
        Module(name, Path(found.__file__), bool(found.__path__), found.__code__ is None)
        for name, found in _found(finder)
        if found.__file__ is not None and not _imp.is_frozen(name)  # Python has those itself
    ]
    return sorted(modules, key=lambda module: (rank.get(module.name, len(rank)), module.name))


def _found(finder: ModuleFinder) -> Iterable[tuple[str, Any]]:
    """What was found, by name. These are modulefinder's own records; its type annotations are wrong."""
    return finder.modules.items()


def _paths() -> list[str]:
    """Where modules are looked for: our sources and what is installed. The path of this process does not matter."""
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    dynamic = sysconfig.get_config_var("DESTSHARED")
    return [*dict.fromkeys([str(ROOT), *paths, *([dynamic] if dynamic else [])])]


def _is_excluded(name: str) -> bool:
    return any(name == other or name.startswith(f"{other}.") for other in EXCLUDED)


def _loaded() -> list[str]:
    """What is loaded, in this order, once the entries are."""
    code = _TRACE.format(paths=_paths(), entries=ENTRIES)
    command = [sys.executable, "-I", "-S", "-c", code]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 - our own interpreter
    names: list[str] = json.loads(result.stdout)
    return names
