"""`make bench`: every figure beside its reference, both measured in this run. Exit code 1 if a bar is not held.

Arguments pick modules by name: `make bench BENCH_ARGS=starts`.
"""

import argparse
import sys
from collections.abc import Callable, Iterator

from tests.bench import decisions, starts
from tests.bench.figures import Figure, table

MODULES: dict[str, Callable[[], Iterator[Figure]]] = {"starts": starts.measure, "decisions": decisions.measure}


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("modules", nargs="*", choices=[[], *MODULES], metavar=f"[{'|'.join(MODULES)}]")
    chosen = parser.parse_args().modules or list(MODULES)
    figures = []
    for name in chosen:
        sys.stderr.write(f"measuring {name}\n")
        figures += list(MODULES[name]())
    sys.stdout.write(table(figures) + "\n")
    return 0 if all(figure.holds for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
