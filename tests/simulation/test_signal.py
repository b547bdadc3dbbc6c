"""Histories of pools whose size follows a Prometheus, which is away, wrong or old at times: see `signal_rules`."""

import pytest

from tests.simulation.runner import run_seed
from tests.simulation.themes import BY_NAME

THEME = BY_NAME["sizes by a Prometheus"]


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=[] if seed < 3 else pytest.mark.long) for seed in range(10)])
def test_a_lost_signal_lowers_no_size_and_keeps_no_task_waiting(seed: int) -> None:
    """K1, R3, T4: and all comes to its end."""
    result = run_seed(seed, theme=THEME)
    assert result.problem is None, f"seed {seed}: {result.problem}\n" + "\n".join(result.events)
