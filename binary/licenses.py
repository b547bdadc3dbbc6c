"""The licences of everything in a bundle, as one text that goes with it: most of them ask for that."""

import re
import subprocess
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

from binary.modules import ROOT, Module

_NAMED = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|AUTHORS)", re.IGNORECASE)


def collect(modules: Iterable[Module], libraries: Iterable[Path]) -> str:
    """Each component's name and its licence, our own first."""
    found = {"podslots": ROOT.joinpath("LICENSE").read_text()}
    found |= dict(_of_python())
    found |= dict(_of_distributions(modules))
    found |= dict(_of_system(libraries))
    return "\n".join(f"{'=' * 78}\n{name}\n{'=' * 78}\n{text.rstrip()}\n" for name, text in found.items())


def _of_python() -> Iterator[tuple[str, str]]:
    file = Path(sysconfig.get_path("stdlib"), "LICENSE.txt")
    if file.exists():
        yield "Python", file.read_text()


def _of_distributions(modules: Iterable[Module]) -> Iterator[tuple[str, str]]:
    """Those of which a module is in the bundle."""
    owners = packages_distributions()
    tops = {module.name.partition(".")[0] for module in modules if "site-packages" in module.path.parts}
    for name in sorted({owner for top in tops for owner in owners.get(top, [])}):
        found = distribution(name)
        texts = [Path(str(file.locate())).read_text() for file in found.files or [] if _NAMED.match(file.name)]
        named = found.metadata.json.get("license", "see its home page")
        yield f"{name} {found.version}", "\n".join(texts) or str(named)


def _of_system(libraries: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Those of the distribution's packages, where there is dpkg to tell which."""
    # A package's list may still name a library by the folder from before /lib became a link to /usr/lib.
    names = [name for path in libraries for name in (str(path), str(path).removeprefix("/usr"))]
    try:
        result = subprocess.run(["dpkg", "-S", *names], capture_output=True, text=True, check=False)  # noqa: S603, S607
    except FileNotFoundError:
        return
    for package in sorted({line.partition(":")[0] for line in result.stdout.splitlines()}):
        file = Path("/usr/share/doc", package, "copyright")
        if file.exists():
            yield package, file.read_text(errors="replace")
