"""Back-off, probe counting, addresses."""

import asyncio
import random

import pytest

from controller.local.node.addresses import (
    AddressesExhaustedError,
    AddressPool,
    Network,
    NetworkTakenError,
    claim,
    claim_any,
)
from controller.local.node.backoff import BackoffPolicy
from controller.local.node.pods.pod_spec import Exec, Probe, TcpSocket
from controller.local.node.pods.probes import Answer, Tally, count, probe_forever
from tests.support import virtual_time


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


class Program:
    """Answers probes from some time on; the times it was asked at are kept."""

    def __init__(self, up_at: float) -> None:
        self.up_at = up_at
        self.asked: list[float] = []

    async def ask(self, handler: object, timeout_seconds: float) -> Answer:
        del handler, timeout_seconds
        now = asyncio.get_running_loop().time() - 1000.0
        self.asked.append(now)
        return Answer(now >= self.up_at)

    async def passable(self) -> None:
        return


def probe(program: Program, asked: Probe, answers: int, *, eager: bool) -> list[Tally]:
    """The tallies of the first so many answers that counted."""
    tallies: list[Tally] = []

    def answered(tally: Tally, _: Answer) -> bool:
        tallies.append(tally)
        return len(tallies) < answers

    virtual_time.run(lambda: probe_forever(asked, program, program, answered, eager=eager))
    return tallies


def test_a_probe_is_asked_at_its_period_after_its_delay() -> None:
    program = Program(up_at=0.0)
    probe(program, Probe(TcpSocket("", 1), initial_delay=3.0, period=5.0), 3, eager=False)
    assert program.asked == [3.0, 8.0, 13.0]


def test_a_program_that_comes_up_soon_is_found_ready_long_before_its_second_probe_would_be_due() -> None:
    program = Program(up_at=1.2)
    tallies = probe(program, Probe(TcpSocket("", 1), period=10.0), 2, eager=True)
    assert [tally.verdict for tally in tallies] == [True, True]
    assert program.asked[-2] < 2.0
    assert program.asked[-1] == pytest.approx(program.asked[-2] + 10.0)


def test_early_refusals_do_not_count_and_later_ones_do() -> None:
    program = Program(up_at=1e9)
    tallies = probe(program, Probe(TcpSocket("", 1), period=2.0, failure_threshold=3), 3, eager=True)
    assert [(tally.failures, tally.verdict) for tally in tallies] == [(1, None), (2, None), (3, False)]
    assert 1.0 < program.asked[-3] <= 2.0


def test_commands_are_not_asked_early() -> None:
    program = Program(up_at=1e9)
    probe(program, Probe(Exec(("true",)), period=7.0), 2, eager=True)
    assert program.asked == [0.0, 7.0]
