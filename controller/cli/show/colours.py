"""Colours for states, where a terminal has them. Pure but for `wanted`."""

import os
import sys

RESET = "\x1b[0m"
_GREEN, _YELLOW, _RED, _DIM = "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[2m"
_WORDS = {
    _GREEN: ("Running", "running", "Succeeded", "Settled", "active", "ok"),
    _YELLOW: ("AwaitingApproval", "reserved", "draining", "deleting", "Expired", "warns", "Warning"),
    _RED: ("Failed", "Lost", "fails"),
    _DIM: ("-", "idle", "Queued", "Cancelled", "starting", "unseen"),
}
_COLOURS = {word: colour for colour, words in _WORDS.items() for word in words}


def painted(cell: str, text: str) -> str:
    """`text`, which shows `cell`, in the colour of that state."""
    colour = _COLOURS.get(cell)
    return f"{colour}{text}{RESET}" if colour else text


def wanted() -> bool:
    """Whether stdout is a terminal with colours, and its person likes them (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
