"""`python -m tests.checker FOLDER`: judge a run by its logs alone.

FOLDER holds the API server's audit log (audit.jsonl, or cluster/audit.jsonl) and the containers' logs
(logs/POD-UID/CONTAINER/RUN.log). Uses nothing of the product: an error in it can't hide itself here.

Prints a report and one line of JSON. Exit codes: 0 nothing was found and nothing is missing; 1 otherwise; 2 wrong
arguments.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.checker.verdict import check


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge, tell, and give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.checker", description="Judge a run by its logs alone.")
    parser.add_argument("folder", type=Path, help="what the run left: the audit log, and the containers' logs")
    parser.add_argument("--running", action="store_true", help="the run is not over: tasks need not have ended")
    options = parser.parse_args(arguments)
    verdict = check(options.folder, settled=not options.running)
    sys.stdout.write(f"{verdict.report()}\n{json.dumps(verdict.summary())}\n")
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main())
