"""Runs seeds: one in this process, or many on all cores."""

import gc
import itertools
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, as_completed, wait
from dataclasses import dataclass

from tests.simulation import planted
from tests.simulation.history import live
from tests.simulation.themes import Theme
from tests.simulation.trace import Trace
from tests.support import virtual_time


@dataclass(frozen=True)
class Result:
    """What came of one seed. `problem` is None if all was well; `events` are the last ones."""

    seed: int
    steps: int
    simulated_seconds: float
    digest: str
    problem: str | None = None
    events: tuple[str, ...] = ()


class Mistakes(logging.Handler):
    """Keeps the first thing that broke in the controller and that it survived: its log alone tells."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.first: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.first is None and record.exc_info and record.name.startswith("controller"):
            self.first = f"{record.getMessage()}: {record.exc_info[1]!r}"


def run_seed(seed: int, *, bug: str | None = None, theme: Theme | None = None, whole: bool = False) -> Result:
    """Live through one seed's history, with a planted bug if one is named, about a theme if one is given.

    The same seed gives the same digest.
    """
    trace = Trace(whole=whole)
    problem = None
    level, mistakes = logging.root.manager.disable, Mistakes()
    logging.disable(logging.WARNING)
    handlers, logging.root.handlers = logging.root.handlers, [mistakes]
    gc.disable()  # a collection runs finalizers, at moments that depend on what ran before
    try:
        with planted.plant(bug):
            virtual_time.run(lambda: live(seed, trace, about=theme))
        assert mistakes.first is None, mistakes.first
    except AssertionError as error:
        problem = str(error).partition("\n\n")[0]
    except Exception as error:  # noqa: BLE001 - whatever comes out is a finding
        problem = f"{type(error).__name__}: {error}"
    finally:
        gc.enable()
        gc.collect()
        logging.root.handlers = handlers
        logging.disable(level)
    last = float(trace.events[-1].split()[0]) if trace.events else 0.0
    return Result(seed, trace.steps, last, trace.digest, problem, tuple(trace.events) if problem or whole else ())


def run_seeds(
    seeds: Iterable[int], *, jobs: int = 1, bug: str | None = None, theme: Theme | None = None
) -> Iterator[Result]:
    """Results as they come."""
    work = iter(seeds)
    if jobs == 1:
        yield from (run_seed(seed, bug=bug, theme=theme) for seed in work)
        return
    pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("fork"))
    try:
        waiting = {pool.submit(run_seed, seed, bug=bug, theme=theme) for seed in itertools.islice(work, jobs)}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            waiting |= {pool.submit(run_seed, seed, bug=bug, theme=theme) for seed in itertools.islice(work, len(done))}
            yield from (future.result() for future in done)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class Found:
    """How a planted bug was found: after how many seeds, and as what. `what` is empty if it was not."""

    bug: str
    seeds: int
    what: str


def find_bug(bug: str, seeds: Sequence[int]) -> Found:
    """Live through seeds until something is broken that is not without the bug: else it is not what was found."""
    theme = planted.BUGS[bug].theme
    for number, seed in enumerate(seeds, 1):
        problem = run_seed(seed, bug=bug, theme=theme).problem
        if problem is not None and run_seed(seed, theme=theme).problem is None:
            lines = [line for line in problem.splitlines() if not line.startswith(f"seed {seed}:")]
            return Found(bug, number, lines[0].partition(" s: ")[2] or lines[0])
    return Found(bug, len(seeds), "")


def find_bugs(bugs: Iterable[str], seeds: Sequence[int], *, jobs: int) -> Iterator[Found]:
    """A process for each bug, in turn."""
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("fork")) as pool:
        running = [pool.submit(find_bug, bug, seeds) for bug in bugs]
        for future in as_completed(running):
            yield future.result()


def with_fixed_hashes() -> None:
    """Start this program again with hashes of strings that are the same in each run, if they are not yet."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, sys.orig_argv, {**os.environ, "PYTHONHASHSEED": "0"})  # noqa: S606


class Tally:
    """Sums over results."""

    def __init__(self) -> None:
        self.seeds = self.steps = 0
        self.simulated_seconds = 0.0
        self.failed: list[Result] = []
        self._began = time.monotonic()

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.steps += result.steps
        self.simulated_seconds += result.simulated_seconds
        if result.problem is not None:
            self.failed.append(result)

    def __str__(self) -> str:
        seconds = time.monotonic() - self._began
        hours = self.simulated_seconds / 3600
        return (
            f"{self.seeds} seeds, {self.steps} steps, {hours:.1f} simulated hours in {seconds:.0f} s"
            f" ({hours / seconds:.2f} simulated hours and {self.steps / seconds:.0f} steps a second):"
            f" {len(self.failed)} failed"
        )
