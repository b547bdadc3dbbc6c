"""Which Pods of an earlier template or layout make room for new ones now, and how many may at once.

Such a Pod *retires*: it takes nothing new, no longer counts in the pool's size, and is drained when it falls idle, as
any that somebody wants gone. All other Pods of an earlier template serve on as before. Two bounds hold:

- of Pods that take work there are never fewer than size - maxUnavailable because of this;
- of all Pods there are never more than size + maxSurge.

Nothing is remembered: each pass decides again which Pods retire: first those that hold least, where reservations count
most. The least that any Pod holds so never grows, some Pod falls idle, and the rollout goes on. A Pod that retired and
then holds more than another serves again, which loses nothing.

A template has to prove itself first. Until a Pod of it was opened, none retires: one new Pod is made beyond the size.
With maxSurge 0 there is no room for it; then one Pod retires, and no other before the new one serves.
"""

from dataclasses import dataclass, replace

from controller.decide.scaling.size import decide_size
from controller.decide.start_problem import StartProblem
from controller.decide.view import Offer, PodOperation, PodState, PodView, PoolView, Rollout, RolloutStand
from controller.objects.pool import UpdateStrategy, UpdateType


@dataclass(frozen=True, slots=True, kw_only=True)
class Starts:
    """What is known of Pods of the present template. `proven`: one was opened, and none has failed since.

    `problem` is why they do not start, or why none can be made. `retry_due`: the pause after the last one is over.
    """

    proven: bool = False
    problem: StartProblem | None = None
    retry_due: bool = False


def roll_out(view: PoolView, starts: Starts) -> PoolView:
    """The view with the Pods that retire now, and with what a rollout means for its size."""
    alive = [pod for pod in view.pods if pod.alive]
    present = ("", view.template_hash)
    outdated = [pod for pod in alive if pod.template_hash not in present]
    rollout = Rollout(updated=len(alive) - len(outdated), total=len(alive))
    if not outdated or view.deleting:
        return view.but(rollout=rollout)
    stand, why = _stand(view, starts)
    if stand is RolloutStand.ON_DELETE or (stand is RolloutStand.PAUSED and not view.spec.update.paused):
        return view.but(rollout=replace(rollout, stand=stand, why=why))
    return _with_bounds(view, outdated, starts, replace(rollout, stand=stand, why=why))


def _stand(view: PoolView, starts: Starts) -> tuple[RolloutStand, str]:
    strategy = view.spec.update
    if strategy.type is UpdateType.ON_DELETE:
        return RolloutStand.ON_DELETE, "the others are replaced when somebody drains them"
    if strategy.paused:
        return RolloutStand.PAUSED, "updateStrategy.paused is set"
    if view.spec.autoscaling is not None and view.spec.scaler is None and view.spec.replicas is None:
        # It keeps the size that it happens to have: a Pod that goes would not come again.
        return RolloutStand.PAUSED, "autoscaling is paused and replicas is not set, so no Pod is replaced"
    problem = _problem(view, starts)
    if problem is not None:
        return RolloutStand.STUCK, f"new Pods do not start: {problem.reason}: {problem.message}"
    return RolloutStand.ROLLING, ""


def _problem(view: PoolView, starts: Starts) -> StartProblem | None:
    """What keeps Pods of the present template from starting."""
    for pod in view.others:
        if pod.template_hash == view.template_hash and pod.counts and pod.start_problem is not None:
            return pod.start_problem
    # Where no Pod can be tried beyond the size, another one that retires is the only way to try again.
    if starts.retry_due and not view.spec.update.max_surge:
        return None
    return starts.problem


def _with_bounds(view: PoolView, outdated: list[PodView], starts: Starts, rollout: Rollout) -> PoolView:
    strategy, size = view.spec.update, decide_size(view).desired
    fresh = [pod for pod in view.pods if pod.counts and pod.template_hash == view.template_hash]
    proven = starts.proven or any(pod.state is PodState.ACTIVE for pod in fresh)
    counted = sum(pod.counts for pod in outdated)
    stuck, rolling = rollout.stand is RolloutStand.STUCK, rollout.stand is RolloutStand.ROLLING
    wants_proof = bool(size and counted and strategy.max_surge and view.template_hash) and (
        stuck or (rolling and not proven)
    )
    tried = view.creating + sum(pod.state is PodState.STARTING for pod in fresh)
    extra = int(wants_proof and not tried)
    beyond = min(strategy.max_surge, counted) if size else 0
    if view.spec.scaler is not None:
        beyond = int(wants_proof)
    # Where earlier templates fill all the room there is, one of those Pods is too many: or none could be tried.
    rollout = replace(rollout, extra=extra, tolerated=max(0, beyond - extra), max_surge=strategy.max_surge)
    retiring = _retiring(view, outdated, strategy, size, proven=proven, tried=tried) if rolling else frozenset()
    pods = tuple(replace(pod, retiring=True) if pod.uid in retiring else pod for pod in view.pods)
    return view.but(pods=pods, rollout=rollout)


def _retiring(
    view: PoolView, outdated: list[PodView], strategy: UpdateStrategy, size: int, *, proven: bool, tried: int
) -> frozenset[str]:
    """UIDs. Those that are drained already retire too: else a Pod that is missing would bring them back."""
    going = [pod for pod in outdated if pod.state is PodState.DRAINING or pod.in_flight is PodOperation.REMOVE]
    available = sum(len(pods) for _, pods in view.serving)
    available += sum(pod.offer is Offer.NOW for pod in view.others)
    budget = available - max(0, size - strategy.max_unavailable)
    useless = [pod for pod in outdated if pod.counts and pod.agent_too_old and pod.state is PodState.ACTIVE]
    if size and not proven:
        useless = []
        present = view.creating + sum(pod.counts for pod in view.pods)
        may_try = not (strategy.max_surge or tried or going) and present >= size
        budget = min(budget, int(may_try))
    candidates = sorted((pod for pod in outdated if pod.offer is Offer.NOW), key=_held)
    return frozenset(pod.uid for pod in (*going, *useless, *candidates[: max(0, budget)]))


def _held(pod: PodView) -> tuple[int, int, str]:
    return pod.load.reserved, pod.load.running, pod.name
