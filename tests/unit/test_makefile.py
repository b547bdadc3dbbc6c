"""The Makefile sets up `.venv` again where an interrupted set-up has left half of one."""

import subprocess
import sys
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[2] / "Makefile"


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def set_up(folder: Path) -> bool:
    """Run `make venv`, with nothing to install. Whether it made the virtual environment."""
    (folder / "pyproject.toml").touch()
    (folder / "constraints.txt").touch()
    script(folder / "python", f'[ "$1$2" = -mvenv ] && echo "made $4" && exit; exec {sys.executable} "$@"')
    command = ["make", "--file", str(MAKEFILE), "venv", "INSTALL=true", f"PYTHON={folder / 'python'}"]
    made = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return "made .venv" in made.stdout.splitlines()


@pytest.mark.parametrize(
    ("python", "pip", "made"),
    [
        ("exit 0", "exit 0", False),
        ("exit 0", None, True),
        ("exit 0", "exit 1", True),
        ("exit 1", "exit 0", True),
        (None, None, True),
    ],
    ids=["whole", "without pip", "pip broken", "Python too old", "nothing"],
)
def test_a_virtual_environment_is_made_unless_it_is_whole(
    tmp_path: Path, python: str | None, pip: str | None, *, made: bool
) -> None:
    for name, text in (("python", python), ("pip", pip)):
        if text is not None:
            script(tmp_path / ".venv" / "bin" / name, text)
    (tmp_path / ".venv").mkdir(exist_ok=True)
    assert set_up(tmp_path) is made


@pytest.mark.parametrize(
    ("words", "shown"),
    [("KeyboardInterrupt", False), ("Error: No space left on device", True)],
    ids=["Ctrl-C", "error"],
)
def test_a_set_up_that_fails_says_why_and_one_that_is_interrupted_shows_no_traceback(
    tmp_path: Path, words: str, *, shown: bool
) -> None:
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    failing = f'echo "{words}" >&2; exit 1'
    script(tmp_path / "python", f'if [ "$1$2" = -mvenv ]; then {failing}; fi; exec {sys.executable} "$@"')
    command = ["make", "--file", str(MAKEFILE), "venv", "INSTALL=true", f"PYTHON={tmp_path / 'python'}"]
    made = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert made.returncode != 0
    assert (words in made.stderr) is shown
