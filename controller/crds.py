"""Where the definitions, admission policies and roles are: in the source tree, or the installed package."""

from pathlib import Path


def folder() -> Path:
    """The folder of the CRDs' YAML files. Raises FileNotFoundError if this installation has none."""
    return _found("base/crds", "_crds")


def policies_folder() -> Path:
    """The folder of the admission policies' YAML files. Raises FileNotFoundError if this installation has none."""
    return _found("protection", "_protection")


def roles_file() -> Path:
    """The YAML file of the roles for people. Raises FileNotFoundError if this installation has none."""
    return _found("base/rbac/people.yaml", "_rbac/people.yaml")


def _found(in_the_tree: str, in_the_package: str) -> Path:
    package = Path(__file__).parent
    for candidate in (package.parent / "manifests" / in_the_tree, package / in_the_package):
        if candidate.exists():
            return candidate
    raise FileNotFoundError(f"the manifests of {in_the_tree} are not part of this installation")
