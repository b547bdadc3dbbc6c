"""What the kubelet does next for one Pod: which containers start, which stop and how far their stopping goes. Pure.

`plan` sees the whole Pod and answers with every action due now and the time to ask again. It keeps no memory: a new
kubelet that sees the same containers decides the same. Times are seconds of one monotonic clock.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from controller.local.node.pods.pod_spec import Role

# As in Kubernetes: whatever the grace, hooks and waiting for one's turn took, SIGKILL follows SIGTERM by this much.
MINIMUM_KILL_DELAY_SECONDS = 2.0


class RunState(StrEnum):
    """A container's present run. `NONE`: it has never run in this Pod."""

    NONE = "none"
    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"


class HookState(StrEnum):
    """A container's preStop hook during a stop."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"


@dataclass(frozen=True)
class Stop:
    """A stop under way of one container's run."""

    deadline: float
    pre_stop: HookState
    terminated_at: float | None = None  # when SIGTERM was sent
    killed: bool = False


@dataclass(frozen=True)
class ContainerView:
    """One container as it stands."""

    name: str
    role: Role
    state: RunState = RunState.NONE
    exit_code: int | None = None
    started: bool = False  # running, postStart done, and its startup probe passed
    start_at: float = 0.0  # not before: restart back-off, or a pause after a failed attempt to start
    unhealthy_grace: float | None = None  # a probe or hook wants it stopped, with this grace in seconds
    stop: Stop | None = None


@dataclass(frozen=True)
class PodView:
    """One Pod as it stands. `end_by`: it is to end, and its grace runs out then."""

    restart_policy: str
    containers: Sequence[ContainerView]
    end_by: float | None = None


class Verb(StrEnum):
    """What is to be done to a container. `BEGIN_STOP` only notes that its stop has begun, for the next plan."""

    START = "start"
    BEGIN_STOP = "begin stop"
    PRE_STOP = "run the preStop hook"
    TERMINATE = "send SIGTERM"
    KILL = "send SIGKILL"


@dataclass(frozen=True)
class Action:
    """One thing due now. `deadline` stands with BEGIN_STOP and PRE_STOP."""

    verb: Verb
    container: str
    deadline: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What is due now, and when to ask again if nothing changes. `finished`: no container will start again."""

    actions: Sequence[Action]
    ask_again_at: float | None = None
    finished: bool = False


@dataclass
class _Draft:
    now: float
    actions: list[Action] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def act(self, verb: Verb, container: ContainerView, deadline: float = 0.0) -> None:
        self.actions.append(Action(verb, container.name, deadline))

    def start(self, container: ContainerView) -> None:
        if container.start_at <= self.now:
            self.act(Verb.START, container)
        else:
            self.times.append(container.start_at)

    def plan(self, *, finished: bool) -> Plan:
        return Plan(tuple(self.actions), min(self.times, default=None), finished)


def plan(pod: PodView, now: float) -> Plan:
    """Decide what is due."""
    draft = _Draft(now)
    for container in pod.containers:
        if container.state is RunState.RUNNING:
            _stop(pod, container, draft)
    if pod.end_by is not None:
        alive = any(c.state in {RunState.RUNNING, RunState.STARTING} for c in pod.containers)
        return draft.plan(finished=not alive)
    if _init_failed(pod):
        return draft.plan(finished=True)
    for container in _startable(pod):
        draft.start(container)
    return draft.plan(finished=_mains_done(pod))


def _stop(pod: PodView, container: ContainerView, draft: _Draft) -> None:
    """Take a running container's stop one step further, if it is to stop at all."""
    stop, now = container.stop, draft.now
    if stop is None:
        if pod.end_by is not None:
            draft.act(Verb.BEGIN_STOP, container, pod.end_by)
        elif container.unhealthy_grace is not None:
            draft.act(Verb.BEGIN_STOP, container, now + container.unhealthy_grace)
        return
    deadline = stop.deadline if pod.end_by is None else min(stop.deadline, pod.end_by)
    if stop.terminated_at is not None:
        kill_at = max(deadline, stop.terminated_at + MINIMUM_KILL_DELAY_SECONDS)
        if now < kill_at:
            draft.times.append(kill_at)
        elif not stop.killed:
            draft.act(Verb.KILL, container)
        return
    if now < deadline:
        if stop.pre_stop is HookState.PENDING:
            draft.act(Verb.PRE_STOP, container, deadline)
            return
        if stop.pre_stop is HookState.RUNNING or not _its_turn(pod, container):
            draft.times.append(deadline)
            return
    draft.act(Verb.TERMINATE, container)


def _its_turn(pod: PodView, container: ContainerView) -> bool:
    """Whether all that a sidecar must outlive has ended: the main containers, then the sidecars after it."""
    if pod.end_by is None or container.role is not Role.SIDECAR:
        return True
    following = pod.containers[list(pod.containers).index(container) + 1 :]
    return all(c.state in {RunState.NONE, RunState.EXITED} for c in following)


def _startable(pod: PodView) -> Iterator[ContainerView]:
    """Containers whose next run should begin, now or at their `start_at`."""
    ran = [index for index, c in enumerate(pod.containers) if c.state is not RunState.NONE]
    reached = ran[-1] if ran else 0  # initialisation got as far as this container; those before it hold up nothing
    for index, container in enumerate(pod.containers):
        if container.role is Role.MAIN:
            if _wants_run(container, pod.restart_policy):
                yield container
            continue
        if container.role is Role.INIT and index < reached:
            continue
        if _wants_run(container, "Always" if container.role is Role.SIDECAR else pod.restart_policy):
            yield container
        if index >= reached and not _initialised(container):
            return


def _initialised(container: ContainerView) -> bool:
    """Whether the containers after this one may start."""
    if container.role is Role.SIDECAR:
        return container.started
    return container.state is RunState.EXITED and container.exit_code == 0


def _wants_run(container: ContainerView, restart_policy: str) -> bool:
    if container.state is RunState.NONE:
        return True
    if container.state is not RunState.EXITED:
        return False
    if container.exit_code == 0:
        return restart_policy == "Always" and container.role is not Role.INIT
    return restart_policy != "Never"


def _init_failed(pod: PodView) -> bool:
    """Whether a plain init container failed for good."""
    if pod.restart_policy != "Never" or any(
        c.role is Role.MAIN and c.state is not RunState.NONE for c in pod.containers
    ):
        return False
    return any(c.role is Role.INIT and c.state is RunState.EXITED and c.exit_code != 0 for c in pod.containers)


def _mains_done(pod: PodView) -> bool:
    """Whether every main container ended and none will run again. The sidecars then have nothing to serve."""
    mains = [c for c in pod.containers if c.role is Role.MAIN]
    return all(c.state is RunState.EXITED and not _wants_run(c, pod.restart_policy) for c in mains)
