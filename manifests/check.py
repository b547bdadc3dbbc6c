"""`python -m manifests.check`: holds objects of Kubernetes' own kinds to Kubernetes' own schemas, unknown fields too.

The schemas come with a package, so that nothing is fetched. The oldest and the newest version that podslots is for are
asked: a field that one of them does not know is found. Objects of our own kinds are held to our definitions by tests.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from kubernetes_validate import SchemaNotFoundError, ValidationError, validate

from controller.names import GROUP

FOLDER = Path(__file__).parent
VERSIONS = ("1.30", "1.37")
OTHERS = (GROUP, "kustomize.config.k8s.io", "monitoring.coreos.com")
"""API groups that have no schemas here."""
NO_OBJECTS = (".rules.yaml", ".scrape.yaml")
"""Files that Prometheus reads: promtool holds them to its own rules, in the tests."""


def problems(document: dict[str, Any]) -> Iterator[str]:
    """What is wrong with an object, for each version."""
    for version in VERSIONS:
        try:
            validate(document, version, strict=True)
        except ValidationError as error:
            place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
            yield f"{place or 'the object'}: {error.message} (Kubernetes {version})"
        except SchemaNotFoundError as error:
            yield error.message


def documents(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The objects in a folder's files that are of Kubernetes' own kinds."""
    for path in sorted(folder.rglob("*.yaml")):
        if path.name.endswith(NO_OBJECTS):
            continue
        for document in yaml.safe_load_all(path.read_text()):
            if document.get("apiVersion", "").partition("/")[0] not in OTHERS:
                yield path, document


def main(folder: Path = FOLDER) -> int:
    """Print what is wrong; returns the exit status."""
    status = 0
    for path, document in documents(folder):
        for problem in problems(document):
            name = f"{document.get('kind')} {document.get('metadata', {}).get('name')}"
            sys.stderr.write(f"{path.relative_to(folder)}: {name}: {problem}\n")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
