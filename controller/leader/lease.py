"""What to do with the leader's Lease now. Pure: versions and this process' monotonic seconds in, a decision out.

Two replicas must never act at once, even if clocks are wrong and messages are late. Three rules give that:

1. A holder acts until `renew_deadline` after it *sent* its last write that took effect.
2. Another takes a held Lease only after it saw one and the same version for `lease_duration`, which is longer, on its
   own clock; and with that version as the precondition. When its write takes effect, the holder's last write was sent
   before that version was first seen, so the holder stopped acting `lease_duration - renew_deadline` ago at least.
3. A missing Lease proves nothing: somebody may have deleted it, and its holder may still act on a write from before. A
  replica that makes it again acts only after a renewal that it sent `lease_duration` later. A holder that finds its
  Lease gone makes it anew and goes on, if the answer comes before its deadline: nobody else can have begun by then.

A released Lease (no holder, but a renewTime) is free at once: its holder stopped acting before it wrote that. So only a
confirmed holder may release: who made the Lease anew and was not confirmed yet cannot say that nobody acts. Wall time
is written for people to read, and never read.

The term is the resourceVersion of the write by which the Lease was taken. Versions rise over all objects, so terms rise
over all holders, even if the Lease is deleted in between.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSettings:
    """Seconds. `renew_deadline` is for acting after the last renewal, `lease_duration` before another may take over.

    The difference (5 s) is how long a write that `may_act` allowed may take to arrive; stamps and preconditions hold
    back what takes longer. Every replica must use the same figures. `look`: how often one that stands by reads the
    Lease, and so how soon it knows of a release.
    """

    lease_duration_seconds: float = 15.0
    renew_deadline_seconds: float = 10.0
    retry_seconds: float = 2.0
    look_seconds: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.retry_seconds < self.renew_deadline_seconds < self.lease_duration_seconds:
            raise ValueError("lease: retry < renew deadline < lease duration must hold")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A Lease as it was read: `since` is the monotonic time at which this version was first seen."""

    uid: str
    version: str
    holder: str
    released: bool
    duration_seconds: float
    transitions: int
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenure:
    """The Lease is ours. Once `confirmed` we act until `deadline`; a renewal sent after `confirm_at` confirms it."""

    uid: str
    version: str
    term: int
    transitions: int
    confirm_at: float
    confirmed: bool
    deadline: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where this replica stands. `absent`: the Lease was last found not to be there."""

    identity: str
    settings: LeaseSettings
    seen: Seen | None = None
    absent: bool = False
    tenure: Tenure | None = None
    tried: frozenset[str] = frozenset()
    """UIDs of Leases that we tried to take by rule 2. If one of them names us, that write took effect."""

    def may_act(self, now: float) -> bool:
        """Whether this replica is the leader for certain."""
        return self.tenure is not None and self.tenure.confirmed and now < self.tenure.deadline


class Read:
    """Read the Lease: nothing is known of it, or not any more."""


class Create:
    """Make the Lease, with us as its holder."""


@dataclass(frozen=True, slots=True)
class Take:
    """Replace the holder, on this version. `transitions` is the number for the new Lease."""

    version: str
    transitions: int


@dataclass(frozen=True, slots=True)
class Renew:
    """Write our Lease again, on this version."""

    version: str
    transitions: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again after this many seconds, or sooner."""

    seconds: float


LeaseStep = Read | Create | Take | Renew | Wait


def next_step(standing: Standing, now: float) -> LeaseStep:
    """The next thing to do, given what is known."""
    if standing.absent:
        return Create()
    if (tenure := standing.tenure) is not None:
        # Past the deadline too: if this version is still the newest, nobody else took it in between.
        return Renew(tenure.version, tenure.transitions)
    if (seen := standing.seen) is None:
        return Read()
    if is_free(standing, seen, now):
        return Take(seen.version, seen.transitions + 1)
    return Wait(seen.since + _patience(standing, seen) - now)


def is_free(standing: Standing, seen: Seen, now: float) -> bool:
    """Whether nobody can be acting on this version of the Lease."""
    if seen.released or (seen.holder == standing.identity and seen.uid in standing.tried):
        return True
    return now - seen.since >= _patience(standing, seen)


def _patience(standing: Standing, seen: Seen) -> float:
    """A holder that runs with a longer duration than ours is given it."""
    return max(standing.settings.lease_duration_seconds, seen.duration_seconds)


def saw(standing: Standing, lease: dict[str, Any] | None, now: float) -> Standing:
    """After a read that was answered at `now`; None: not found. Never makes this replica a leader."""
    if lease is None:
        return dataclasses.replace(standing, seen=None, absent=True)
    seen = _parse(lease, standing.seen, now)
    tenure = standing.tenure
    if tenure is not None and seen.holder != standing.identity:
        tenure = None
    elif tenure is not None and seen.uid != tenure.uid and not standing.may_act(now):
        tenure = None  # our own creation, whose answer was lost: too late to go on by rule 3
    elif tenure is not None:
        # A write of ours whose answer was lost, or an edit by a person. Only the next renewal moves the deadline.
        tenure = dataclasses.replace(tenure, uid=seen.uid, version=seen.version, transitions=seen.transitions)
    return dataclasses.replace(standing, seen=seen, absent=False, tenure=tenure)


def _parse(lease: dict[str, Any], before: Seen | None, now: float) -> Seen:
    metadata, spec = lease["metadata"], lease.get("spec") or {}
    uid, version, holder = metadata["uid"], metadata["resourceVersion"], spec.get("holderIdentity") or ""
    same = before is not None and (before.uid, before.version) == (uid, version)
    return Seen(
        uid=uid,
        version=version,
        holder=holder,
        released=not holder and bool(spec.get("renewTime")),
        duration_seconds=float(spec.get("leaseDurationSeconds") or 0),
        transitions=int(spec.get("leaseTransitions") or 0),
        since=before.since if same and before is not None else now,
    )


def taking(standing: Standing) -> Standing:
    """Before a Take is sent: it may take effect and its answer be lost."""
    uids = standing.tried | ({standing.seen.uid} if standing.seen else set())
    return dataclasses.replace(standing, tried=uids)


def wrote(
    standing: Standing, decision: Create | Take | Renew, lease: dict[str, Any], *, sent: float, now: float
) -> Standing:
    """After a write that took effect. `sent` is the time before it went out, `now` that of its answer.

    A renewal that did not move the version counts for nothing: the server stores no new version of an identical object,
    so the others saw none.
    """
    before, settings = standing.tenure, standing.settings
    seen = _parse(lease, standing.seen, now)
    deadline = sent + settings.renew_deadline_seconds
    if isinstance(decision, Renew) and before is not None:
        if seen.version == before.version:
            return standing
        tenure = dataclasses.replace(
            before,
            version=seen.version,
            # Work that was stopped at the deadline begins again under a newer stamp.
            term=before.term if now < before.deadline else int(seen.version),
            confirmed=before.confirmed or sent >= before.confirm_at,
            deadline=deadline,
        )
    elif isinstance(decision, Create) and before is not None and standing.may_act(now):
        tenure = dataclasses.replace(
            before, uid=seen.uid, version=seen.version, transitions=seen.transitions, deadline=deadline
        )
    else:
        made = isinstance(decision, Create)
        tenure = Tenure(
            uid=seen.uid,
            version=seen.version,
            term=int(seen.version),
            transitions=seen.transitions,
            confirm_at=now + settings.lease_duration_seconds if made else now,
            confirmed=not made,
            deadline=deadline,
        )
    return dataclasses.replace(standing, seen=seen, absent=False, tenure=tenure, tried=frozenset({seen.uid}))


def resign(standing: Standing) -> tuple[Standing, Renew | None]:
    """Act no more. With it, the write by which the Lease is released, to be sent without a holder.

    None: there is nothing to release, or another may still act under a Lease that was deleted.
    """
    tenure = standing.tenure
    release = Renew(tenure.version, tenure.transitions) if tenure is not None and tenure.confirmed else None
    return dataclasses.replace(standing, tenure=None), release


def lease_spec(
    settings: LeaseSettings, transitions: int, acquired: str, renewed: str, *, holder: str
) -> dict[str, Any]:
    """The `spec` to write. The times (RFC 3339) are for people."""
    return {
        "holderIdentity": holder,
        "leaseDurationSeconds": max(1, round(settings.lease_duration_seconds)),
        "acquireTime": acquired,
        "renewTime": renewed,
        "leaseTransitions": transitions,
    }
