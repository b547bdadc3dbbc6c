"""The controller, its agents and all that can go wrong, in one process: rules that hold throughout, and a good end.

`PODSLOTS_SEEDS=FIRST:COUNT` chooses the seeds; `python -m tests.simulation --seed N --trace` shows one of them.
"""

import os

import pytest

from tests.simulation.runner import run_seed

FIRST, COUNT = (int(part) for part in os.environ.get("PODSLOTS_SEEDS", "0:60").split(":"))
QUICK = 10
"""How many of them are lived through each time; the others are for `make test-long`."""


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(seed, marks=[] if number < QUICK else pytest.mark.long)
        for number, seed in enumerate(range(FIRST, FIRST + COUNT))
    ],
)
def test_the_rules_hold_and_everything_comes_to_its_end(seed: int) -> None:
    """T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11, T12, T13, T14, T15, T16, T19, T20, T21, T22, T23, T24, T25,
    A1, A3, R1, R2, R4, R5, R7, G1, D1, O1, B1.

    No Pod is deleted that holds anything, no task is in two slots, no step starts twice, no apply without its approval,
    no final phase changes, no reservation ends by itself: with crashes, pauses, partitions, lost, late and repeated
    messages, full disks, wrong clocks, and people who change their minds. When that stops, every task ends, the pool
    shrinks to its least, and a deleted pool leaves nothing.
    """
    result = run_seed(seed)
    assert result.problem is None, f"seed {seed}: {result.problem}\n" + "\n".join(result.events)


def test_a_seed_is_one_history() -> None:
    assert run_seed(3).digest == run_seed(3).digest
