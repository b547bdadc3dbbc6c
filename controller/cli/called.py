"""How `podslots` is called here, for lines that are to be copied."""

import os
import shlex
import shutil
import sys
from pathlib import Path


def command() -> str:
    """`podslots` if a shell finds this very one by that name, else its path, from this folder if it is below it."""
    own = Path(sys.executable).parent / "podslots"
    found = shutil.which("podslots")
    if not own.exists() or (found is not None and Path(found).samefile(own)):
        return "podslots"
    relative = os.path.relpath(own)
    return shlex.quote(str(own) if relative.startswith(os.pardir) else relative)
