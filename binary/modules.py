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

ROOT = Path(__file__).parent.parent

ENTRIES = ("agent.__main__", "agent.worker.__main__", "agent.app", "agent.commands")

ENCODINGS = ("ascii", "idna", "latin_1", "punycode", "unicode_escape", "utf_8", "utf_8_sig")
"""Found by name when they are needed, so that no import tells of them."""

EXCLUDED = (
    # Nobody here calls what these are for.
    "_bz2", "_lzma", "_pydecimal", "aiohttp.pytest_plugin", "aiohttp.test_utils", "aiohttp.worker", "bz2", "doctest",
    "distutils", "ensurepip", "ftplib", "idlelib", "lib2to3", "lzma", "multiprocessing", "pdb", "pip", "pkg_resources",
    "pydoc", "pydoc_data", "pytest", "readline", "rlcompleter", "setuptools", "site", "sqlite3", "test", "tkinter",
    "turtle", "unittest", "venv", "wsgiref", "xml", "xmlrpc",
    # Installed beside it, perhaps; the agent must not depend on that.
    "aiodns", "brotli", "brotlicffi", "pydantic", "twisted",
    # What the agent and its workers must not know.
    "controller", "kubernetes_asyncio", "yaml", "click", "rich",
)  # fmt: skip

_TRACE = """
import importlib, json, sys
sys.path.insert(0, {root!r})
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
    loaded = [name for entry in ENTRIES for name in _loaded(entry)]
    finder = ModuleFinder([str(ROOT), *_paths()], excludes=list(EXCLUDED))
    for name in (*ENTRIES, *(f"encodings.{encoding}" for encoding in ENCODINGS)):
        finder.import_hook(name)
    for name in filter(_is_wanted, loaded):
        with suppress(ImportError):  # a module that another one made, as os.path
            finder.import_hook(name)
    rank = {name: place for place, name in reversed([*enumerate(loaded)])}
    modules = [
        Module(name, Path(found.__file__), bool(found.__path__), found.__code__ is None)
        for name, found in _found(finder)
        if found.__file__ is not None and not _imp.is_frozen(name)  # Python has those itself
    ]
    return sorted(modules, key=lambda module: (rank.get(module.name, len(rank)), module.name))


def _found(finder: ModuleFinder) -> Iterable[tuple[str, Any]]:
    """What was found, by name. These are modulefinder's own records, whatever its types say."""
    return finder.modules.items()


def _paths() -> Iterable[str]:
    """Where modules are looked for: nothing that happens to be on this process's path."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    paths = [sysconfig.get_path(name) for name in names]
    dynamic = sysconfig.get_config_var("DESTSHARED")
    return dict.fromkeys([*paths, *([dynamic] if dynamic else [])])


def _is_wanted(name: str) -> bool:
    return name not in sys.builtin_module_names and not any(
        name == other or name.startswith((f"{other}.", "_frozen_importlib", "__", "_podslots", "_distutils"))
        for other in EXCLUDED
    )


def _loaded(entry: str) -> list[str]:
    """What is loaded, in this order, once this module is."""
    code = _TRACE.format(root=str(ROOT), entries=[entry])
    command = [sys.executable, "-I", "-c", code]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 - our own interpreter
    names: list[str] = json.loads(result.stdout)
    return names
