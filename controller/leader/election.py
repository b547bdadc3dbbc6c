"""Lead, or stand by: carries out what `lease` decides, and tells when leadership begins and ends.

`may_act` is to be asked before every write; it turns False by the clock alone, whether or not this loop gets to run.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from agent.wire import format_time
from controller.breaks import Breaks
from controller.errors import AlreadyExists, ApiError, ApiUnavailable, Conflict, NotFound, NotLeader
from controller.kube.api import LEASES, Api, Object
from controller.leader import lease
from controller.leader.lease import Create, LeaseSettings, Renew, Standing, Take, Wait
from controller.names import CONTROLLER_VERSION, LEADER_LEASE

log = logging.getLogger(__name__)

Listener = Callable[[bool], None]

_SAID_EVERY_SECONDS = 30.0
"""A Lease that is not reached is said at once, and then this often: it is tried every second or two."""


class Election:
    """One replica's part in the election.

    `identity` must be new at every start of the process. `version` is said on the Lease.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        identity: str,
        *,
        now: Callable[[], datetime],
        rng: random.Random,
        settings: LeaseSettings | None = None,
        name: str = LEADER_LEASE,
        version: str = "",
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._notes = {CONTROLLER_VERSION: version} if version else {}
        self._now = now
        self._rng = rng
        self._settings = settings or LeaseSettings()
        self._standing = Standing(identity=identity, settings=self._settings)
        self._acquired = ""
        self._renewed = datetime.min.replace(tzinfo=UTC)
        self._listeners: list[Listener] = []
        self._told: int | None = None
        self._timer: asyncio.Handle | None = None
        self._changed = asyncio.Event()
        self._say_unreached_at: float | None = None
        """When it is to be said again that the Lease is not reached; None while it is."""

    @property
    def identity(self) -> str:
        """The name under which this replica stands."""
        return self._standing.identity

    @property
    def holder(self) -> str | None:
        """The holder of the Lease, as last seen."""
        seen = self._standing.seen
        return seen.holder or None if seen else None

    def may_act(self) -> bool:
        """Whether this replica is the leader for certain, now."""
        return self._standing.may_act(asyncio.get_running_loop().time())

    def term(self) -> int:
        """The term of this leadership. Raises NotLeader."""
        tenure = self._standing.tenure
        if tenure is None or not self.may_act():
            raise NotLeader(f"{self.identity} does not hold the Lease {self._namespace}/{self._name}")
        return tenure.term

    def subscribe(self, listener: Listener) -> None:
        """Call `listener(leading)` as leadership begins and ends."""
        self._listeners.append(listener)

    async def wait(self, *, leading: bool) -> None:
        """Wait until leadership is as given."""
        while self.may_act() is not leading:
            self._changed.clear()
            await self._changed.wait()

    async def run(self) -> None:
        """Stand for election for ever. Cancel it, then `release`."""
        breaks = Breaks(log, "standing for election broke")
        try:
            while True:
                try:
                    delay = await self.step()
                except Exception as error:  # noqa: BLE001 - as where somebody wrote nonsense into the Lease
                    breaks.say(error)
                    delay = self._settings.retry_seconds
                await asyncio.sleep(delay)
        finally:
            self._disarm()

    async def step(self) -> float:
        """One decision carried out. Returns the seconds to wait before the next one."""
        decision = lease.next_step(self._standing, asyncio.get_running_loop().time())
        retry, seen = self._settings.retry_seconds, self._standing.seen is not None
        try:
            # Half of what a leader has, so that one answer that never comes does not cost the leadership.
            async with asyncio.timeout(self._settings.renew_deadline_seconds / 2):
                settled = await self._carry_out(decision)
        except (ApiError, ApiUnavailable, TimeoutError) as error:
            self._say_unreached(str(error) or "no answer in time")
            return retry * self._rng.uniform(0.25, 0.5)
        else:
            self._say_reached()
        finally:
            self._tell()
        following = lease.next_step(self._standing, asyncio.get_running_loop().time())
        if isinstance(following, Wait):
            look = self._settings.look_seconds
            return min(look * self._rng.uniform(0.8, 1.0), max(following.seconds, 0.01))
        if seen and isinstance(following, Create) and self._standing.tenure is None:
            # Somebody deleted the Lease. Its holder makes it again at its next renewal, and goes on; if another replica
            # made it would have to wait until nobody can act on the old one.
            return retry * self._rng.uniform(1.0, 1.2)
        # What was just read may ask for a write at once; the jitter parts replicas that read the same.
        return retry * (self._rng.uniform(0.8, 1.0) if settled else self._rng.uniform(0.0, 0.05))

    def _say_unreached(self, error: str) -> None:
        now = asyncio.get_running_loop().time()
        if self._say_unreached_at is None or now >= self._say_unreached_at:
            self._say_unreached_at = now + _SAID_EVERY_SECONDS
            log.warning("lease not reached", extra={"error": error})

    def _say_reached(self) -> None:
        if self._say_unreached_at is not None:
            self._say_unreached_at = None
            log.info("lease reached again")

    async def release(self, timeout_seconds: float = 3.0) -> None:
        """Act no more, and let another take over at once. To be called when everything that acts has stopped."""
        self._standing, write = lease.resign(self._standing)
        self._tell()
        if write is None:
            return
        with contextlib.suppress(ApiError, ApiUnavailable, TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._patch(write.version, write.transitions, holder="")

    async def _carry_out(self, decision: lease.LeaseStep) -> bool:
        """Whether it was a write, and it took effect; else the Lease was read."""
        loop = asyncio.get_running_loop()
        sent = loop.time()
        try:
            match decision:
                case Create():
                    self._acquired = format_time(self._now())
                    answer = await self._api.create(LEASES, self._namespace, self._body(0, self.identity))
                case Take(version=version, transitions=transitions):
                    self._acquired = format_time(self._now())
                    self._standing = lease.taking(self._standing)
                    answer = await self._patch(version, transitions, holder=self.identity)
                case Renew(version=version, transitions=transitions):
                    answer = await self._patch(version, transitions, holder=self.identity)
                case _:
                    await self._read()
                    return False
        except (AlreadyExists, Conflict):
            await self._read()
            return False
        except NotFound:
            if isinstance(decision, Create):
                raise  # the namespace is not there
            await self._read()
            return False
        self._standing = lease.wrote(self._standing, decision, answer, sent=sent, now=loop.time())
        return True

    async def _patch(self, version: str, transitions: int, *, holder: str) -> Object:
        body = self._body(transitions, holder)
        body["metadata"] = {"resourceVersion": version, "annotations": self._notes}
        return await self._api.patch(LEASES, self._namespace, self._name, body)

    async def _read(self) -> None:
        found: Object | None
        try:
            found = await self._api.get(LEASES, self._namespace, self._name)
        except NotFound:
            found = None
        self._standing = lease.saw(self._standing, found, asyncio.get_running_loop().time())

    def _body(self, transitions: int, holder: str) -> Object:
        # Never the same twice, even on a clock that stands still: the server makes no new version of an equal object.
        self._renewed = max(self._now(), self._renewed + timedelta(microseconds=1))
        renewed = format_time(self._renewed)
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._name, "namespace": self._namespace, "annotations": self._notes},
            "spec": lease.lease_spec(self._settings, transitions, self._acquired or renewed, renewed, holder=holder),
        }

    def _tell(self) -> None:
        """Compare with what listeners know; look again at the deadline."""
        self._disarm()
        leading = self.may_act()
        tenure = self._standing.tenure
        if leading and tenure is not None:
            self._timer = asyncio.get_running_loop().call_at(tenure.deadline, self._tell)
        term = tenure.term if leading and tenure is not None else None
        if term == self._told:
            return
        # A new term without a moment between two leaderships still is an end and a beginning.
        steps = ([False] if self._told is not None else []) + ([True] if term is not None else [])
        self._told = term
        self._changed.set()
        for step in steps:
            log.info("leadership", extra={"leading": step, "term": term, "identity": self.identity})
            for listener in self._listeners:
                listener(step)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
