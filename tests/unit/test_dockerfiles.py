"""A company's own CA is trusted before anything is fetched, and reaches no image."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.repository import ROOT

FILES = ("Dockerfile.agent", "Dockerfile.controller")
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"


def stages(name: str) -> list[str]:
    return re.split(r"(?m)^FROM ", (ROOT / name).read_text())[1:]


@pytest.mark.parametrize("name", FILES)
def test_it_is_trusted_before_anything_is_fetched_and_not_in_the_image(name: str) -> None:
    build, image = stages(name)
    trusted = build.index("update-ca-certificates")
    assert build.index("ARG CA_CERTIFICATES") < build.index("ENV PIP_CERT=") < trusted
    assert all(trusted < build.index(word) for word in ("apt-get", "pip install", "pip --python") if word in build)
    assert "CA_CERTIFICATES" not in image
    assert "PIP_CERT" not in image


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("given", ["", PEM, f"{PEM}\n{PEM}"])
def test_the_command_writes_the_certificates_if_there_are_any(name: str, given: str, tmp_path: Path) -> None:
    """The command as it stands there, with another folder and a program that only says that it was called."""
    found = re.search(r"RUN (if \[ -n .*?fi)\n", stages(name)[0], re.DOTALL)
    assert found
    command = found[1].replace("\\\n", " ").replace("/usr/local/share/ca-certificates", str(tmp_path))
    command = command.replace("update-ca-certificates", f"touch {tmp_path}/called")
    subprocess.run(["/bin/sh", "-c", command], check=True, env={**os.environ, "CA_CERTIFICATES": given}, timeout=10)
    written = tmp_path / "company.crt"
    assert (written.read_text() if written.exists() else "") == (f"{given}\n" if given else "")
    assert (tmp_path / "called").exists() is bool(given)
