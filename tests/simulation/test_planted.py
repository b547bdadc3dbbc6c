"""The simulation finds what it should: each protection is taken away, and that is noticed."""

import pytest

from tests.simulation.planted import BUGS
from tests.simulation.runner import find_bug

MOST_SEEDS = 200

pytestmark = pytest.mark.long


@pytest.mark.timeout(900)  # seconds, if it is not found
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str) -> None:
    """In one of two hundred histories, in which all is well without it."""
    seeds = dict.fromkeys([BUGS[bug].seed, *range(MOST_SEEDS)])
    assert find_bug(bug, list(seeds)).what
