"""The command line of `podslots simulate`. What it needs is imported when it runs: other commands start without it."""

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from controller.cli.arguments import files
from controller.cli.show.times import YEAR_SECONDS
from controller.errors import PodslotsError

if TYPE_CHECKING:
    from controller.cli.verbs.simulate.durations import Durations
    from controller.cli.verbs.simulate.trace import Trace
    from controller.objects.pool import PoolSpec

DEFAULT_TASKS = 600
_Path = click.Path(path_type=Path)


class _Number(click.FloatRange):
    """Within its bounds. NaN is within all of click's, and infinity where there is no upper one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number. Raises BadParameter."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no number", param, ctx)
        return number


_positive = _Number(min=0, min_open=True)
_seconds = _Number(min=0, min_open=True, max=YEAR_SECONDS)


def _moment(_ctx: click.Context, _option: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    from controller.cli.arguments.times import given_time  # noqa: PLC0415 - the other commands start without it

    try:
        return given_time(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.option("--pool", required=True, metavar="FILE", help="YAML with a SlotPool, or - for standard input.")
@click.option("--trace", "trace_file", metavar="FILE", help="CSV with what arrives; - for standard input.")
@click.option("--day", is_flag=True, help="A day of made-up work.")
@click.option("--prometheus", metavar="URL", help="What arrived, by a query to this Prometheus.")
@click.option("--tasks", type=click.IntRange(1, 10_000_000), help=f"Of --day (default: {DEFAULT_TASKS}).")
@click.option("--seed", type=int, default=1, show_default=True, help="Of all that is left to chance.")
@click.option("--query", help="PromQL for --prometheus: how many tasks arrived; {step} and {pool} are filled in.")
@click.option("--from", "begin", callback=_moment, metavar="TIME", help="Of --prometheus, as 2026-03-01T08:00:00Z.")
@click.option("--to", "end", callback=_moment, metavar="TIME", help="Of --prometheus (default: now).")
@click.option("--step", "step_seconds", type=click.IntRange(1), default=60, show_default=True, help="Its resolution.")
@click.option("--token-file", type=_Path, metavar="FILE", help="Bearer token for --prometheus.")
@click.option("--type", "task_type", metavar="TYPE", help="Of tasks whose series has no label `type`.")
@click.option("--plan-seconds", type=_seconds, help="Median of a plan, for --day and --prometheus (default: 90).")
@click.option("--approval-seconds", type=_seconds, help="Median of the wait for an approval (default: 1800).")
@click.option("--apply-seconds", type=_seconds, help="Median of an apply (default: 180).")
@click.option(
    "--pod-start-seconds",
    type=_Number(min=0, max=YEAR_SECONDS),
    default=20.0,
    show_default=True,
    help="From a Pod's creation until it takes work.",
)
@click.option(
    "--pass-seconds",
    type=_seconds,
    default=2.0,
    show_default=True,
    help="The controller looks at the pool no more often. 2 s are its own longest rest, with thousands of Pods.",
)
@click.option(
    "--hpa-target",
    "hpa_targets",
    type=_positive,
    multiple=True,
    default=(70.0, 30.0),
    show_default=True,
    metavar="PERCENT",
    help="Utilisation of slots that an HPA aims at; may be repeated.",
)
@click.option(
    "--fixed",
    type=click.IntRange(1, 100_000),
    multiple=True,
    metavar="PODS",
    help="A fixed size to compare with; may be repeated (default: the average and the peak that podslots had).",
)
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table")
@click.option("--plot", type=_Path, metavar="FILE", help="Draw the course into this .svg or .png.")
@click.option(
    "--save-trace", type=_Path, metavar="FILE", help="Write the demand as CSV, to change it and use it again."
)
def simulate(
    *,
    pool: str,
    seed: int,
    pod_start_seconds: float,
    pass_seconds: float,
    hpa_targets: tuple[float, ...],
    fixed: tuple[int, ...],
    output: str,
    plot: Path | None,
    save_trace: Path | None,
    **demand: Any,
) -> None:
    """Try a pool on a day's work, in virtual time.

    The decisions are the controller's own, from the same code. Beside them stands what an HPA on utilisation, a Pod per
    task, and fixed sizes would have done with the same work. Asks no cluster anything.

    Exit codes: 0 done; 1 a file or the answer of Prometheus can't be used; 2 the command line is wrong.
    """
    asked = Demand(**demand)
    asked.check()
    from controller.cli.verbs.simulate import comparison  # noqa: PLC0415 - the other commands start without it
    from controller.cli.verbs.simulate import plot as picture  # noqa: PLC0415

    settings = comparison.Settings(
        pod_start_seconds=pod_start_seconds,
        pass_seconds=pass_seconds,
        hpa_target_percents=hpa_targets,
        fixed=fixed,
        seed=seed,
    )
    try:
        if plot is not None:
            picture.check(plot)
        name, spec = _pool(pool)
        trace = asked.trace(name, spec, seed)
        if save_trace is not None:
            _save(trace, save_trace)
        found = comparison.compare(trace, spec, settings)
        if plot is not None:
            picture.draw(found, plot)
    except PodslotsError as error:
        raise click.ClickException(str(error)) from error
    if output == "table":
        click.echo(found.table().text())
    elif output == "json":
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        click.echo(yaml.safe_dump(found.to_json(), sort_keys=False).rstrip())


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What the command line says of the demand, as click gives it."""

    trace_file: str | None
    day: bool
    prometheus: str | None
    tasks: int | None
    query: str | None
    begin: datetime | None
    end: datetime | None
    step_seconds: int
    token_file: Path | None
    task_type: str | None
    plan_seconds: float | None
    approval_seconds: float | None
    apply_seconds: float | None

    def check(self) -> None:
        """Refuse what does not go together. Raises UsageError."""
        if sum((self.trace_file is not None, self.day, self.prometheus is not None)) != 1:
            raise click.UsageError("give one of --trace, --day and --prometheus")
        if self.tasks is not None and not self.day:
            raise click.UsageError("--tasks is for --day")
        of_prometheus = (self.query, self.begin, self.end, self.token_file, self.task_type)
        if self.prometheus is None and any(value is not None for value in of_prometheus):
            raise click.UsageError("--query, --from, --to, --token-file and --type are for --prometheus")
        if self.prometheus is not None and self.begin is None:
            raise click.UsageError("--prometheus needs --from")
        if self.trace_file is not None and self._medians:
            raise click.UsageError("a trace says itself how long steps and approvals take")

    @property
    def _medians(self) -> dict[str, float]:
        given = {
            "plan_seconds": self.plan_seconds,
            "approval_seconds": self.approval_seconds,
            "apply_seconds": self.apply_seconds,
        }
        return {name: seconds for name, seconds in given.items() if seconds is not None}

    def trace(self, pool: str, spec: "PoolSpec", seed: int) -> "Trace":
        """Read, make or ask for it. Raises PodslotsError."""
        from controller.cli.verbs.simulate.day import make_day  # noqa: PLC0415 - the other commands start without it
        from controller.cli.verbs.simulate.durations import Durations  # noqa: PLC0415
        from controller.cli.verbs.simulate.trace import read  # noqa: PLC0415

        if self.trace_file is not None:
            return read(files.read(self.trace_file), self.trace_file)
        durations = Durations(**self._medians)
        if self.day:
            return make_day(spec.layout, tasks=self.tasks or DEFAULT_TASKS, seed=seed, durations=durations)
        return self._ask(pool, durations, seed)

    def _ask(self, pool: str, durations: "Durations", seed: int) -> "Trace":
        from controller.cli.verbs.simulate import prometheus  # noqa: PLC0415 - the other commands start without it

        question = prometheus.Question(
            url=self.prometheus or "",
            query=self.query or prometheus.DEFAULT_QUERY,
            pool=pool,
            begin=self.begin or datetime.now(UTC),
            end=self.end or datetime.now(UTC),
            step_seconds=self.step_seconds,
            token=None if self.token_file is None else files.read(str(self.token_file)).strip(),
            default_type=self.task_type or prometheus.DEFAULT_TYPE,
        )
        return prometheus.ask(question, durations, seed=seed)


def _pool(path: str) -> "tuple[str, PoolSpec]":
    """The pool that a file describes, and its name."""
    from controller.kube.api import SLOTPOOLS  # noqa: PLC0415 - the other commands start without it
    from controller.objects.pool import PoolSpec  # noqa: PLC0415

    pools = [obj for obj in files.parse(files.read(path), path) if obj["kind"] == SLOTPOOLS.kind]
    if len(pools) != 1:
        raise click.ClickException(f"{path}: {len(pools) or 'no'} SlotPools in it; a simulation is of one")
    return str(pools[0]["metadata"].get("name", "")), PoolSpec.parse(pools[0])


def _save(demand: "Trace", path: Path) -> None:
    from controller.cli.verbs.simulate import trace  # noqa: PLC0415 - the other commands start without it

    try:
        path.write_text(trace.write(demand), encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from error
