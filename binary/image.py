"""`python -m binary.image FOLDER`: the root of the agent's image, from the binary. Dockerfile.agent copies it.

Nothing is in it but slot-agent, a name for its user, and an empty /tmp: no shell, no package manager, no Python to run.
"""

import subprocess
import sys
from pathlib import Path

from binary.bundle import NAME
from binary.modules import ROOT

USER_ID = 65532
"""`nonroot` of the common base images; the Pods that the controller makes run as it."""

COMMANDS = "usr/local/bin"


def make_root(binary: Path, root: Path) -> None:
    """Fill an empty folder with all that the image of the agent has."""
    root.joinpath(COMMANDS).mkdir(parents=True)
    # The bundle as a folder: a read-only root need not be written to, and nothing is unpacked at a start.
    subprocess.run([binary, "install", root / COMMANDS], check=True)  # noqa: S603 - what we built
    root.joinpath("etc").mkdir()
    root.joinpath("etc/passwd").write_text(f"nonroot:x:{USER_ID}:{USER_ID}:nonroot:/:/nologin\n")
    root.joinpath("etc/group").write_text(f"nonroot:x:{USER_ID}:\n")
    temporary = root / "tmp"
    temporary.mkdir()
    temporary.chmod(0o1777)


if __name__ == "__main__":
    make_root(ROOT / "dist" / NAME, Path(sys.argv[1]))
