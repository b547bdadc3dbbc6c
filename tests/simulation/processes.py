"""The processes of a step's commands: they take time, and mind signals as Terraform, its plugins and shells do."""

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

SIGINT, SIGKILL, SIGTERM = 2, 9, 15


class Manner(Enum):
    """What the stop signal does to a process: it dies of it; it does not mind; it saves what it did, and ends then."""

    DIES = auto()
    DEAF = auto()
    TIDIES = auto()


@dataclass(frozen=True)
class Program:
    """What a command runs: what works for `seconds` and ends with `code`, or with `stopped_code` once it has tidied up.

    `tidy_seconds`: how long that takes; None: it dies of the stop signal. `behind_shell`: the command's first process
    is a shell that only waits for it, and that does die of it. `leaves_seconds`: beside it runs a process that does not
    mind the stop signal, and goes on so long after the work has ended by itself.
    """

    seconds: float
    code: int
    tidy_seconds: float | None = None
    stopped_code: int = 1
    behind_shell: bool = False
    leaves_seconds: float | None = None


@dataclass(frozen=True)
class Doing:
    """What a step does: its commands, the last of which is its own, and its limits."""

    programs: tuple[Program, ...]
    grace_seconds: int = 60
    timeout_seconds: int | None = None

    @property
    def seconds(self) -> float:
        """How long it takes if nobody stops it."""
        return sum(program.seconds for program in self.programs)


class Process:
    """One process. `torn`: it was ended before it had saved what it did."""

    def __init__(
        self,
        seconds: float,
        code: int,
        rng: random.Random,
        ended: Callable[["Process"], None],
        *,
        manner: Manner = Manner.DIES,
        tidy_seconds: float = 0.0,
        stopped_code: int = 1,
        stubborn: bool = False,
    ) -> None:
        self.code: int | None = code
        self.signal: int | None = None
        self.over = self.torn = False
        self._seconds = seconds
        self._rng = rng
        self._ended = ended
        self._manner = manner
        self._tidy_seconds = tidy_seconds
        self._stopped_code = stopped_code
        self._stubborn = stubborn
        self._tidying = False
        self._signalled = asyncio.Event()
        self._limit: asyncio.Timeout | None = None
        self._task = asyncio.get_running_loop().create_task(self._run())

    def interrupt(self) -> None:
        """The stop signal. A second one is an order to end at once."""
        if self._manner is Manner.TIDIES and not self._tidying:
            self._tidy()
        elif self._manner is not Manner.DEAF and not (self._manner is Manner.DIES and self._stubborn):
            self._end_by(SIGINT)

    def _tidy(self) -> None:
        if self._limit is not None:
            try:
                self._limit.reschedule(asyncio.get_running_loop().time() + self._tidy_seconds)
            except RuntimeError:
                return  # it ends at this very moment
        self._tidying, self.code, self._seconds = True, self._stopped_code, self._tidy_seconds

    def terminate(self) -> None:
        if not self._stubborn:
            self._end_by(SIGTERM)

    def kill(self) -> None:
        self._end_by(SIGKILL)

    def vanish(self) -> None:
        """Its container is gone, at once."""
        self.over = True
        self._task.cancel()

    def _end_by(self, number: int) -> None:
        if not self.over:
            self.signal = number
            self._signalled.set()

    async def _run(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._seconds) as self._limit:
                await self._signalled.wait()
                await asyncio.sleep(self._rng.uniform(0.0, 0.5))
        self.over = True
        if self.signal is not None:
            self.code, self.torn = None, self._tidying
        self._ended(self)


class Command:
    """The processes of one command, of which one is the first. `changed` is told whenever one of them has ended."""

    def __init__(self, program: Program, rng: random.Random, *, stubborn: bool) -> None:
        self.changed: Callable[[Process], None] = lambda _process: None
        self.heard: Callable[[Process], None] = lambda _process: None
        """Told first, whether or not anybody else is there to hear it."""
        self._rest: list[Process] = []
        tidy = program.tidy_seconds

        def process(seconds: float, manner: Manner) -> Process:
            return Process(
                seconds,
                program.code,
                rng,
                self._ended,
                manner=manner,
                tidy_seconds=tidy or 0.0,
                stopped_code=program.stopped_code,
                stubborn=stubborn,
            )

        works = Manner.DIES if tidy is None else Manner.TIDIES
        self.first = process(program.seconds, Manner.DIES if program.behind_shell else works)
        if program.behind_shell:
            self._rest.append(process(program.seconds, works))
        if program.leaves_seconds is not None:
            self._rest.append(process(program.seconds + program.leaves_seconds, Manner.DEAF))

    @property
    def left(self) -> list[Process]:
        """What has not ended."""
        return [process for process in (self.first, *self._rest) if not process.over]

    def interrupt(self) -> None:
        """The stop signal, to all of its group."""
        for process in self.left:
            process.interrupt()

    def terminate(self) -> None:
        for process in self.left:
            process.terminate()

    def kill(self) -> None:
        for process in self.left:
            process.kill()

    def vanish(self) -> None:
        for process in self.left:
            process.vanish()

    def _ended(self, process: Process) -> None:
        self.heard(process)
        self.changed(process)
