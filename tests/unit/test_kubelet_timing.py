"""Back-off, probe counting, addresses."""

import random

import pytest

from controller.local.addresses import (
    AddressesExhaustedError,
    AddressPool,
    Network,
    NetworkTakenError,
    claim,
    claim_any,
)
from controller.local.backoff import BackoffPolicy
from controller.local.pod_spec import Exec, Probe
from controller.local.probes import Tally, count


def test_restarts_wait_as_in_kubernetes_at_once_then_doubling_to_a_limit() -> None:
    policy = BackoffPolicy()
    assert [policy.delay_seconds(n) for n in range(1, 9)] == [0, 10, 20, 40, 80, 160, 300, 300]
    assert policy.delay_seconds(10_000) == 300


def test_a_long_run_starts_the_row_anew() -> None:
    policy = BackoffPolicy(reset_after_seconds=60)
    assert policy.count_short(5, 59.0) == 6
    assert policy.count_short(5, 60.0) == 1


@pytest.mark.parametrize(
    ("answers", "verdicts"),
    [
        ([True, True], [None, True]),
        ([True, True, False, False, False], [None, True, True, True, False]),
        ([False, False, True, False, False, False], [None, None, None, None, None, False]),
        ([True, True, False, False, False, True, True], [None, True, True, True, False, False, True]),
    ],
)
def test_a_verdict_needs_its_threshold_in_a_row(answers: list[bool], verdicts: list[bool | None]) -> None:
    probe = Probe(Exec(("x",)), success_threshold=2, failure_threshold=3)
    tally, seen = Tally(), []
    for answer in answers:
        tally = count(tally, answer, probe)
        seen.append(tally.verdict)
    assert seen == verdicts


def test_addresses_are_given_out_in_turn_so_that_one_just_freed_comes_last() -> None:
    pool = AddressPool(Network("127.77.7"))
    first = pool.take()
    pool.free(first)
    others = [pool.take() for _ in range(252)]
    assert first == "127.77.7.2"
    assert first not in others
    assert pool.take() == first
    with pytest.raises(AddressesExhaustedError):
        pool.take()


def test_a_network_is_claimed_by_one_cluster_at_a_time() -> None:
    network, listener = claim_any(random.Random())
    with pytest.raises(NetworkTakenError):
        claim(network)
    listener.close()
    claim(network).close()
