"""Frozen into the binary and run first: finds shared objects of the bundle, whichever package they belong to.

A frozen package has no folder, so they lie side by side, each under its module's full name. One listing tells of all.
"""

import posix
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import ExtensionFileLoader

SUFFIX = ".so"


class Extensions:
    """Finds what lies in one folder as FULL.NAME.so."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._files = frozenset(posix.listdir(folder))

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """How to load it, if it is here."""
        del path, target
        if name + SUFFIX not in self._files:
            return None
        file = f"{self._folder}/{name}{SUFFIX}"
        spec = ModuleSpec(name, ExtensionFileLoader(name, file), origin=file)
        spec.has_location = True
        return spec


def start() -> None:
    """Leave nothing to be imported but the bundle, and tell `slot-agent install` where it is."""
    sys.meta_path[2:] = [Extensions(f"{sys.prefix}/lib")]  # behind the built-in and the frozen modules
    sys.slot_agent_bundle = sys.prefix  # type: ignore[attr-defined]
