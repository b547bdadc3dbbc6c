"""`python -m tests.chaos --seconds 300 --seed N`: faults at random on real processes under load, then judgement.

Prints what is done, the checker's report, and one line of JSON with all counts. Exit codes: 0 everything settled and
nothing was found; 1 otherwise. The folder with all evidence is kept unless nothing was found.
"""

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.run import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, tell, and give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Faults at random, then judgement.")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long there are faults (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="of the schedule; its effects depend on timing all the same")
    parser.add_argument("--pause", type=float, default=0.5, help="mean seconds between faults (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where all evidence goes, and stays")
    parser.add_argument("--quiet", action="store_true", help="do not tell of each fault")
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    folder = options.folder or Path(tempfile.mkdtemp(prefix="podslots-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def say(text: str) -> None:
        if not options.quiet:
            sys.stdout.write(f"{time.monotonic() - began:6.1f} s  {text}\n")
            sys.stdout.flush()

    sys.stdout.write(f"seed {seed}, evidence in {folder}\n")
    try:
        outcome = asyncio.run(
            run(
                folder,
                seconds=options.seconds,
                seed=seed,
                pause_seconds=options.pause,
                say=say,
            )
        )
    except AssertionError as error:
        sys.stdout.write(f"it did not settle: {error}\n")
        return 1
    summary = {"seed": seed, "seconds": round(time.monotonic() - began, 1), **outcome.summary()}
    sys.stdout.write(f"{outcome.verdict.report()}\n{json.dumps(summary)}\n")
    if outcome.verdict.ok and options.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if outcome.verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main())
