"""`python -m binary.release`: builds all that a release has, without a container engine, and says how large it is.

The images' builds are run as their Dockerfiles have them, in a copy of what they COPY: each RUN after that, in an
environment of its own. What installs packages of the system is left out. All of it goes to dist/release, with a list of
the Python packages in each image (CycloneDX).
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

from agent import __version__
from binary.modules import ROOT

DIST = ROOT / "dist" / "release"
IMAGES = {"agent": "/image", "controller": "/opt/podslots"}
"""The images, and the folder of each build that becomes the image's layer."""
LABELS = ("title", "description", "licenses", "version", "revision")
_SYSTEM = ("apt-get", "update-ca-certificates")


class ReleaseError(Exception):
    """Something of the release is not as it has to be."""


def build_stage(dockerfile: str) -> list[tuple[str, str]]:
    """The instructions of the first stage: `("COPY", "agent agent")`."""
    text = re.sub(r"(?m)^\s*#.*\n", "", dockerfile).replace("\\\n", " ")
    first = re.split(r"(?m)^FROM ", text)[1]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in first.splitlines()) if rest]


def copied(instructions: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """What is copied from the context, and to where below the working directory."""
    for word, rest in instructions:
        if word == "COPY":
            *sources, target = rest.split()
            for source in sources:
                yield source, source if target in {"./", "."} else target


def check_labels(name: str, dockerfile: str) -> None:
    """Raises ReleaseError if a label of the OCI's annotations is missing."""
    missing = [label for label in LABELS if f"org.opencontainers.image.{label}=" not in dockerfile]
    if missing:
        raise ReleaseError(f"Dockerfile.{name} has no label {', '.join(missing)}")


def check_changelog(text: str, version: str) -> None:
    """Raises ReleaseError if there is nothing about this version."""
    if not re.search(rf"(?m)^## \[?{re.escape(version)}\b", text):
        raise ReleaseError(f"CHANGELOG.md has no section {version}: give what is Unreleased its name and date")


def build_image(name: str, folder: Path) -> Path:
    """Run an image's build in a folder; the root or the environment that becomes its layer."""
    dockerfile = (ROOT / f"Dockerfile.{name}").read_text()
    check_labels(name, dockerfile)
    instructions = build_stage(dockerfile)
    source, layer, tools = folder / "src", folder / "layer", folder / "tools"
    for wanted, target in copied(instructions):
        there, here = ROOT / wanted, source / target
        if not there.exists():
            raise ReleaseError(f"Dockerfile.{name} copies {wanted}, which is not there")
        here.parent.mkdir(parents=True, exist_ok=True)
        if there.is_dir():
            shutil.copytree(there, here, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(there, here)
    venv.create(tools, with_pip=True)
    environ = {**os.environ, "PATH": f"{tools / 'bin'}:{os.environ['PATH']}"}
    environ.pop("PYTHONPATH", None)
    for word, command in instructions:
        if word == "RUN" and not any(program in command for program in _SYSTEM):
            script = command.replace(IMAGES[name], str(layer))
            run = subprocess.run(  # noqa: S603 - what the Dockerfile says
                ["/bin/sh", "-ec", script], check=False, cwd=source, env=environ, capture_output=True, text=True
            )
            if run.returncode:
                raise ReleaseError(f"Dockerfile.{name}: `{command}` ended with {run.returncode}:\n{run.stderr}")
    return layer


def list_packages(environment: Path, output: Path) -> None:
    """Write the list of an environment's packages."""
    program = Path(sys.executable).with_name("cyclonedx-py")
    python = environment / "bin" / "python"
    command = [str(program), "environment", "--output-reproducible", "--output-file", str(output), str(python)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)  # noqa: S603 - from our environment


def size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(each.lstat().st_size for each in path.rglob("*") if not each.is_dir())


def release() -> Iterator[Path]:
    """Build everything; each thing once it is there."""
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir(parents=True)
    check_changelog((ROOT / "CHANGELOG.md").read_text(), __version__)
    python = sys.executable
    wheel = [python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(DIST), str(ROOT)]
    subprocess.run(wheel, check=True)  # noqa: S603 - our own
    yield next(DIST.glob("*.whl"))
    subprocess.run([python, "-m", "manifests", "--check"], check=True, cwd=ROOT)  # noqa: S603 - our own
    yield Path(shutil.copy(ROOT / "manifests" / "install.yaml", DIST))
    for name in IMAGES:
        with tempfile.TemporaryDirectory(prefix="podslots-release-") as folder:
            layer = build_image(name, Path(folder))
            shutil.copytree(layer, DIST / f"image-{name}", symlinks=True)
            # What the agent's one program was made of is in the build's own environment.
            environment = layer if (layer / "bin" / "python").exists() else Path(folder) / "tools"
            list_packages(environment, DIST / f"{name}.cdx.json")
        yield DIST / f"image-{name}"
        yield DIST / f"{name}.cdx.json"


def main() -> int:
    """Build, and print what there is; returns the exit status."""
    try:
        for path in release():
            sys.stdout.write(f"{size(path) / (1 << 20):8.2f} MiB  {path.relative_to(ROOT)}\n")
    except (ReleaseError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
