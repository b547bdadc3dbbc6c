"""One controller process, and the next one in its place when it is killed."""

import asyncio
import contextlib
import contextvars
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from controller.app import Controller
from controller.config import Config
from controller.errors import ApiUnavailable
from controller.kube.api import DEPLOYMENTS, LEASES, PODS, Object, Resource
from controller.local.apiserver.errors import ApiError as Refusal
from controller.passes.reconcile import Reconciler
from controller.world.index import Key
from metrics.exposition import new_registry
from tests.simulation.network import SimNetwork
from tests.simulation.node import failure_of
from tests.support.store_api import StoreApi

if TYPE_CHECKING:
    from tests.simulation.world import World

NS = "default"
WRITES = frozenset({"create", "patch", "delete"})
clock_of_process: contextvars.ContextVar["Replica"] = contextvars.ContextVar("clock_of_process")
"""Whose code runs."""


REQUEST_SECONDS = 15.0
"""As `controller.kube.client` waits for an answer."""


class Fate(StrEnum):
    """What happens at a write."""

    DIES = "it dies; after"
    PAUSED = "it stands still, for"
    HELD_UP = "its message is on its way for"


@dataclass(frozen=True)
class Trap:
    """Where a process is caught: at its next `verb` of `what`, the end of a path or a plural."""

    verb: str
    what: str
    fate: Fate
    seconds: float = 0.0


class Replica:
    """A process. All of its tasks run in a context that says whose they are."""

    def __init__(self, world: "World", name: str) -> None:
        self.name = name
        self.controller: Controller | None = None
        self.starts = 0
        self.clock_off_seconds = 0.0
        self.has_api = True
        self.watches_stall = False
        """Whether nothing comes on its watches, while all else works."""
        self.network: SimNetwork | None = None
        self.registry = new_registry()
        self.trap: Trap | None = None
        """What happens to it next."""
        self._held_up_seconds = 0.0
        """How long the call that is about to go out will be on its way."""
        self.paused_at = float("-inf")
        self._world = world
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Lock()
        self._context = contextvars.copy_context()
        self._paused_until = 0.0
        self._dead = True

    def start(self) -> None:
        """Start the process, unless it runs: of two mishaps at a time, one has started it for both."""
        if self._task is not None:
            return
        world = self._world
        self.starts += 1
        self._dead = False
        self._paused_until = 0.0
        self.trap = None
        rng = random.Random(f"{world.seed}/{self.name}/{self.starts}")
        world.rules.note(f"{self.name} starts")
        api = StoreApi(world.cluster)
        api.before, api.carry, api.after = self._before_call, self._carry, self._after_call
        self.network = SimNetwork(
            world.node,
            rng,
            faults=world.faults.network,
            pause=self.wait_out_pause,
            note=lambda text: world.rules.note(f"{self.name} {text}"),
            spring=self._spring,
            refused=world.token_rules.call_refused,
        )
        self.registry = new_registry()
        self.controller = Controller(
            Config(
                agent_image="agent:1",
                identity=self.name,
                namespace=NS,
                lease_seconds=world.lease_seconds,
                resync_seconds=world.resync_seconds,
                eviction_responder=False,
            ),
            api,
            self.network,
            now=self.now,
            rng=rng,
            random_bytes=rng.randbytes,
            stopwatch=lambda: asyncio.get_running_loop().time(),
            registry=self.registry,
            ask=world.prometheus.ask,
        )
        self._watch_passes(self.controller.reconciler)
        self._context = contextvars.copy_context()
        self._context.run(clock_of_process.set, self)
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self.controller.run(), name=f"controller {self.name}", context=self._context)

    def _watch_passes(self, reconciler: Reconciler) -> None:
        """A pass that breaks is logged and ends nothing, and yet none ever should."""
        reconcile = reconciler.reconcile

        def watched(key: Key) -> None:
            try:
                reconcile(key)
            except Exception as error:
                self._world.rules.breach(f"a pass of {self.name} broke: {error!r}")
                raise

        setattr(reconciler, "reconcile", watched)  # noqa: B010 - mypy minds an assignment to a method

    def now(self) -> datetime:
        """This process' wall clock."""
        return self._world.now() + timedelta(seconds=self.clock_off_seconds)

    @property
    def leading(self) -> bool:
        if self.controller is None or self._dead:
            return False
        return self._context.copy().run(self.controller.election.may_act)

    @property
    def failure(self) -> BaseException | None:
        """What ended it by itself: nothing ever should."""
        return failure_of(self._task)

    async def kill(self) -> None:
        """SIGKILL: nothing it would still send gets out."""
        self._dead = True
        if self.network is not None:
            self.network.dead = True
        await self.stop()

    async def stop(self) -> None:
        """SIGTERM, unless it was killed before."""
        self._paused_until = 0.0
        async with self._stopping:
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
                self._task = None

    def pause(self, seconds: float) -> None:
        """SIGSTOP: what it was about to send is sent when it goes on."""
        self.paused_at = asyncio.get_running_loop().time()
        self._paused_until = self.paused_at + seconds

    @property
    def was_paused(self) -> bool:
        """Whether what it does now may have been decided long ago."""
        return asyncio.get_running_loop().time() - max(self.paused_at, self._paused_until) < 20.0

    async def wait_out_pause(self) -> None:
        loop = asyncio.get_running_loop()
        while (left := self._paused_until - loop.time()) > 0:  # noqa: ASYNC110 - a pause can be prolonged
            await asyncio.sleep(left)

    async def _before_call(self, verb: str, resource: Resource, name: str) -> None:
        world = self._world
        if verb in WRITES:
            world.rules.note(f"{self.name} → API: {verb} {resource.plural} {name}")
        await self.wait_out_pause()
        await asyncio.sleep(world.rng.uniform(0.0005, 0.01) * world.faults.latency)
        held_up_seconds = self._spring(verb, resource.plural, name)
        await self.wait_out_pause()
        if self._dead:
            raise ApiUnavailable("dead")
        if not self.has_api:
            await asyncio.sleep(world.rng.uniform(0.1, 4.0))
            raise ApiUnavailable("cut off")
        if verb != "event" and world.rng.random() < world.faults.api_refused:
            raise ApiUnavailable(f"{verb} {resource.plural}: no answer")
        if verb in WRITES and resource is not LEASES:
            world.rules.controller_writes(self, verb, creates=name if verb == "create" and resource is PODS else "")
        if not held_up_seconds and verb in WRITES and world.rng.random() < world.faults.api_late:
            held_up_seconds = world.rng.uniform(0.1, 60.0)
        self._held_up_seconds = held_up_seconds

    async def _carry(self, verb: str, resource: Resource, effect: Callable[[], Object]) -> Object:
        """A call takes effect: now, or long after its sender gave it up."""
        seconds, self._held_up_seconds = self._held_up_seconds, 0.0
        if not seconds:
            return effect()

        async def arrive() -> None:
            await asyncio.sleep(seconds)
            with contextlib.suppress(Refusal):
                effect()

        self._world.spawn(arrive())
        await asyncio.sleep(REQUEST_SECONDS)
        raise ApiUnavailable(f"{verb} {resource.plural}: no answer in time")

    def _spring(self, verb: str, what: str, name: str = "") -> float:
        """Fall into the trap, if this is where it is. Returns for how many seconds the message is held up."""
        trap = self.trap
        if trap is None or trap.verb != verb or not what.endswith(trap.what):
            return 0.0
        self.trap = None
        self._world.rules.note(f"{self.name} is caught at {verb} {what}: {trap.fate} {trap.seconds} s")
        if what in {PODS.plural, DEPLOYMENTS.plural, "/drain"}:
            self._world.caught(verb, name, trap.seconds)
        match trap.fate:
            case Fate.HELD_UP:
                return trap.seconds
            case Fate.PAUSED:
                self.pause(trap.seconds)
            case Fate.DIES:
                self._dead = True
                if self.network is not None:
                    self.network.dead = True
        return 0.0

    async def _after_call(self, verb: str, resource: Resource, name: str) -> None:
        del name
        world = self._world
        await asyncio.sleep(world.rng.uniform(0.0005, 0.01) * world.faults.latency)
        await self.wait_out_pause()
        if self._dead:
            raise ApiUnavailable("dead")
        while verb == "event" and self.watches_stall and self.has_api:  # noqa: ASYNC110 - until somebody mends it
            await asyncio.sleep(1.0)
        if verb == "event" and not self.has_api:
            raise ApiUnavailable("cut off")
        if verb != "event" and world.rng.random() < world.faults.api_unanswered:
            raise ApiUnavailable(f"{verb} {resource.plural}: no answer")
