"""Where real Terraform's providers and a fake AWS are on this machine, if they are."""

import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.repository import ROOT

PROVIDER = Path("registry.terraform.io/hashicorp/aws")
FAKE_AWS = ROOT / "build" / "moto" / "bin" / "moto_server"
"""`make moto` makes it."""
SLOW_PROVIDER = ROOT / "tests" / "support" / "slow_provider.py"
PROVIDERS_PYTHON = ROOT / "build" / "provider" / "bin" / "python"
"""What runs it. `make provider` makes it."""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""As Go calls them."""


def find_mirror(environ: Mapping[str, str], unpacked: Path = Path("/opt")) -> Path | None:
    """A filesystem mirror that has the AWS provider.

    PODSLOTS_TEST_MIRROR may name it. Else it is looked for where Terraform does without configuration, and in the
    folders of `unpacked`.
    """
    if named := environ.get("PODSLOTS_TEST_MIRROR"):
        return Path(named)
    candidates = (*_implied(environ), *sorted(unpacked.glob("*")))
    return next((path for path in candidates if (path / PROVIDER).is_dir()), None)


def fake_aws() -> str | None:
    """The program that stands for AWS."""
    return str(FAKE_AWS) if FAKE_AWS.is_file() else shutil.which("moto_server")


def make_mirror(folder: Path) -> Path:
    """A filesystem mirror in `folder` that has our own provider, `podslots/slow`; the folder."""
    assert PROVIDERS_PYTHON.is_file(), "there is terraform, but nothing to run our provider: `make provider`"
    place = f"{platform.system().lower()}_{_ARCHITECTURES[platform.machine()]}"
    program = folder / "registry.terraform.io/podslots/slow/1.0.0" / place / "terraform-provider-slow_v1.0.0"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\nexec '{PROVIDERS_PYTHON}' '{SLOW_PROVIDER}'\n")
    program.chmod(0o755)
    return folder


def mirror_only(mirror: Path) -> str:
    """A CLI configuration of Terraform: providers come from the mirror, and nothing is asked of any registry."""
    return f'provider_installation {{\n  filesystem_mirror {{\n    path = "{mirror}"\n  }}\n}}\n'


def _implied(environ: Mapping[str, str]) -> Iterator[Path]:
    """Terraform's implied local mirrors: developer.hashicorp.com/terraform/cli/config/config-file."""
    home = Path(environ.get("HOME") or "/")
    yield home / ".terraform.d/plugins"
    own = environ.get("XDG_DATA_HOME") or str(home / ".local/share")
    shared = environ.get("XDG_DATA_DIRS") or os.pathsep.join(("/usr/local/share", "/usr/share"))
    for folder in (own, *shared.split(os.pathsep)):
        yield Path(folder) / "terraform/plugins"
