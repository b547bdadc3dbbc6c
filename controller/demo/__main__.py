"""`python -m controller.demo`: the composition root. Starts everything, judges the run, cleans up.

Exit codes: 0 everything held; 1 something did not, or the run failed; 2 wrong arguments; 130 interrupted.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from controller.agents.transport import http_transport
from controller.cli.cluster.called import command
from controller.cli.local.interrupts import call_on_interrupt
from controller.cli.local.stack import Stack
from controller.demo import workload
from controller.demo.checked import checked, has_checker
from controller.demo.display import Display, print_text
from controller.demo.film import Film
from controller.demo.observe import Observer
from controller.demo.scenario import Options, Scenario
from controller.demo.verdict import Expected, Verdict, judge
from controller.errors import PodslotsError
from controller.kube.access import KubeSettings
from controller.kube.client import connect

INTERRUPTED = 130


def main() -> None:
    """Run the demo."""
    arguments = _parser().parse_args()
    console = Console()
    if not arguments.unattended and not _can_answer():
        sys.exit(
            "The demo asks for approvals; there is nobody to ask. Use --unattended (make demo DEMO_ARGS=--unattended)."
        )
    folder = Path(tempfile.mkdtemp(prefix="podslots-demo-"))
    options = Options(
        unattended=arguments.unattended,
        terraform=shutil.which("terraform") is not None and not arguments.shell,
        plan_seconds=arguments.plan_seconds,
    )
    film = Film() if arguments.picture else None
    verdict, held = None, False
    try:
        verdict = asyncio.run(_run(folder, options, console, film))
        held = not verdict.problems
    except (KeyboardInterrupt, asyncio.CancelledError):
        pass
    finally:  # also where there is no terminal to write to any more
        if held or not arguments.keep_on_failure:
            shutil.rmtree(folder, ignore_errors=True)
    if held and film is not None:
        film.write(arguments.picture)
    if not held and arguments.keep_on_failure:
        console.print(f"everything it left is in {folder}", markup=False, highlight=False, soft_wrap=True)
    if verdict is None:
        console.print("interrupted; everything that was started has been stopped", highlight=False)
        sys.exit(INTERRUPTED)
    if options.unattended:
        console.print(json.dumps(verdict.summary()), markup=False, highlight=False, soft_wrap=True)
    else:
        _tell(verdict, console)
    sys.exit(0 if held else 1)


def _can_answer() -> bool:
    """Whether answers can come: from a terminal, or from a program as `yes`."""
    return sys.stdin.isatty() or stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m controller.demo", description="A pool from zero to five Pods and back, with fifteen tasks."
    )
    add = parser.add_argument
    add("--unattended", action="store_true", help="approve by itself; end with one line of JSON, the verdict")
    add("--shell", action="store_true", help="shell commands in place of Terraform, even if it is there")
    add(
        "--plan-seconds", type=float, default=workload.PLAN_SECONDS, help="how long a plan takes (default: %(default)s)"
    )
    add("--keep-on-failure", action="store_true", help="keep the state folder if something did not hold")
    add("--picture", type=Path, metavar="FILE", help="draw the run as an SVG that moves")
    return parser


async def _run(folder: Path, options: Options, console: Console, film: Film | None) -> Verdict:
    """The whole run between start and clean-up. Never raises what a run can fail of: that is a verdict too."""
    began = time.monotonic()
    _cancel_on_signals()

    def clock() -> float:
        return time.monotonic() - began

    display = Display(console, clock, film)
    stack = Stack(folder, os.environ)
    try:
        display.say("starting an embedded cluster and slot-controller on this machine")
        await stack.start(stop_grace_seconds=1, keep_logs=has_checker())
        verdict = await _observed(stack, options, display, clock)
    except PodslotsError as error:
        display.say(str(error))
        verdict = Verdict(figures={"seconds": round(clock(), 1)}, problems=(_first_line(error),))
    finally:
        await stack.stop()
    return await checked(verdict, folder) if has_checker() else verdict


async def _observed(stack: Stack, options: Options, display: Display, clock: Callable[[], float]) -> Verdict:
    settings = KubeSettings(kubeconfig=str(stack.kubeconfig_of("demo")))
    async with AsyncExitStack() as resources:
        api = await resources.enter_async_context(connect(settings, lambda: datetime.now(UTC)))
        transport = await resources.enter_async_context(http_transport())
        observer = Observer(api, transport, random.SystemRandom())
        scenario = Scenario(stack, api, observer, display, clock)
        display.say(f"API server {stack.ready['url']}, status page {stack.status_page}")
        resources.enter_context(display.live())
        background = [
            asyncio.create_task(observer.run(), name="observe"),
            asyncio.create_task(display.run(observer), name="display"),
        ]
        failure: list[str] = []
        try:
            await scenario.run(options)
        except PodslotsError as error:
            failure.append(_first_line(error))
            display.say(f"{error}\nThe controller's last words:\n{stack.log_tail('controller')}")
        finally:
            evidence = await scenario.evidence()
            for task in background:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*background)
    expected = Expected(
        plans=workload.PLANS,
        applies=workload.APPLIES,
        pods=workload.MAX_PODS,
        slots=workload.SLOTS,
        declined=scenario.declined,
    )
    verdict = judge(evidence, expected)
    return Verdict(figures=verdict.figures, problems=(*failure, *verdict.problems))


def _cancel_on_signals() -> None:
    """End the run when it is interrupted. Later signals change nothing: the clean-up takes seconds."""
    task = asyncio.current_task()
    heard: list[bool] = []

    def stop() -> None:
        if not heard and task is not None:
            heard.append(True)
            task.cancel()

    call_on_interrupt(stop)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _tell(verdict: Verdict, console: Console) -> None:
    figures = verdict.figures
    if verdict.problems:
        text = "\n".join(["Something did not hold:", *(f"  - {problem}" for problem in verdict.problems)])
    else:
        text = (
            f"In {figures['seconds']:g} s the pool went from 0 to {figures['pods_max']} Pods and back to"
            f" {figures['pods_end']}.\n"
            f"No Pod was deleted while its agent held a slot, and {figures['applies_on_plan_pod']} applies ran on the"
            " very Pod and directory of their plan:\n"
            "that is what the agents, the tasks' own records and the API server's audit log say.\n\n"
            f"Go on by hand:  {command()} local up"
        )
    print_text(console, f"\n{text}")


if __name__ == "__main__":
    main()
