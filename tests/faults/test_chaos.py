"""Faults of every kind at random on real processes, under load: what `make soak` does for longer."""

from pathlib import Path

import pytest

from tests.chaos.run import run


@pytest.mark.long
async def test_whatever_fails_everything_settles_and_the_logs_hold_no_violation(tmp_path: Path) -> None:
    """T1, T3, T8, T10, T19, T21, T22, T23, T25, T28, G1, D1 over kills, pauses, deletes and drains."""
    outcome = await run(tmp_path, seconds=30, seed=20240501)
    assert outcome.verdict.ok, outcome.verdict.report()
    assert sum(outcome.faults.values()) >= 10
    assert outcome.verdict.looked_at["steps"] >= 5
    assert sum(outcome.strangers.values()) >= 5
