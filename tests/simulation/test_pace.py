"""Histories of pools whose size may change slowly, and not at all at times: see `pace_rules`."""

import pytest

from tests.simulation.runner import run_seed
from tests.simulation.themes import BY_NAME

THEME = BY_NAME["sizes that change slowly"]


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=[] if seed < 4 else pytest.mark.long) for seed in range(24)])
def test_sizes_change_no_faster_than_they_may_whoever_leads(seed: int) -> None:
    """T4, T5, T29, H3, K2: and all comes to its end."""
    result = run_seed(seed, theme=THEME)
    assert result.problem is None, f"seed {seed}: {result.problem}\n" + "\n".join(result.events)
