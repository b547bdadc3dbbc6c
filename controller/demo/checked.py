"""A second opinion: the repository's own checker, which shares no code with the product, reads the run's logs.

It is part of the tests, so an installed podslots does not have it; `make demo` does.
"""

import asyncio
import json
import sys
from pathlib import Path

from controller.demo.verdict import Verdict

ROOT = Path(__file__).parents[2]


def has_checker() -> bool:
    """Whether there is one: in a source tree."""
    return (ROOT / "tests" / "checker" / "__main__.py").is_file()


async def checked(verdict: Verdict, folder: Path) -> Verdict:
    """The verdict, with what the checker says of the logs in `folder`."""
    running = ["--running"] if verdict.problems else []  # a run that failed may have tasks that never came to an end
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.checker", str(folder), *running),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    *report, last = output.decode(errors="replace").strip().splitlines() or [""]
    try:
        counts = json.loads(last)
    except ValueError:
        return Verdict(figures=verdict.figures, problems=(*verdict.problems, f"the checker did not run: {last}"))
    found = tuple(line.strip().removeprefix("- ") for line in report if line.startswith("  - "))
    return Verdict(
        figures={**verdict.figures, "checker": counts}, problems=(*verdict.problems, *(f"checker: {f}" for f in found))
    )
