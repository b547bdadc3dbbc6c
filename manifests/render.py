"""`python -m manifests.render`: writes manifests/install.yaml, the base as one file."""

import argparse
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
FILE = FOLDER / "install.yaml"
KUBECTL = Path(sys.executable).parent / "kubectl"
HEADER = "# Made by `python -m manifests.render` of manifests/base: change it there.\n---\n"


def rendered(folder: Path = FOLDER / "base") -> str:
    """What `kubectl kustomize` makes of a folder. Raises CalledProcessError if it can't."""
    command = [str(KUBECTL), "kustomize", str(folder)]
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=60)  # noqa: S603 - our own folders
    return HEADER + ran.stdout.decode()


def main() -> int:
    """Write the file; returns the exit status. With --check: 1 if it is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m manifests.render", description="Write manifests/install.yaml.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the file differs")
    parser.add_argument("--output", type=Path, default=FILE, help="file to write")
    options = parser.parse_args()
    text, path = rendered(), options.output
    if path.is_file() and path.read_text() == text:
        return 0
    if options.check:
        sys.stderr.write(f"not as `python -m manifests.render` writes it: {path}\n")
        return 1
    path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
