"""The worker's one thread: waits on connections, pipe, stdout and signals, and tells the core what happened."""

import os
import select
import signal
from types import FrameType

from agent.signals import deliver
from agent.worker.errors import LinkError
from agent.worker.http.client import Link, RefusedError
from agent.worker.rules.core import Worker
from agent.worker.rules.ports import Channel, Clock
from agent.worker.step.output import Echo
from agent.worker.step.preparation import SlotDisk
from agent.worker.step.step import CLEAR_SECONDS, ProcessRunner

LAST_KILL_SECONDS = 5.0


class Shell:
    """Runs a worker to its end."""

    def __init__(
        self, *, worker: Worker, link: Link, runner: ProcessRunner, folder: SlotDisk, echo: Echo, clock: Clock
    ) -> None:
        self._worker = worker
        self._link = link
        self._runner = runner
        self._folder = folder
        self._echo = echo
        self._clock = clock

    def run(self, signals: "Signals") -> int:
        """The exit status."""
        sweeping = True
        while self._worker.exit_status is None:
            if signals.stop:
                self._worker.stop()
            self._reap()
            self._worker.tick()
            if self._worker.exit_status is not None:
                break
            for channel in Channel:
                self._send(channel)
            if sweeping:
                sweeping = self._folder.sweep()
            self._wait(signals, at_once=sweeping)
            sweeping = sweeping or self._folder.has_trash
        self._end_all()
        self._echo.flush()
        return self._worker.exit_status

    def _reap(self) -> None:
        # Also the children that compute digests.
        if ended := self._runner.reap():
            self._worker.ended(ended)

    def _send(self, channel: Channel) -> None:
        request = self._worker.next_request(channel)
        if request is None:
            return
        try:
            self._link.send(channel, request)
        except LinkError as error:
            self._worker.unanswered(channel, str(error))

    def _wait(self, signals: "Signals", *, at_once: bool) -> None:
        output = self._runner.output
        waiter = self._waiter(signals)
        waits = self._link.waits()
        for fd, events, _ in waits:
            waiter.register(fd, events)
        ready = {fd for fd, _ in waiter.poll(0 if at_once else self._timeout_milliseconds())}
        if signals.fd in ready:
            signals.clear()
        if self._echo.fd in ready:
            self._echo.flush()
            if output:
                output.show()
        if output and output.source in ready:
            output.read()
        for fd, _, channel in waits:
            if fd in ready:
                self._advance(channel)
        for channel in self._link.expired():
            self._worker.unanswered(channel, "timed out")

    def _waiter(self, signals: "Signals") -> select.poll:
        waiter = select.poll()
        waiter.register(signals.fd, select.POLLIN)
        output = self._runner.output
        if output and output.wants_reading and output.source is not None:
            waiter.register(output.source, select.POLLIN)
        if self._folder.hashing is not None:
            waiter.register(self._folder.hashing, select.POLLIN)
        if self._echo.waiting:
            waiter.register(self._echo.fd, select.POLLOUT)
        return waiter

    def _advance(self, channel: Channel) -> None:
        try:
            answer = self._link.ready(channel)
        except RefusedError as error:
            self._worker.refused(channel, error.status, error.code)
        except LinkError as error:
            self._worker.unanswered(channel, str(error))
        else:
            if answer is not None:
                self._worker.answered(channel, answer)

    def _timeout_milliseconds(self) -> float | None:
        moments = [self._worker.deadline(), self._link.deadline()]
        if self._runner.clearing:
            moments.append(self._clock.monotonic() + CLEAR_SECONDS)
        due = [moment for moment in moments if moment is not None]
        # Rounded up: a millisecond early is a turn for nothing.
        return max(0.0, min(due) - self._clock.monotonic()) * 1000 + 1 if due else None

    def _end_all(self) -> None:
        """Kill what still runs: a newer worker has the slot, or the command could not be ended in time."""
        until = self._clock.monotonic() + LAST_KILL_SECONDS
        while self._runner.output is not None and self._clock.monotonic() < until:
            self._runner.kill()
            if self._runner.reap() is None:
                select.select([], [], [], CLEAR_SECONDS)


class Signals:
    """SIGTERM and SIGINT ask to stop; SIGCHLD only wakes. They are let through once the handlers stand."""

    def __init__(self) -> None:
        self.stop = False
        self.fd, self._writer = os.pipe()
        for fd in (self.fd, self._writer):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGCHLD, self._on_child)
        deliver()

    def clear(self) -> None:
        """Forget what woke us."""
        try:
            os.read(self.fd, 4096)
        except BlockingIOError:
            return

    def wait(self, seconds: float) -> None:
        """Until a signal comes, or the time is over."""
        if select.select([self.fd], [], [], seconds)[0]:
            self.clear()

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.stop = True

    def _on_child(self, number: int, frame: FrameType | None) -> None:
        pass
