"""How `podslots` and `kubectl` are called here, for lines that are to be copied."""

import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path


def command() -> str:
    """`podslots` if a shell finds this very one by that name, else its path, from this folder if it is below it."""
    own = Path(sys.executable).parent / "podslots"
    found = shutil.which("podslots")
    if not own.exists() or (found is not None and Path(found).samefile(own)):
        return "podslots"
    relative = os.path.relpath(own)
    return shlex.quote(str(own) if relative.startswith(os.pardir) else relative)


@dataclass(slots=True)
class Cluster:
    """Which cluster, namespace and person the command line names. What stands last counts.

    `found`: a kubeconfig that podslots finds by itself, and kubectl does not.
    """

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None
    stands_in_for: str | None = None
    found: str | None = None

    def podslots(self, *words: str, namespace: str | None = None) -> str:
        """A command that means the same cluster and person. `namespace`: another one than the command line's."""
        return self._line(command(), words, self.kubeconfig, namespace or self.namespace)

    def kubectl(self, *words: str, namespace: str | None = None) -> str:
        """The same for kubectl."""
        return self._line("kubectl", words, self.kubeconfig or self.found, namespace or self.namespace)

    def _line(self, program: str, words: tuple[str, ...], kubeconfig: str | None, namespace: str | None) -> str:
        options = {
            "--kubeconfig": kubeconfig,
            "--context": self.context,
            "-n": namespace,
            "--as": self.stands_in_for,
        }
        given = [word for name, value in options.items() if value for word in (name, value)]
        return f"{program} {shlex.join([*words, *given])}"
