"""The bugs there are, by what they say."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.simulation.themes import BY_NAME, Theme

Plant = contextlib.AbstractContextManager[Any]


@dataclass(frozen=True)
class Bug:
    """`make` plants it. It is looked for in histories about its theme; None: in all kinds.

    `seed` is where it was seen last: a good place to look first, until a change moves it.
    """

    make: Callable[[], Plant]
    theme: Theme | None
    seed: int


BUGS: dict[str, Bug] = {}


def bug(text: str, *, theme: str | None = None, seed: int = 0) -> Callable[[Callable[[], Plant]], Callable[[], Plant]]:
    def add(make: Callable[[], Plant]) -> Callable[[], Plant]:
        BUGS[text] = Bug(make, None if theme is None else BY_NAME[theme], seed)
        return make

    return add


@contextlib.contextmanager
def plant(name: str | None) -> Iterator[None]:
    """Let the named bug be there for a while; None: none."""
    if name is None:
        yield
        return
    with BUGS[name].make():
        yield
