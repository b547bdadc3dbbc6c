"""Histories of pools whose Pods a Deployment makes, from the start or for a while: see `deployment_rules`."""

import pytest

from tests.simulation.runner import run_seed
from tests.simulation.themes import BY_NAME

THEMES = ("Pods of Deployments", "Deployments and leaders that never stop")


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("seed", [pytest.param(seed, marks=[] if seed < 1 else pytest.mark.long) for seed in range(12)])
def test_no_replica_set_takes_a_pod_that_works_and_all_comes_to_its_end(theme: str, seed: int) -> None:
    """T1, T2, T3, T11, T16, T30, N3: while modes are switched, sizes and templates change, and leaders die."""
    result = run_seed(seed, theme=BY_NAME[theme])
    assert result.problem is None, f"seed {seed}: {result.problem}\n" + "\n".join(result.events)
