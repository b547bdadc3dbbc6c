"""`python -m controller.local`: an embedded cluster in one process, until SIGTERM or SIGINT.

Prints one JSON line when it is ready. Containers see none of the host's environment but PATH and what `--env` names.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import random
import shlex
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from controller.local.cluster import ClusterConfig, LocalCluster, run_until
from controller.local.cluster_state import AlreadyRunningError, write_private
from controller.local.node.addresses import NetworkTakenError
from controller.local.node.backoff import BackoffPolicy
from controller.local.node.config import KubeletConfig

STANDARD_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit status is 0 after a clean stop, 1 if it could not start, 2 for bad arguments."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    config = _config(options)
    _keep_descriptors()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_run(config, keep_pods=options.keep_pods, ready_file=options.ready_file))
        except (AlreadyRunningError, NetworkTakenError, OSError) as error:
            sys.stderr.write(f"cannot run the cluster: {error}\n")
            return 1
    return 0


def _keep_descriptors() -> None:
    """Hand nothing on to containers that we were started with: a pipe to our starter would not end while they run."""
    for descriptor in (int(entry.name) for entry in Path("/proc/self/fd").iterdir()):
        if descriptor > STANDARD_ERROR:
            with contextlib.suppress(OSError):  # the one by which the folder was read
                os.set_inheritable(descriptor, False)


async def _run(config: ClusterConfig, *, keep_pods: bool, ready_file: Path | None) -> None:
    cluster = LocalCluster(config, now=lambda: datetime.now(UTC), rng=random.SystemRandom())
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            cluster.kubelet.hurry()  # asked twice: do not wait for the grace
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    asked = asyncio.create_task(stopping.wait(), name="wait for a signal")
    starting = asyncio.create_task(cluster.start(), name="start")
    await asyncio.wait({asked, starting}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting, asked})
        return
    starting.result()
    try:
        line = json.dumps(_ready(cluster))
        if ready_file is not None:
            write_private(ready_file, line + "\n")
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
        await run_until(cluster, asked)
    finally:
        asked.cancel()
        await cluster.stop(keep_pods=keep_pods)


def _ready(cluster: LocalCluster) -> dict[str, object]:
    return {
        "url": cluster.url,
        "kubeconfig": str(cluster.kubeconfig),
        "state_dir": str(cluster.config.state_dir),
        "node": cluster.config.kubelet.node_name,
        "node_ip": cluster.kubelet.node_ip,
        "kubelet_admin": cluster.admin.url if cluster.admin else "",
        "pid": os.getpid(),
    }


def _config(options: argparse.Namespace) -> ClusterConfig:
    given = [str(folder.absolute()) for folder in options.path]
    host = os.environ.get("PATH", os.defpath).split(os.pathsep)
    path = os.pathsep.join(dict.fromkeys([*given, str(Path(sys.executable).parent), *host]))
    environment = {}
    for entry in options.env:
        name, given, value = entry.partition("=")
        if given or name in os.environ:
            environment[name] = value if given else os.environ[name]
    images = {}
    for entry in options.image:
        image, _, command = entry.partition("=")
        images[image] = shlex.split(command)
    kubelet = KubeletConfig(
        node_name=options.node_name,
        path=path,
        environment=environment,
        images=images,
        backoff=BackoffPolicy(
            first_seconds=options.backoff_seconds,
            limit_seconds=max(options.backoff_limit_seconds, options.backoff_seconds),
        ),
        heartbeat_seconds=min(10.0, options.node_grace_seconds / 4),
        node_grace_seconds=options.node_grace_seconds,
        keep_logs=options.keep_logs.absolute() if options.keep_logs else None,
        stop_grace_seconds=options.stop_grace_seconds,
    )
    return ClusterConfig(
        state_dir=options.state_dir.absolute(),
        port=options.port,
        crds=options.crds,
        policies=options.policies,
        roles=options.roles,
        evictions=options.evictions,
        tls=not options.no_tls,
        kubeconfig=options.kubeconfig.absolute() if options.kubeconfig else None,
        kubelet=kubelet,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m controller.local", description="An embedded cluster.")
    add = parser.add_argument
    add("--state-dir", type=Path, required=True, help="where the cluster lives; a restart resumes from it")
    add("--port", type=int, default=0, help="API server's port (default: the last one, else any free one)")
    add("--crds", type=Path, help="folder of CustomResourceDefinitions to load at the start")
    add("--policies", type=Path, help="folder of admission policies to load at the start")
    add("--roles", type=Path, help="file of ClusterRoles to load at the start, and Kubernetes' own with them")
    add("--evictions", action="store_true", help="serve the alpha API lifecycle.k8s.io/v1alpha1, with nobody behind it")
    add("--kubeconfig", type=Path, help="write the kubeconfig here, besides the state folder")
    add("--no-tls", action="store_true", help="plain HTTP; kubectl then sends no token")
    add("--ready-file", type=Path, help="write the line that tells of readiness here too")
    add("--keep-pods", action="store_true", help="on SIGTERM leave the containers running for the next start")
    add("--keep-logs", type=Path, metavar="DIR", help="containers' logs go to DIR/POD-UID/CONTAINER/RUN.log, and stay")
    add("--stop-grace-seconds", type=float, default=10.0, help="else what they get to end (default: %(default)s)")
    add("--node-name", default="local")
    add("--node-grace-seconds", type=float, default=40.0, help="a frozen node is NotReady after this long")
    add("--backoff-seconds", type=float, default=10.0, help="second restart of a container waits this long")
    add("--backoff-limit-seconds", type=float, default=300.0, help="restarts never wait longer than this")
    add("--env", action="append", default=[], metavar="NAME[=VALUE]", help="a variable all containers get")
    add("--path", type=Path, action="append", default=[], metavar="DIR", help="where commands are looked for first")
    add("--image", action="append", default=[], metavar="IMAGE=COMMAND", help="command of an image, * matches any")
    return parser


if __name__ == "__main__":
    sys.exit(main())
