"""The decisions about the leader's Lease."""

import dataclasses
from typing import Any

import pytest

from controller.leader import lease
from controller.leader.lease import Create, LeaseSettings, Read, Renew, Standing, Take, Wait

SETTINGS = LeaseSettings()


def stored(version: int, holder: str, *, uid: str = "u", duration: int = 15, renewed: bool = True) -> dict[str, Any]:
    spec: dict[str, Any] = {"holderIdentity": holder, "leaseDurationSeconds": duration, "leaseTransitions": 3}
    if renewed:
        spec["renewTime"] = "1999-01-01T00:00:00.000000Z"
    return {"metadata": {"uid": uid, "resourceVersion": str(version)}, "spec": spec}


def me(identity: str = "me") -> Standing:
    return Standing(identity=identity, settings=SETTINGS)


def leading(at: float = 0.0) -> Standing:
    standing = lease.saw(me(), stored(5, "", renewed=True), at)
    return lease.wrote(standing, Take("5", 4), stored(6, "me"), sent=at, now=at + 0.1)


def test_nothing_known_is_read_first() -> None:
    assert isinstance(lease.next_step(me(), 0), Read)


def test_a_held_lease_is_taken_only_after_its_version_stood_still_on_our_own_clock() -> None:
    """What its renewTime says (years ago) does not matter."""
    standing = lease.saw(me(), stored(5, "other"), 100)
    assert lease.next_step(standing, 100) == Wait(15)
    standing = lease.saw(standing, stored(5, "other"), 114.9)
    assert isinstance(lease.next_step(standing, 114.9), Wait)
    assert lease.next_step(standing, 115) == Take("5", 4)
    moved = lease.saw(standing, stored(6, "other"), 115)
    assert lease.next_step(moved, 115) == Wait(15)


def test_a_holder_with_a_longer_duration_is_given_it() -> None:
    standing = lease.saw(me(), stored(5, "other", duration=60), 0)
    assert lease.next_step(standing, 59) == Wait(1)
    assert isinstance(lease.next_step(standing, 60), Take)


def test_a_released_lease_is_free_at_once_but_one_that_nobody_ever_held_is_not() -> None:
    assert isinstance(lease.next_step(lease.saw(me(), stored(5, ""), 0), 0), Take)
    assert isinstance(lease.next_step(lease.saw(me(), stored(5, "", renewed=False), 0), 0), Wait)


def test_a_leader_acts_until_its_deadline_counted_from_when_it_sent_the_renewal() -> None:
    standing = leading(0)
    assert standing.may_act(9.9)
    assert not standing.may_act(10)
    late = lease.wrote(standing, Renew("6", 4), stored(7, "me"), sent=5, now=30)
    assert not late.may_act(30), "an answer that took 25 s is no proof of anything"


def test_a_renewal_that_moved_no_version_does_not_count() -> None:
    """The API server stores nothing for an identical object, so the others saw nothing."""
    standing = lease.wrote(leading(0), Renew("6", 4), stored(6, "me"), sent=8, now=8.1)
    assert not standing.may_act(10)


def test_a_leader_that_sees_another_holder_stops_at_once() -> None:
    standing = lease.saw(leading(0), stored(9, "other"), 1)
    assert not standing.may_act(1)


def test_a_version_moved_by_a_person_is_renewed_on_without_moving_the_deadline() -> None:
    standing = lease.saw(leading(0), stored(9, "me"), 5)
    assert lease.next_step(standing, 5) == Renew("9", 3)
    assert standing.may_act(9)
    assert not standing.may_act(10)


def test_a_lease_that_is_not_there_is_made_but_its_maker_waits() -> None:
    """Its holder may still act on a renewal from before somebody deleted it."""
    standing = lease.saw(me(), None, 0)
    assert isinstance(lease.next_step(standing, 0), Create)
    standing = lease.wrote(standing, Create(), stored(7, "me"), sent=0, now=0.5)
    assert not standing.may_act(1)
    for second, version in ((5, 8), (10, 9), (15, 10)):
        renew = Renew(str(version - 1), 0)
        standing = lease.wrote(standing, renew, stored(version, "me"), sent=second, now=second + 0.7)
        assert not standing.may_act(second + 0.8), "sent before anybody else's deadline"
    confirmed = lease.wrote(standing, Renew("10", 0), stored(11, "me"), sent=16, now=16.1)
    assert confirmed.may_act(16.1)
    assert confirmed.tenure is not None
    assert confirmed.tenure.term == 7


def test_a_leader_whose_lease_was_deleted_makes_it_anew_and_goes_on_if_in_time() -> None:
    gone = lease.saw(leading(0), None, 5)
    assert isinstance(lease.next_step(gone, 5), Create)
    again = lease.wrote(gone, Create(), stored(20, "me", uid="v"), sent=5, now=6)
    assert again.may_act(14)
    too_late = lease.wrote(gone, Create(), stored(20, "me", uid="v"), sent=9, now=10.5)
    assert not too_late.may_act(10.6)


def test_only_a_confirmed_holder_releases_the_lease() -> None:
    """Until then the holder of a deleted Lease may still act, and a released Lease says that nobody does."""
    made = lease.wrote(lease.saw(me(), None, 0), Create(), stored(7, "me"), sent=0, now=0)
    for standing, release in ((me(), None), (made, None), (leading(0), Renew("6", 3))):
        assert lease.resign(standing) == (dataclasses.replace(standing, tenure=None), release)


def test_one_that_waits_and_loses_its_lease_waits_anew() -> None:
    """A holder from before may have made it again in between."""
    made = lease.wrote(lease.saw(me(), None, 0), Create(), stored(7, "me"), sent=0, now=0)
    again = lease.wrote(lease.saw(made, None, 5), Create(), stored(9, "me", uid="v"), sent=5, now=5)
    late = lease.wrote(again, Renew("9", 0), stored(10, "me", uid="v"), sent=19, now=19)
    assert not late.may_act(19)


def test_our_own_takeover_whose_answer_was_lost_is_ours_but_an_unknown_creation_is_waited_for() -> None:
    standing = lease.taking(lease.saw(me(), stored(5, "other"), 0))
    assert isinstance(lease.next_step(lease.saw(standing, stored(6, "me"), 1), 1), Take)
    stray = lease.saw(me(), stored(6, "me", uid="stray"), 1)
    assert lease.next_step(stray, 1) == Wait(15)


def test_a_missed_deadline_ends_the_term() -> None:
    again = lease.wrote(leading(0), Renew("6", 4), stored(30, "me"), sent=12, now=12.5)
    assert again.may_act(13)
    assert again.tenure is not None
    assert again.tenure.term == 30


def test_settings_that_would_let_two_act_are_refused() -> None:
    with pytest.raises(ValueError, match="renew deadline"):
        dataclasses.replace(SETTINGS, renew_deadline_seconds=15)
