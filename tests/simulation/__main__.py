"""`python -m tests.simulation --seeds 0:10000 --jobs 2`, `--seed 17 --trace`, `--planted`, `--steps 1000000`.

Exit codes: 0 nothing was broken (with `--planted`: every bug was found); 1 otherwise.
"""

import argparse
import itertools
import os
import sys
import time
from collections.abc import Iterable, Sequence

from tests.simulation.planted import BUGS
from tests.simulation.runner import Result, Tally, find_bugs, run_seed, run_seeds, with_fixed_hashes
from tests.simulation.themes import BY_NAME, Theme

SAY_SECONDS = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, tell, and give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", default="0:200", help="FIRST:COUNT (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="go on from FIRST until there were so many steps")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    parser.add_argument("--seed", type=int, help="only this one, twice: it must be the same both times")
    parser.add_argument("--trace", action="store_true", help="with --seed: show every event")
    parser.add_argument("--theme", choices=sorted(BY_NAME), help="only histories of this (default: the seed's own)")
    parser.add_argument("--bug", choices=sorted(BUGS), help="with this bug planted")
    parser.add_argument("--planted", action="store_true", help="how many seeds each planted bug takes to be found")
    options = parser.parse_args(arguments)
    theme = BY_NAME[options.theme] if options.theme else None
    if options.seed is not None:
        return _one(options.seed, options.bug, theme, trace=options.trace)
    first, count = (int(part) for part in options.seeds.split(":"))
    if options.planted:
        return _planted([options.bug] if options.bug else list(BUGS), first, count, options.jobs)
    seeds: Iterable[int] = itertools.count(first) if options.steps else range(first, first + count)
    return _many(seeds, options.jobs, options.bug, theme, options.steps)


def _one(seed: int, bug: str | None, theme: Theme | None, *, trace: bool) -> int:
    result = run_seed(seed, bug=bug, theme=theme, whole=trace)
    again = run_seed(seed, bug=bug, theme=theme)
    if trace:
        _say(*result.events)
    _say(f"seed {seed}: {result.steps} steps, {result.simulated_seconds:.0f} simulated seconds, trace {result.digest}")
    if again.digest != result.digest:
        _say(f"and the second time it was {again.digest}: something depends on more than the seed")
        return 1
    return _tell(result, events=not trace)


def _many(seeds: Iterable[int], jobs: int, bug: str | None, theme: Theme | None, steps: int | None) -> int:
    tally, said = Tally(), time.monotonic()
    for result in run_seeds(seeds, jobs=jobs, bug=bug, theme=theme):
        tally.add(result)
        if result.problem is not None:
            _tell(result, events=len(tally.failed) == 1)
        if time.monotonic() - said > SAY_SECONDS:
            said = time.monotonic()
            _say(str(tally))
        if steps is not None and tally.steps >= steps:
            break
    _say(str(tally))
    return 1 if tally.failed else 0


def _planted(bugs: Sequence[str], first: int, count: int, jobs: int) -> int:
    """A table, as it stands in docs/reliability.md."""
    _say("| planted bug | looked for in | seeds until found | first seen as |", "| --- | --- | --- | --- |")
    missed = 0
    for found in find_bugs(bugs, range(first, first + count), jobs=jobs):
        missed += not found.what
        seeds = str(found.seeds) if found.what else f"not in {found.seeds}"
        theme = BUGS[found.bug].theme
        _say(f"| {found.bug} | {theme.name if theme else 'all'} | {seeds} | {found.what[:110]} |")
    _say(f"{len(bugs) - missed} of {len(bugs)} found")
    return 1 if missed else 0


def _tell(result: Result, *, events: bool) -> int:
    if result.problem is None:
        return 0
    if events:
        _say(*result.events)
    _say(f"seed {result.seed} failed: {result.problem[:2000]}")
    _say(f"see it again: python -m tests.simulation --seed {result.seed} --trace")
    return 1


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    with_fixed_hashes()
    sys.exit(main())
