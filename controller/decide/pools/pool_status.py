"""A pool's status from what a pass saw and decided: its counts and its conditions. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent.wire import SlotState, format_time
from controller import names
from controller.decide.agent_version import MINIMUM
from controller.decide.pools.pool_deletion import deletion_stand, deletion_waits
from controller.decide.pools.pool_figures import slot_counts
from controller.decide.pools.protection import Finding
from controller.decide.pools.rotation import Rotation
from controller.decide.problem import Problem, Problems
from controller.decide.scaling.signal import SignalWord
from controller.decide.scaling.size import SizeDecision
from controller.decide.view import PodState, PodView, PoolView, Rollout, RolloutStand
from controller.errors import InvalidObject
from controller.objects.conditions import Condition, put
from controller.objects.fields import Fields
from controller.objects.sentences import sentence

AGENT_TOO_OLD = "AgentTooOld"

READY = "Ready"
PROGRESSING = "Progressing"
DEGRADED = "Degraded"
ABLE_TO_SCALE = "AbleToScale"
SCALING_ACTIVE = "ScalingActive"
SCALING_LIMITED = "ScalingLimited"
TOKENS_IN_SYNC = "TokensInSync"
PROTECTED = "Protected"
"""Whether others are kept from the pool's active Pods."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """What the status said until now, and the generation of the spec that is looked at now."""

    generation: int
    conditions: tuple[Condition, ...] = ()
    last_scale_time: str | None = None
    desired: int | None = None

    @staticmethod
    def of(pool: dict[str, Any]) -> "Before":
        """From the SlotPool object. What somebody else may have written there instead counts as nothing."""
        generation = pool["metadata"].get("generation", 0)
        try:
            status = Fields(pool, "").optional_child("status") or Fields({}, "status")
            return Before(
                generation=generation,
                conditions=tuple(Condition.parse(entry) for entry in status.children("conditions")),
                last_scale_time=status.optional_text("lastScaleTime"),
                desired=status.optional_integer("desiredReplicas"),
            )
        except InvalidObject:
            return Before(generation=generation)


def pool_status(
    view: PoolView,
    decision: SizeDecision,
    *,
    before: Before,
    problems: Problems,
    tokens: Rotation | None = None,
    protection: Finding | None = None,
) -> dict[str, Any]:
    """The status of a pool whose spec is usable. `tokens`, `protection` None: nothing new is known of these."""
    present = [pod for pod in view.others if not pod.dead]
    active = [pod for pod in present if pod.state is PodState.ACTIVE]
    count = slot_counts(view.serving, active)
    serving = _serving(view)
    ready = sum([pod.ready for pod in serving]) + sum(pod.ready and pod.connected for pod in active)
    scaled = before.desired is not None and before.desired != decision.desired
    return {
        "observedGeneration": before.generation,
        "replicas": len(serving) + len(present),
        "readyReplicas": ready,
        "updatedReplicas": view.rollout.updated,
        "desiredReplicas": decision.desired,
        "slots": {
            "total": count.total(),
            "idle": count[SlotState.IDLE],
            "running": count[SlotState.RUNNING],
            "reserved": count[SlotState.RESERVED],
        },
        "selector": f"{names.POOL_LABEL}={view.name}",
        "lastScaleTime": format_time(view.now) if scaled else before.last_scale_time,
        "scaling": decision.history.to_json(),
        "conditions": _conditions(
            view, decision, before=before, problems=problems, tokens=tokens, protection=protection
        ),
    }


def _serving(view: PoolView) -> list[PodView]:
    return [pod for alike in view.serving for pod in alike.pods]


def _conditions(
    view: PoolView,
    decision: SizeDecision,
    *,
    before: Before,
    problems: Problems,
    tokens: Rotation | None,
    protection: Finding | None,
) -> list[dict[str, Any]]:
    waits, deletion = deletion_waits(view), deletion_stand(view)
    degraded, unable_to_scale = waits or problems.degraded or not_starting(view), problems.unable_to_scale
    counting = [pod for pod in view.others if pod.counts and not pod.retiring]
    serving = _serving(view)
    size = len(serving) + len(counting)
    ready = sum(pod.ready and pod.connected for pod in serving)
    ready += sum(pod.ready and pod.connected for pod in counting if pod.state is PodState.ACTIVE)
    moving = size + view.creating != decision.desired or ready != size
    # A starting Pod counts once it runs: then its probes reach the agent, and only the controller does not.
    served = [pod for pod in counting if pod.state is PodState.ACTIVE or pod.running]
    unreachable = [pod.name for pod in served if not pod.connected]
    if degraded is None and unreachable and not any(pod.contacting for pod in counting):
        degraded = Problem(reason="AgentsUnreachable", message=f"no answer from {', '.join(sorted(unreachable)[:5])}")
    degraded = degraded or too_old_agents(view)
    settled = not moving and degraded is None and deletion is None
    ready_words = ("Settled" if settled else "NotSettled", f"{ready} of {size} Pods serve")
    if deletion is not None:
        ready_words = (deletion.reason, deletion.message)
    limit = decision.limit
    entries = [
        (READY, settled, *ready_words),
        (PROGRESSING, *_progress(view.rollout, decision, moving=moving)),
        (DEGRADED, degraded is not None, *_words(degraded, "AsExpected")),
        (ABLE_TO_SCALE, unable_to_scale is None, *_words(unable_to_scale, "Ready")),
        (SCALING_ACTIVE, *_scaling_active(view, decision)),
        (SCALING_LIMITED, limit is not None, *((limit.reason, limit.message) if limit else ("WithinRange", ""))),
    ]
    if tokens is not None:
        entries.append((TOKENS_IN_SYNC, tokens.in_sync, tokens.reason, tokens.message))
    if protection is not None:
        entries.append((PROTECTED, protection.protected, protection.reason, protection.message))
    return _put_all(before, entries, view.now)


def signal_problem(decision: SizeDecision) -> Problem | None:
    """Why the signal that the pool is to scale by can't be used.

    A signal that still waits for its first scrape is not a problem.
    """
    found = decision.basis.signal.problem
    if found is None or found.reason is SignalWord.AWAITED:
        return None
    return Problem(reason=found.reason, message=found.message)


def _scaling_active(view: PoolView, decision: SizeDecision) -> tuple[bool, str, str]:
    """Whether the size follows the load: by what, or why not."""
    problem = decision.basis.signal.problem
    if view.spec.scaler is None:
        return False, "FixedSize" if view.spec.autoscaling is None else "Paused", decision.message
    if problem is None:
        return True, "Autoscaling", decision.message
    if decision.basis.signal.held:
        return False, problem.reason, decision.message
    return True, "ByAgents", f"{decision.message}; by agents' reports, as the signal can't be used: {problem.message}"


def _progress(rollout: Rollout, decision: SizeDecision, *, moving: bool) -> tuple[bool, str, str]:
    """Whether the pool is still changing to what its spec says: to its template first, then to its size."""
    if rollout.stand is RolloutStand.NONE:
        return moving, decision.reason if moving else "Settled", decision.message
    words = f"{rollout.updated} of {rollout.total} Pods have the present template"
    words = f"{words}; {rollout.why}" if rollout.why else words
    if rollout.stand is RolloutStand.ON_DELETE and moving:
        return True, decision.reason, f"{decision.message}; {words}"
    return rollout.stand is RolloutStand.ROLLING, rollout.stand, words


def not_starting(view: PoolView) -> Problem | None:
    """Why Pods do not start: the first such Pod, with the message of the scheduler, kubelet or container engine."""
    waiting = [pod for pod in view.others if pod.start_problem is not None and (pod.counts or pod.dead)]
    if not waiting:
        return None
    first = min(waiting, key=lambda pod: (pod.created, pod.name))
    problem = first.start_problem
    others = f", and {len(waiting) - 1} more" if len(waiting) > 1 else ""
    return Problem(reason=problem.reason, message=f"Pod {first.name}{others}: {problem.message}") if problem else None


def too_old_agents(view: PoolView) -> Problem | None:
    """Agents that this controller can't work with. They keep what they hold, and get nothing new."""
    found = {pod.name: pod.agent.version for pod in view.others if pod.agent_too_old and pod.alive and pod.agent}
    if not found:
        return None
    listed = ", ".join(f"{name} ({version})" for name, version in sorted(found.items())[:5])
    return Problem(reason=AGENT_TOO_OLD, message=f"older than {MINIMUM}, and given nothing new: {listed}")


def invalid_pool_status(problem: Problem, *, before: Before, now: datetime) -> dict[str, Any]:
    """The status of a pool whose spec can't be used: its Pods and tasks go on as they are."""
    entries = (
        (READY, False, problem.reason, problem.message),
        (DEGRADED, True, problem.reason, problem.message),
        (SCALING_ACTIVE, False, problem.reason, "the size is held"),
    )
    return {"observedGeneration": before.generation, "conditions": _put_all(before, entries, now)}


def _words(problem: Problem | None, fine: str) -> tuple[str, str]:
    return (problem.reason, problem.message) if problem else (fine, "")


def _put_all(before: Before, entries: Sequence[tuple[str, bool, str, str]], now: datetime) -> list[dict[str, Any]]:
    conditions = before.conditions
    for kind, status, reason, message in entries:
        new = Condition(
            type=kind,
            status=str(status),
            reason=reason,
            message=sentence(message),
            observed_generation=before.generation,
        )
        conditions = put(conditions, new, now)
    return [condition.to_json() for condition in conditions]
