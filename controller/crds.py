"""Where the custom resource definitions are: in the source tree, or inside the installed package."""

from pathlib import Path


def folder() -> Path:
    """The folder of the CRDs' YAML files. Raises FileNotFoundError if this installation has none."""
    package = Path(__file__).parent
    for candidate in (package.parent / "manifests" / "base" / "crds", package / "_crds"):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError("the SlotPool and SlotTask definitions are not part of this installation")
