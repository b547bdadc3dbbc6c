"""`python -m binary`: builds dist/slot-agent, unless it was already built from these sources."""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

from binary import bundle
from binary.errors import BuildError
from binary.modules import ROOT
from binary.program import SOURCES

PACKAGES = ("agent", "metrics")
EXIT_FAILED = 1


def main() -> int:
    """Build; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m binary", description="Build slot-agent as a single file.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / bundle.NAME, help="default: dist/slot-agent")
    target: Path = parser.parse_args().output.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    note = target.with_name(f".{target.name}.inputs")
    inputs = _inputs()
    if target.exists() and note.exists() and note.read_text() == inputs:
        return 0
    try:
        with tempfile.TemporaryDirectory(prefix="slot-agent-build-") as folder:
            bundle.write_file(bundle.build(Path(folder)), target)
        version = _version(target)
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_FAILED
    note.write_text(inputs)
    sys.stdout.write(f"{target}: {version}, {target.stat().st_size / 1e6:.1f} MB\n")
    return 0


def _version(target: Path) -> str:
    """What the new binary says of itself, to be sure that it runs."""
    with tempfile.TemporaryDirectory(prefix="slot-agent-") as folder:
        result = subprocess.run(  # noqa: S603 - what we just built
            [target, "--version"],
            env={"TMPDIR": folder},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if result.returncode:
        raise BuildError(f"the binary that was built doesn't run: {result.stdout}")
    return result.stdout.strip()


def _inputs() -> str:
    """All that decides what is built."""
    digest = hashlib.sha256(f"{sys.version}\n{sys.base_prefix}\n{os.uname().machine}\n".encode())
    for line in sorted(f"{found.name} {found.version}\n" for found in distributions()):
        digest.update(line.encode())
    for path in sorted(_sources()):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from ROOT.joinpath(package).rglob("*.py")
    yield from (path for path in SOURCES.iterdir() if path.suffix in {".py", ".c"})


if __name__ == "__main__":
    sys.exit(main())
