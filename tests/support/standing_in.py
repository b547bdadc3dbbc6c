"""`python -m tests.support.standing_in`: a controller whose requests are made on behalf of the user in STANDS_IN_FOR.

So RBAC is asked what that user may do, as it is of a service account in a cluster.
"""

import os
from collections.abc import Mapping
from dataclasses import replace

from controller import process
from controller.config import Config
from controller.kube.access import KubeSettings

_found = process.kube_settings


def standing_in(config: Config, environ: Mapping[str, str]) -> KubeSettings:
    return replace(_found(config, environ), stands_in_for=os.environ["STANDS_IN_FOR"])


if __name__ == "__main__":
    process.kube_settings = standing_in
    process.run()
