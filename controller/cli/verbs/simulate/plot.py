"""The course of a comparison as a picture. The one module that imports matplotlib, which is an extra of the package."""

from pathlib import Path
from typing import Any

from controller.cli.verbs.simulate.comparison import Comparison
from controller.cli.verbs.simulate.figures import HOUR_SECONDS, Figures
from controller.errors import PodslotsError

SUFFIXES = (".svg", ".png")
COLOURS = ("#1f6feb", "#d1242f", "#8250df", "#9a6700", "#57606a", "#1a7f37", "#bf3989")
"""Of the strategies, podslots first; readable on white, and told apart by their order in the legend too."""
RUNNING, RESERVED, FREE = "#1f6feb", "#e3a008", "#d0d7de"
SIZE_INCHES = (10, 11)


class NoPlot(PodslotsError):
    """The picture can't be made."""


def check(path: Path) -> None:
    """Fail before the simulation rather than after it. Raises NoPlot."""
    if path.suffix.lower() not in SUFFIXES:
        raise NoPlot(f"{path}: a plot is a file that ends in {' or '.join(SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise NoPlot(f"{path}: there is no such folder")
    _matplotlib()


def _matplotlib() -> Any:
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise NoPlot("plots need matplotlib: pip install 'podslots[simulate]', or '.[simulate]' in a clone") from error
    mpl.use("agg")
    return mpl


def draw(comparison: Comparison, path: Path) -> None:
    """Write the picture; the same comparison gives the same file. Raises NoPlot."""
    library = _matplotlib()
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra

    # Text stays text, and ids and metadata do not change from run to run.
    with library.rc_context({"svg.hashsalt": "podslots", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        pods, ours, queued, lost = figure.subplots(4, 1, sharex=True)
        until = _hours_shown(comparison)
        for rank, found in enumerate(comparison.figures):
            colour = COLOURS[rank % len(COLOURS)]
            for axes, values in (
                (pods, found.series.pods),
                (queued, found.series.queued),
                (lost, found.series.lost),
            ):
                hours, (shown,) = _course(found, until, values)
                style = {"color": colour, "linewidth": 1.2, "zorder": 9 - rank}
                axes.step(hours, shown, where="post", label=found.strategy, **style)
        _slots(ours, comparison.figures[0], until)
        pods.set_title("Pods", loc="left")
        ours.set_title(f"Slots of {comparison.figures[0].strategy}", loc="left")
        queued.set_title("Tasks that wait for a slot or a lockKey", loc="left")
        lost.set_title("Plans, reservations and applies killed until then", loc="left")
        lost.set_xlabel("hours since the start")
        for axes in (pods, ours, queued, lost):
            axes.set_ylim(bottom=0)
            axes.grid(visible=True, color="#eaeef2")
            axes.set_axisbelow(True)
            axes.margins(x=0)
        figure.legend(*pods.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
        ours.legend(loc="upper right", fontsize=8)
        lost.set_xlim(0, until)
        try:
            figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix.lower() == ".svg" else {})
        except OSError as error:
            raise NoPlot(f"{path}: {error.strerror}") from error


def _slots(axes: Any, figures: Figures, until: float) -> None:
    series = figures.series
    held = [running + reserved for running, reserved in zip(series.running, series.reserved, strict=True)]
    hours, (slots, used, reserved) = _course(figures, until, series.slots, held, series.reserved)
    axes.fill_between(hours, slots, step="post", color=FREE, linewidth=0, label="free")
    axes.fill_between(hours, used, step="post", color=RUNNING, linewidth=0, label="running")
    axes.fill_between(hours, reserved, step="post", color=RESERVED, linewidth=0, label="reserved")


def _course(figures: Figures, until: float, *courses: list[int]) -> tuple[list[float], list[list[int]]]:
    """The hours at which any of these courses changes, and what each is then; the last value is held to the end."""
    hours: list[float] = []
    kept: list[tuple[int, ...]] = []
    for second, *values in zip(figures.series.seconds, *courses, strict=True):
        hour = second / HOUR_SECONDS
        if hour > until:
            break
        if not kept or kept[-1] != tuple(values):
            hours.append(hour)
            kept.append(tuple(values))
    hours.append(until)
    kept.append(kept[-1])
    return hours, [list(course) for course in zip(*kept, strict=True)]


def _hours_shown(comparison: Comparison) -> float:
    """All of what podslots took, which the others are compared with."""
    return max(1.0, comparison.figures[0].seconds / HOUR_SECONDS)
