"""One container of a Pod over all its runs: starts, probes, hooks, stops. `pod_plan` decides, this carries out."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path

from controller.local.node.node_context import NodeContext
from controller.local.node.pods.container_probes import ContainerProbes
from controller.local.node.pods.containers import Attempt, AttemptState, Exit, Launch
from controller.local.node.pods.environment import ConfigError, PathRewriter
from controller.local.node.pods.handlers import ContainerHandlers
from controller.local.node.pods.launch import prepare_launch
from controller.local.node.pods.owner import Owner
from controller.local.node.pods.pod_plan import ContainerView, HookState, RunState, Stop
from controller.local.node.pods.pod_spec import ContainerSpec, Handler, Json, Probe, Role
from controller.local.node.pods.pod_status import ContainerReport, Running, Waiting
from controller.local.node.pods.probes import Answer, ProbeKind, Tally, probe_forever
from controller.local.node.pods.volume_payload import VolumeError
from controller.local.node.pods.volumes import rewriter
from controller.local.node.tasks import TaskSet

HOOK_LIMIT_SECONDS = 3600.0  # a postStart hook has no limit of its own in Kubernetes; the Pod's end cuts it short


_PULLING = frozenset({"ErrImagePull", "ImagePullBackOff"})


class ContainerSlot:
    """One container. Every method returns at once; what takes time runs in tasks that wake the Pod when they end."""

    def __init__(self, node: NodeContext, owner: Owner, spec: ContainerSpec) -> None:
        self.spec = spec
        self.attempt: Attempt | None = None
        self._node = node
        self._owner = owner
        self._folder = owner.folder / "c" / spec.name
        self._tasks = TaskSet(owner.wake)
        self._run_tasks: list[asyncio.Task[None]] = []
        self._previous: Attempt | None = None
        self._starting: asyncio.Task[None] | None = None
        self._committed = False
        self._start_at = 0.0
        self._waiting: Waiting | None = None
        self._handlers: ContainerHandlers | None = None
        self._post_started = False
        self._probes = ContainerProbes(spec, self)
        self._unhealthy: float | None = None
        self._unhealthy_message = ""
        self._stop: Stop | None = None

    # What is.

    async def load(self, shown: Json) -> None:
        """Take over the runs that an earlier kubelet left. `shown`: the container's status in the API."""
        if not self._folder.is_dir():
            return
        for number in sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdigit())[-2:]:
            attempt = self._attempt(number)
            await attempt.adopt()
            if attempt.state is AttemptState.CREATED:
                if attempt.never_start():
                    attempt.discard()
                    continue
                await attempt.adopt()  # its shim came after all
            self._previous, self.attempt = self.attempt, attempt
        if self.attempt is None:
            return
        if self.attempt.state is AttemptState.EXITED:
            self._ended()
            return
        same = str(shown.get("containerID", "")).endswith(self.attempt.container_id)
        if same:
            self._probes.resume(started=bool(shown.get("started")), ready=bool(shown.get("ready")))
        folders = self._owner.host_folders()
        self._begin(self.attempt, rewriter(self.spec, folders, self.attempt.environment()))
        self._post_started = True
        self._probes.begin()

    def view(self) -> ContainerView:
        """The container as `pod_plan` sees it."""
        state, exit_code = RunState.NONE, None
        if self._starting is not None and not self._starting.done():
            state = RunState.STARTING
        elif self.attempt is not None and self.attempt.state is AttemptState.RUNNING:
            state = RunState.RUNNING
        elif self.attempt is not None and self.attempt.exit is not None:
            state, exit_code = RunState.EXITED, self.attempt.exit.exit_code
        return ContainerView(
            name=self.spec.name,
            role=self.spec.role,
            state=state,
            exit_code=exit_code,
            started=self._started,
            start_at=self._start_at,
            unhealthy_grace=self._unhealthy,
            stop=self._stop,
        )

    def report(self, *, initialising: bool) -> ContainerReport:
        """The container as `pod_status` shows it. `initialising`: init containers before it are not through."""
        attempt, previous = self.attempt, self._previous
        last = None if previous is None else previous.exit
        last_id = "" if previous is None else previous.container_id
        state: Waiting | Running | Exit
        if attempt is None:
            default = Waiting("PodInitializing" if initialising else "ContainerCreating")
            state = self._waiting or default
        elif attempt.exit is not None and self._waiting is not None and not self._owner.ending:
            state, last, last_id = self._waiting, attempt.exit, attempt.container_id
        else:
            state = attempt.exit or Running(attempt.started_at)
        return ContainerReport(
            spec=self.spec,
            state=state,
            container_id="" if attempt is None else attempt.container_id,
            last=last,
            last_container_id=last_id,
            restart_count=0 if attempt is None else attempt.number,
            started=self._started,
            ready=self._ready,
            ran=attempt is not None,
        )

    @property
    def initialising(self) -> bool:
        """Whether it holds up the containers after it."""
        if self.spec.role is Role.INIT:
            return self.attempt is None or self.attempt.exit is None or self.attempt.exit.exit_code != 0
        return self.spec.role is Role.SIDECAR and not self._started

    @property
    def log(self) -> Path | None:
        """The log of the newest run."""
        return None if self.attempt is None else self.attempt.log

    @property
    def alive(self) -> bool:
        """Whether its newest run may still write."""
        return self.attempt is not None and self.attempt.state is not AttemptState.EXITED

    @property
    def _started(self) -> bool:
        running = self.attempt is not None and self.attempt.state is AttemptState.RUNNING
        return running and self._post_started and self._probes.passed_startup

    @property
    def _ready(self) -> bool:
        if self.spec.role is Role.INIT:
            return not self.initialising
        return self._started and self._probes.ready

    # What is done.

    def start(self) -> None:
        """Begin the next run."""
        self._committed = False
        self._starting = self._tasks.spawn(self._start(), f"start {self.spec.name}")

    def reconsider(self) -> None:
        """Something that a start waits for may have changed."""
        if self._waiting is not None and self._waiting.reason != "CrashLoopBackOff":
            self._start_at = 0.0

    def withhold(self) -> None:
        """The Pod is ending: give up a start that has not gone past the point of no return."""
        if self._starting is not None and not self._committed:
            self._starting.cancel()

    def begin_stop(self, deadline: float) -> None:
        """Note that the present run is to stop."""
        hook = HookState.PENDING if self.spec.pre_stop else HookState.DONE
        self._stop = Stop(deadline, hook)
        message = f"Stopping container {self.spec.name}"
        if self._unhealthy is not None:
            message = f"Container {self.spec.name} {self._unhealthy_message}, will be restarted"
        self._event("Killing", message)

    def pre_stop(self, deadline: float) -> None:
        """Run the preStop hook."""
        if self._stop is None or self.spec.pre_stop is None:
            return
        self._stop = replace(self._stop, pre_stop=HookState.RUNNING)
        left = max(deadline - asyncio.get_running_loop().time(), 0.0)
        self._in_run(self._pre_stop(self.spec.pre_stop, left), "preStop")

    def terminate(self) -> None:
        """Send SIGTERM."""
        if self._stop is not None and self.attempt is not None:
            self._stop = replace(self._stop, terminated_at=asyncio.get_running_loop().time())
            self.attempt.send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL; the shim then ends all that is left."""
        if self._stop is not None and self.attempt is not None:
            self._stop = replace(self._stop, killed=True)
            self.attempt.send(signal.SIGKILL)

    async def close(self) -> None:
        """Let go. A container that runs, runs on."""
        await self._tasks.close()
        for attempt in (self.attempt, self._previous):
            if attempt is not None:
                attempt.close()

    # How.

    async def _start(self) -> None:
        try:
            attempt, paths = await self._new_run()
        except VolumeError as error:
            self._event("FailedMount", f"MountVolume.SetUp failed {error}", warning=True)
            self._hold(Waiting("ContainerCreating", str(error)))
        except ConfigError as error:
            self._event("Failed", f"Error: {error.message}", warning=True)
            self._hold(Waiting(error.reason, error.message))
        except OSError as error:
            self._event("Failed", f"Error: {error}", warning=True)
            self._hold(Waiting("CreateContainerError", str(error)))
        else:
            self._started_as(attempt, paths)

    async def _new_run(self) -> tuple[Attempt, PathRewriter]:
        """Launch the next run. Raises VolumeError, ConfigError, OSError."""
        faults = self._node.faults
        await faults.passable()
        delay = faults.start_delay_seconds(self.spec.name)
        if delay:
            await asyncio.sleep(delay)
            await faults.passable()
        tried = self._waiting is not None and self._waiting.reason in _PULLING
        failure = faults.start_failure(self.spec.name, self.spec.image, tried=tried)
        if failure is not None:
            raise ConfigError(failure.reason, failure.message)
        previous = self.attempt
        attempt = self._attempt(0 if previous is None else previous.number + 1)
        owner = self._owner
        launch, paths = prepare_launch(
            self._node, self.spec, attempt, pod=owner.pod, ip=owner.ip, folders=owner.mount()
        )
        short_runs = 0
        if previous is not None and previous.exit is not None:
            short_runs = self._short_runs(previous, previous.exit)
        attempt.prepare(short_runs=short_runs)
        self._committed = True
        await self._launch(attempt, launch)
        return attempt, paths

    def _started_as(self, attempt: Attempt, paths: PathRewriter) -> None:
        """Take a run that was launched as the present one, if it came to that."""
        if attempt.state is AttemptState.CREATED:  # its shim was killed before it began
            attempt.close()
            self._hold(Waiting("CreateContainerError", "the container's shim did not come up"))
            return
        if self._previous is not None:
            self._tasks.spawn(_discard(self._previous), "discard a run")
        self._previous, self.attempt = self.attempt, attempt
        self._waiting = None
        if attempt.state is AttemptState.EXITED:
            self._event("Failed", f"Error: {attempt.exit.message if attempt.exit else ''}", warning=True)
            self._ended()
            return
        self._begin(attempt, paths)
        self._event("Started", f"Started container {self.spec.name}")
        if self.spec.post_start is None:
            self._post_started = True
            self._probes.begin()
        else:
            self._in_run(self._post_start(self.spec.post_start), "postStart")

    async def _launch(self, attempt: Attempt, launch: Launch) -> None:
        try:
            await attempt.start(launch, self._node.shim)
        except asyncio.CancelledError:
            attempt.close()  # it runs on, and its folder tells the next kubelet
            raise

    def _attempt(self, number: int) -> Attempt:
        kept = self._node.config.keep_logs
        logs = self._owner.folder / "l" if kept is None else kept / self._owner.spec.uid
        log = logs / self.spec.name / f"{number}.log"
        identity = f"{self._owner.spec.uid}/{self.spec.name}/{number}"
        folder = self._folder / str(number)
        attempt = Attempt(folder, log, identity=identity, changed=lambda: self._changed(attempt))
        return attempt

    def _changed(self, attempt: Attempt) -> None:
        if attempt is self.attempt and attempt.state is AttemptState.EXITED:
            self._ended()
        self._owner.wake()

    def _begin(self, attempt: Attempt, paths: PathRewriter) -> None:
        self._handlers = ContainerHandlers(
            self._node.http, attempt, pod_ip=self._owner.ip, ports=self.spec.ports or {}, paths=paths
        )

    def _ended(self) -> None:
        """The newest run is over: forget what belonged to it, and find when the next may begin."""
        attempt = self.attempt
        if attempt is None or attempt.exit is None:
            return
        for task in self._run_tasks:
            task.cancel()
        self._run_tasks.clear()
        self._probes.clear()
        self._post_started = False
        self._unhealthy = self._stop = self._handlers = None
        policy = self._node.config.backoff
        delay = policy.delay_seconds(self._short_runs(attempt, attempt.exit))
        left = min(delay, attempt.exit.finished_at + delay - self._node.now().timestamp())
        self._start_at = asyncio.get_running_loop().time() + max(left, 0.0)
        if left > 0 and self._restarts(attempt.exit) and not self._owner.ending:
            message = f"back-off {delay:g}s restarting failed container={self.spec.name} pod={self._owner.spec.name}"
            self._waiting = Waiting("CrashLoopBackOff", message)
            text = f"Back-off restarting failed container {self.spec.name} in pod {self._owner.spec.name}"
            self._event("BackOff", text, warning=True)

    def _restarts(self, ended: Exit) -> bool:
        policy = "Always" if self.spec.role is Role.SIDECAR else self._owner.spec.restart_policy
        if ended.exit_code == 0:
            return policy == "Always" and self.spec.role is not Role.INIT
        return policy != "Never"

    def _short_runs(self, attempt: Attempt, ended: Exit) -> int:
        return self._node.config.backoff.count_short(attempt.short_runs, ended.finished_at - ended.started_at)

    def _hold(self, waiting: Waiting) -> None:
        self._waiting = waiting
        self._start_at = asyncio.get_running_loop().time() + self._node.config.start_retry_seconds

    # What its probes ask of it (`container_probes.Probed`).

    def probe_forever(self, kind: ProbeKind, probe: Probe, answered: Callable[[Tally, Answer], bool]) -> None:
        """Ask a probe for the rest of the present run."""
        if self._handlers is not None:
            eager = kind is not ProbeKind.LIVENESS
            work = probe_forever(probe, self._handlers, self._node.faults, answered, eager=eager)
            self._in_run(work, f"{kind} probe")

    def probe_failed(self, message: str) -> None:
        """A probe was answered with a failure."""
        self._event("Unhealthy", message, warning=True)

    def probes_changed(self) -> None:
        """A verdict changed."""
        self._owner.wake()

    def unhealthy(self, grace_seconds: float | None, message: str) -> None:
        """The present run is to be stopped, with a grace of its own or the Pod's."""
        if not self._owner.ending:
            self._fail(self._owner.spec.grace_seconds if grace_seconds is None else grace_seconds, message)

    def _fail(self, grace_seconds: float, message: str) -> None:
        self._unhealthy, self._unhealthy_message = grace_seconds, message

    async def _post_start(self, handler: Handler) -> None:
        if self._handlers is None:
            return
        answer = await self._handlers.ask(handler, HOOK_LIMIT_SECONDS)
        if answer.success:
            self._post_started = True
            self._probes.begin()
        else:
            self._event("FailedPostStartHook", answer.detail, warning=True)
            self._fail(self._owner.spec.grace_seconds, "failed its postStart hook")

    async def _pre_stop(self, handler: Handler, limit_seconds: float) -> None:
        if self._handlers is None:
            return
        answer = await self._handlers.ask(handler, limit_seconds)
        if not answer.success:
            self._event("FailedPreStopHook", answer.detail, warning=True)
        if self._stop is not None:
            self._stop = replace(self._stop, pre_stop=HookState.DONE)

    def _in_run(self, work: Coroutine[None, None, None], name: str) -> None:
        """A task that ends at the latest with the present run."""
        self._run_tasks.append(self._tasks.spawn(work, f"{name} {self.spec.name}"))

    def _event(self, reason: str, message: str, *, warning: bool = False) -> None:
        self._node.events.pod(self._owner.pod, reason, message, container=self.spec.name, warning=warning)


async def _discard(attempt: Attempt) -> None:
    attempt.close()
    await asyncio.to_thread(attempt.discard)
