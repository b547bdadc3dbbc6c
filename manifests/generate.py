"""Writes the policies of manifests/protection, which keep others from active Pods.

They are generated because they share expressions: whom they let through, which Pods they are about, and how somebody
with the right to do so lets a delete pass. The controller's user is set in `controller.names` alone.
`python -m manifests.generate` writes them for a controller that runs in another namespace or account.
"""

import argparse
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from controller import names
from manifests.policies import pods, pool_objects, tasks
from manifests.policies.policy import Policy

FOLDER = Path(__file__).parent / "protection"
HEADER = "# Made by `make manifests` from manifests/policies: change it there.\n"


def policies(user: str = names.CONTROLLER_USER) -> tuple[Policy, ...]:
    """All policies. `user` is the controller's."""
    return (
        pods.pod_delete(),
        pods.pod_create(user),
        pool_objects.workload(user),
        pods.pod_eviction(),
        pool_objects.namespace_delete(),
        pods.pod_update(user),
        pods.pod_end(user),
        pool_objects.budget(user),
        pool_objects.lock(user),
        tasks.approval(),
        tasks.automatic_approval(),
        tasks.task_update(user),
        tasks.task_files(),
    )


def texts(user: str = names.CONTROLLER_USER) -> dict[str, str]:
    """What the folder holds: file name → text."""
    found = {}
    for policy in policies(user):
        comment = "".join(f"# {line}\n" for line in textwrap.wrap(policy.why, 118))
        body = yaml.dump_all(policy.documents(), Dumper=_Dumper, sort_keys=False, width=100_000)
        found[f"{policy.name.removeprefix('podslots-')}.yaml"] = HEADER + comment + body
    return found


class _Dumper(yaml.SafeDumper):
    """Without anchors: what serves twice is written out twice."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def files() -> Iterator[tuple[Path, str]]:
    """The files for a controller where the base has it, and what is to stand in them."""
    for name, text in texts().items():
        yield FOLDER / name, text


def main() -> int:
    """Write the files for a controller elsewhere; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m manifests.generate", description="Write manifests/protection.")
    parser.add_argument("--namespace", default=names.CONTROLLER_NAMESPACE, help="where the controller runs")
    parser.add_argument("--account", default=names.CONTROLLER_ACCOUNT, help="its ServiceAccount")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write to")
    options = parser.parse_args()
    for name, text in texts(f"system:serviceaccount:{options.namespace}:{options.account}").items():
        (options.output / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
