"""Where real Terraform's provider and a fake AWS for it are on this machine, if they are."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.repository import ROOT

PROVIDER = Path("registry.terraform.io/hashicorp/aws")
FAKE_AWS = ROOT / "build" / "moto" / "bin" / "moto_server"
"""`make moto` makes it."""


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


def _implied(environ: Mapping[str, str]) -> Iterator[Path]:
    """Terraform's implied local mirrors: developer.hashicorp.com/terraform/cli/config/config-file."""
    home = Path(environ.get("HOME") or "/")
    yield home / ".terraform.d/plugins"
    own = environ.get("XDG_DATA_HOME") or str(home / ".local/share")
    shared = environ.get("XDG_DATA_DIRS") or os.pathsep.join(("/usr/local/share", "/usr/share"))
    for folder in (own, *shared.split(os.pathsep)):
        yield Path(folder) / "terraform/plugins"
