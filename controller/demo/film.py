"""The demo as one picture that moves: an SVG whose frames are the live table at the moments when it changed."""

import io
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from rich.console import Console, RenderableType

WIDTH, HEIGHT = 80, 22
MOST_FRAMES = 16
LAST_SECONDS = 3.0
"""How long the last frame is shown."""
_FRAME = """\
<g class="frame" style="animation-name: f{unique_id}">
<style>.{unique_id}-matrix {{ font: {char_height}px monospace; line-height: {line_height}px }}
{styles}</style>
<defs>{lines}</defs>
<g transform="translate({terminal_x}, {terminal_y})">{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</g>
"""
"""What rich makes of one frame, without its window, and without a font that would have to be fetched."""


@dataclass(frozen=True)
class Frame:
    """What was shown from this second on."""

    seconds: float
    shown: RenderableType


class Film:
    """Keeps what the table showed. A frame is new if its `figures` are."""

    def __init__(self) -> None:
        self._frames: list[Frame] = []
        self._figures: Hashable = None

    def add(self, seconds: float, figures: Hashable, shown: RenderableType) -> None:
        """Look at what is shown now."""
        if figures != self._figures:
            self._figures = figures
            self._frames.append(Frame(seconds, shown))

    def write(self, path: Path) -> None:
        """Write the picture. The seconds of the run are its seconds, from the first frame on."""
        frames = chosen(self._frames, MOST_FRAMES)
        start, end = frames[0].seconds, frames[-1].seconds + LAST_SECONDS
        parts, moments = [], [*(frame.seconds for frame in frames), end]
        for number, frame in enumerate(frames):
            begin, until = (100 * (moment - start) / (end - start) for moment in moments[number : number + 2])
            name = f"t{number}"
            parts.append(f"<style>@keyframes f{name} {{ {_visible(begin, until)} }}</style>{_drawn(frame, name)}")
        path.write_text(_PICTURE.format(seconds=end - start, frames="\n".join(parts)))


def chosen(frames: list[Frame], most: int) -> list[Frame]:
    """At most so many of them: those that were shown longest, and always the first and the last."""
    if len(frames) <= most:
        return frames
    pairs = list(pairwise(frames))[1:]
    inner = sorted(pairs, key=lambda pair: pair[0].seconds - pair[1].seconds)[: most - 2]
    kept = {id(frame) for frame, _ in inner}
    return [frame for frame in frames if frame in {frames[0], frames[-1]} or id(frame) in kept]


def _visible(begin: float, until: float) -> str:
    """Key frames in per cent: shown in this part of the time."""
    before = (
        f"0% {{ visibility: hidden }} {begin:.2f}% {{ visibility: visible }}" if begin else "0% { visibility: visible }"
    )
    after = f" {until:.2f}% {{ visibility: hidden }}" if until < 100 else " 100% { visibility: visible }"  # noqa: PLR2004
    return before + after


def _drawn(frame: Frame, name: str) -> str:
    console = Console(record=True, width=WIDTH, height=HEIGHT, file=io.StringIO(), force_terminal=True)
    console.print(frame.shown)
    return console.export_svg(code_format=_FRAME, unique_id=name)


_PICTURE = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 580" role="img" aria-labelledby="title">
<title id="title">make demo: a pool from no Pod to five, three plans that wait for approvals, and back to none</title>
<style>
.frame {{ animation: {seconds:.1f}s steps(1) infinite }}
@media (prefers-reduced-motion) {{ .frame {{ animation-play-state: paused }} }}
</style>
<rect width="1000" height="580" rx="8" fill="#292929"/>
{frames}
</svg>
"""
