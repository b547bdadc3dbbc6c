"""The demo's picture: frames for what changed, shown as long as they were, with nothing from outside."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from rich.text import Text

from controller.demo.film import LAST_SECONDS, MOST_FRAMES, Film, Frame, chosen


@pytest.fixture
def film() -> Film:
    made = Film()
    for second, pods in enumerate([0, 0, 5, 5, 5, 3, 0]):
        made.add(float(second), pods, Text(f"{pods} Pods <&>", style="green"))
    return made


def test_a_frame_is_what_changed(film: Film, tmp_path: Path) -> None:
    film.write(tmp_path / "demo.svg")
    root = ET.parse(tmp_path / "demo.svg").getroot()  # noqa: S314 - our own
    lines = [
        "".join(line.itertext()).replace("\xa0", " ").strip() for line in root.iter("{http://www.w3.org/2000/svg}text")
    ]
    assert [line for line in lines if line] == ["0 Pods <&>", "5 Pods <&>", "3 Pods <&>", "0 Pods <&>"]


def test_each_is_shown_for_as_long_as_it_was_there(film: Film, tmp_path: Path) -> None:
    film.write(tmp_path / "demo.svg")
    text = (tmp_path / "demo.svg").read_text()
    whole = 6 + LAST_SECONDS
    assert f"animation: {whole:.1f}s" in text
    second = re.search(r"@keyframes ft1 \{ (.*?) \}\}?</style>", text)
    assert second
    assert f"{100 * 2 / whole:.2f}% {{ visibility: visible }} {100 * 5 / whole:.2f}% {{ visibility: hidden" in second[0]


def test_nothing_is_fetched(film: Film, tmp_path: Path) -> None:
    film.write(tmp_path / "demo.svg")
    text = (tmp_path / "demo.svg").read_text().replace("http://www.w3.org/2000/svg", "")
    assert "http" not in text
    assert "@font-face" not in text
    assert "<script" not in text


def test_of_many_the_longest_and_both_ends_are_kept() -> None:
    frames = [Frame(float(number * number), str(number)) for number in range(40)]
    kept = chosen(frames, MOST_FRAMES)
    assert len(kept) == MOST_FRAMES
    assert kept[0] is frames[0]
    assert kept[-1] is frames[-1]
    assert kept[1:-1] == frames[39 - (MOST_FRAMES - 2) : 39]
