"""`slot-agent install DIR`: puts slot-agent where containers of other images execute it. Standard library only.

The binary installs itself with all it needs, its own C library and loader included: DIR/slot-agent, a static program,
starts the files of DIR/.slot-agent-HASH, and HASH names their content. A slot-agent that runs from its source installs
a shell script that starts it from there, which serves the machine it is on.
"""

import json
import os
import shlex
import shutil
import sys
from contextlib import suppress
from pathlib import Path

NAME = "slot-agent"

LAUNCHER = """#!/bin/sh
# Starts {name} from its source. A worker needs the standard library alone, so it is spared the rest.
case "${{1:-}}" in
work) exec {python} -I -S -X frozen_modules=on -c {code} "$@" ;;
*) exec {python} -I -X frozen_modules=on -c {code} "$@" ;;
esac
"""

CODE = "import sys; sys.path.insert(0, {source!r}); from agent.__main__ import main; sys.exit(main())"


def install(folder: Path) -> None:
    """Make FOLDER/slot-agent. Raises OSError.

    Every file appears whole, and slot-agent after all it needs, for another container may be starting it. Nothing is
    synced: a volume that lost a write with its machine is filled again before containers start again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    bundle: str | None = getattr(sys, "slot_agent_bundle", None)
    if bundle is None:
        _put(folder / NAME, _launcher().encode(), 0o755)
    else:
        _install_bundle(Path(bundle), folder)


def _install_bundle(source: Path, folder: Path) -> None:
    manifest = json.loads((source / "manifest.json").read_text())
    target = folder / manifest["name"]
    for below in (target, *{(target / name).parent for name in manifest["files"]}):
        below.mkdir(exist_ok=True)
        below.chmod(0o755)  # whatever the umask: workers run as users of their own
    for name in (*manifest["files"], "manifest.json"):
        _put(target / name, source / name, (source / name).stat().st_mode & 0o555 | 0o444)
    _put(folder / NAME, source / "launcher", 0o555)


def _put(target: Path, content: bytes | Path, mode: int) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if isinstance(content, bytes):
            temporary.write_bytes(content)
        else:
            shutil.copyfile(content, temporary)
        temporary.chmod(mode)
        temporary.replace(target)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def _launcher() -> str:
    source = str(Path(__file__).resolve().parent.parent)
    python, code = shlex.quote(sys.executable), shlex.quote(CODE.format(source=source))
    return LAUNCHER.format(name=NAME, python=python, code=code)
