"""`slot-agent work`: the worker's composition root. Clock, randomness and file descriptors come from here."""

import json
import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from agent.codec import format_time
from agent.worker import config
from agent.worker.disk.files import FolderMounts
from agent.worker.errors import ConfigError
from agent.worker.http.client import Link
from agent.worker.loop import Shell, Signals
from agent.worker.process import environment
from agent.worker.rules.core import Worker
from agent.worker.rules.ports import Log
from agent.worker.step.output import Echo
from agent.worker.step.preparation import SlotDisk
from agent.worker.step.step import ProcessRunner

EXIT_CONFIG = 2
LOCK_WAIT_SECONDS = 0.1
FOLDER_WAIT_SECONDS = 1.0
STDOUT, STDERR = 1, 2


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


def _open_standard_files() -> None:
    """A descriptor that is closed at the start would be given to the next file, which then got what is printed."""
    for fd in (0, STDOUT, STDERR):
        try:
            os.fstat(fd)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != fd:
                os.dup2(null, fd)
                os.close(null)


def _take_folder(disk: SlotDisk, signals: Signals, log: Log) -> bool:
    """Wait until the folder can be used and no other worker has it. False: told to stop meanwhile."""
    said = ""
    while not signals.stop:
        problem, seconds = "another worker has this folder; waiting for its end", LOCK_WAIT_SECONDS
        try:
            if disk.lock_instance():
                disk.load()
                return True
        except OSError as error:
            problem, seconds = f"the folder can't be used: {error}", FOLDER_WAIT_SECONDS
        if problem != said:
            log(problem, folder=disk.root)
        said = problem
        signals.wait(seconds)
    return False


def main(environ: Mapping[str, str]) -> int:
    """Work until told to stop. 0: stopped, 2: misconfigured, 3: a newer worker has the slot."""
    _open_standard_files()
    clock = SystemClock()
    stderr = Echo(STDERR)

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
        container=environment.container_environment(environ, environment.usual_home(os.geteuid())),
        secret_variables=environment.secret_variables(environ),
        secrets=FolderMounts(settings.secrets),
        config_maps=FolderMounts(settings.config_maps),
    )
    if not _take_folder(disk, signals, log):
        return 0
    echo = Echo(STDOUT)
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
