"""`slot-agent work`: the worker's composition root. Clock, randomness and file descriptors come from here."""

import json
import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from agent.codec import format_time
from agent.worker import config, environment
from agent.worker.client import Link
from agent.worker.core import Worker
from agent.worker.errors import ConfigError
from agent.worker.files import FolderMounts
from agent.worker.loop import Shell, Signals
from agent.worker.output import Echo
from agent.worker.preparation import SlotDisk
from agent.worker.step import ProcessRunner

EXIT_CONFIG = 2
LOCK_WAIT_SECONDS = 0.1


class SystemClock:
    """The machine's time."""

    def monotonic(self) -> float:
        """Seconds that only rise."""
        return time.monotonic()

    def now(self) -> datetime:
        """The wall's time, in UTC."""
        return datetime.now(UTC)


def jitter(seconds: float) -> float:
    """Between half of `seconds` and all. From os.urandom: the random module costs 3 ms and OpenSSL."""
    return seconds * (0.5 + os.urandom(1)[0] / 512)


def main(environ: Mapping[str, str]) -> int:
    """Work until told to stop. 0: stopped, 2: misconfigured, 3: a newer worker has the slot."""
    clock = SystemClock()
    stderr = Echo(sys.stderr.fileno())

    def log(event: str, **about: Any) -> None:
        known = {name: value for name, value in about.items() if value is not None}
        line = json.dumps({"time": format_time(clock.now()), "event": event, **known}, default=str)
        # While nobody reads stderr, lines wait, then are lost: a log must not hold up a slot.
        if not stderr.full:
            stderr.add(line.encode() + b"\n")
        stderr.flush()

    try:
        settings = config.from_environ(environ)
    except ConfigError as error:
        log("the worker is misconfigured", error=str(error))
        return EXIT_CONFIG
    signals = Signals()
    disk = SlotDisk(
        settings.work_dir,
        log,
        slot=settings.slot,
        container=environment.container_environment(environ),
        secrets=FolderMounts(settings.secrets),
        config_maps=FolderMounts(settings.config_maps),
    )
    waited = False
    while not disk.lock_instance():
        if not waited:
            log("another worker has this folder; waiting for its end", folder=settings.work_dir)
        waited = True
        signals.wait(LOCK_WAIT_SECONDS)
        if signals.stop:
            return 0
    echo = Echo(sys.stdout.fileno())
    runner = ProcessRunner(disk, echo, log)
    worker = Worker(
        # The number orders the workers of a slot (see `is_older`). Nanoseconds since boot do: a worker starts after it
        # got the folder's lock, so after its predecessor's end, and a Pod never leaves its machine. The wall clock may
        # step back.
        instance=f"{time.monotonic_ns()}-{os.urandom(4).hex()}",
        grace_seconds=settings.grace_seconds,
        disk=disk,
        runner=runner,
        clock=clock,
        jitter=jitter,
        log=log,
    )
    link = Link(settings.host, settings.port, settings.credential_dir, clock, tls=settings.tls)
    shell = Shell(worker=worker, link=link, runner=runner, folder=disk, echo=echo, clock=clock)
    return shell.run(signals)


if __name__ == "__main__":
    sys.exit(main(os.environ))
