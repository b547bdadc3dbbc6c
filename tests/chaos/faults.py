"""Faults of every kind that the design speaks of, injected at random and counted. Every one of them ends by itself."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import aiohttp

from controller import names
from tests.chaos import processes
from tests.chaos.disk import LEFT_BYTES, Disk
from tests.support.cluster import Child, Cluster, until

Json = dict[str, Any]

BURST_SECONDS = (3.0, 12.0)
CALM_SECONDS = (0.0, 6.0)

YOUNG_SECONDS, FOR_A_YOUNG_ONE_SECONDS, LOOK_SECONDS = 2.0, 10.0, 0.05

CONTROLLER, KUBELET = names.CONTROLLER_USER, "system:node:local"


class Faults:
    """Injects one fault after the other. `counts` has what was done, by kind."""

    def __init__(
        self,
        cluster: Cluster,
        controllers: list[Child],
        rng: random.Random,
        say: Callable[[str], None],
        *,
        disk: Disk | None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._cluster = cluster
        self._controllers = controllers
        self._disk = disk
        self._rng = rng
        self._say = say
        self._busy: set[str] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._kinds: dict[Callable[[], Awaitable[str | None]], float] = {
            self._kill_agent: 4,
            self._kill_worker: 3,
            self._pause_agent: 3,
            self._pause_worker: 2,
            self._end_agent: 1,
            self._kill_controller: 2,
            self._pause_controller: 2,
            self._kill_cluster: 1,
            self._pause_cluster: 1,
            self._freeze_kubelet: 1,
            self._lose_journal: 2,
            self._signal_young: 3,
            self._fill_disk: 2,
            self._refuse_pods: 1,
            self._fail_starts: 1,
            self._bad_answers: 3,
            self._slow_answers: 2,
            self._dropped_requests: 3,
            self._dropped_answers: 3,
            self._dropped_watches: 1,
            self._compaction: 1,
        }

    async def run(self, mean_pause_seconds: float) -> None:
        """Inject faults until cancelled; then see that each of them is over.

        They come in bursts: what happens while others recover is as telling as what happens while others fail.
        """
        clock = asyncio.get_running_loop().time
        burst_until = clock() + self._rng.uniform(*BURST_SECONDS)
        try:
            while True:
                await asyncio.sleep(self._rng.expovariate(1 / mean_pause_seconds))
                if clock() > burst_until:
                    await asyncio.sleep(self._rng.uniform(*CALM_SECONDS))
                    burst_until = clock() + self._rng.uniform(*BURST_SECONDS)
                (kind,) = self._rng.choices(list(self._kinds), weights=list(self._kinds.values()))
                with suppress(aiohttp.ClientError, OSError, TimeoutError):
                    done = await kind()
                    if done is not None:
                        name = kind.__name__.lstrip("_")
                        self.counts[name] += 1
                        self._say(f"{name}: {done}")
        finally:
            await self._end()

    async def _end(self) -> None:
        while self._ending:
            await asyncio.wait(set(self._ending))
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            await self._cluster.administer("DELETE", "faults")

    # --- processes --------------------------------------------------------------------------------------------------

    def _pick(self, program: str) -> processes.Process | None:
        found = [one for one in processes.of_cluster(self._cluster.state) if one.program == program]
        return self._rng.choice(sorted(found, key=lambda one: one.pid)) if found else None

    async def _signal(self, program: str, number: signal.Signals) -> str | None:
        process = self._pick(program)
        return str(process.pid) if process is not None and process.send(number) else None

    async def _kill_agent(self) -> str | None:
        return await self._signal("agent", signal.SIGKILL)

    async def _kill_worker(self) -> str | None:
        return await self._signal("worker", signal.SIGKILL)

    async def _end_agent(self) -> str | None:
        return await self._signal("agent", signal.SIGTERM)

    async def _pause_agent(self) -> str | None:
        return self._pause("agent", self._rng.uniform(0.2, 8.0))

    async def _pause_worker(self) -> str | None:
        return self._pause("worker", self._rng.uniform(0.2, 20.0))

    def _pause(self, program: str, seconds: float) -> str | None:
        process = self._pick(program)
        if process is None or not process.send(signal.SIGSTOP):
            return None

        async def resume() -> None:
            try:
                await asyncio.sleep(seconds)
            finally:
                process.send(signal.SIGCONT)

        self._later(resume())
        return f"{process.pid} for {seconds:.1f} s"

    async def _kill_controller(self) -> str | None:
        return self._on_child(self._rng.choice(self._controllers), self._restart, self._rng.uniform(0.0, 3.0))

    async def _pause_controller(self) -> str | None:
        return self._on_child(self._rng.choice(self._controllers), _pause_child, self._rng.uniform(0.2, 6.0))

    async def _kill_cluster(self) -> str | None:
        return self._on_child(self._cluster.cluster, self._restart, self._rng.uniform(0.0, 2.0))

    async def _pause_cluster(self) -> str | None:
        return self._on_child(self._cluster.cluster, _pause_child, self._rng.uniform(0.2, 4.0))

    async def _freeze_kubelet(self) -> str | None:
        """The node goes silent, and what runs on it runs on."""
        if "kubelet" in self._busy:
            return None
        await self._cluster.kubelet({"frozen": True})
        self._busy.add("kubelet")
        seconds = self._rng.uniform(0.5, 6.0)

        async def thaw() -> None:
            try:
                await asyncio.sleep(seconds)
                await until(self._thawed, "the kubelet can be thawed", seconds=60)
            finally:
                self._busy.discard("kubelet")

        self._later(thaw())
        return f"for {seconds:.1f} s"

    async def _thawed(self) -> bool:
        await self._cluster.kubelet({"frozen": False})
        return True

    async def _lose_journal(self) -> str | None:
        """An agent ends, and its journal is gone when it comes back: it has to ask its workers what they hold."""
        process = self._pick("agent")
        if process is None or process.state is None or not process.send(signal.SIGSTOP):
            return None
        (process.state / "journal").unlink(missing_ok=True)
        process.send(signal.SIGKILL)
        return str(process.pid)

    async def _signal_young(self) -> str | None:
        """A signal in the first moments of a program, when its handlers may not be there yet."""
        number = self._rng.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGKILL])
        within_seconds = self._rng.uniform(0.0, YOUNG_SECONDS)

        async def wait() -> None:
            deadline = asyncio.get_running_loop().time() + FOR_A_YOUNG_ONE_SECONDS
            while asyncio.get_running_loop().time() < deadline:
                young = [
                    one
                    for one in processes.of_cluster(self._cluster.state)
                    if one.program and one.age_seconds() < YOUNG_SECONDS
                ]
                if young:
                    await asyncio.sleep(max(0.0, within_seconds - young[0].age_seconds()))
                    young[0].send(number)
                    return
                await asyncio.sleep(LOOK_SECONDS)

        self._later(wait())
        return f"{number.name} to the next one, {within_seconds:.2f} s after its start"

    async def _fill_disk(self) -> str | None:
        """The disk of all volumes is full for a while: journals, output and plans find no room."""
        if self._disk is None or "disk" in self._busy:
            return None
        disk, left_bytes, seconds = self._disk, self._rng.choice(LEFT_BYTES), self._rng.uniform(0.5, 8.0)
        taken = disk.fill(left_bytes)
        self._busy.add("disk")

        async def empty() -> None:
            try:
                await asyncio.sleep(seconds)
            finally:
                disk.empty()
                self._busy.discard("disk")

        self._later(empty())
        return f"with {taken} bytes, {left_bytes} left, for {seconds:.1f} s"

    async def _refuse_pods(self) -> str | None:
        """The node takes no new Pod: they are Failed at once, and never start."""
        return await self._node_fault("refuse_pods", {"*": {"reason": "OutOfcpu", "message": "chaos"}})

    async def _fail_starts(self) -> str | None:
        """Containers can't be started."""
        name = self._rng.choice(["*", "worker-*", "slot-agent"])
        return await self._node_fault("fail_starts", {name: {"reason": "RunContainerError", "message": "chaos"}})

    async def _node_fault(self, switch: str, value: Json) -> str | None:
        if switch in self._busy:
            return None
        await self._cluster.kubelet({switch: value})
        self._busy.add(switch)
        seconds = self._rng.uniform(0.5, 5.0)

        async def off() -> bool:
            await self._cluster.kubelet({switch: {}})
            return True

        async def end() -> None:
            try:
                await asyncio.sleep(seconds)
                await until(off, f"{switch} can be switched off", seconds=60)
            finally:
                self._busy.discard(switch)

        self._later(end())
        return f"{value} for {seconds:.1f} s"

    def _on_child(
        self, child: Child, act: Callable[[Child, float], Coroutine[None, None, None]], seconds: float
    ) -> str | None:
        if child.name in self._busy:
            return None
        self._busy.add(child.name)

        async def whole() -> None:
            try:
                await act(child, seconds)
            finally:
                self._busy.discard(child.name)

        self._later(whole())
        return f"{child.name} for {seconds:.1f} s"

    async def _restart(self, child: Child, seconds: float) -> None:
        await child.kill()
        await asyncio.sleep(seconds)
        if child is self._cluster.cluster:
            await self._cluster.start_cluster()
        else:
            await child.start()

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        if not task.cancelled():
            task.result()

    # --- the API ----------------------------------------------------------------------------------------------------

    async def _bad_answers(self) -> str | None:
        status = self._rng.choice([403, 409, 429, 500, 503, 504])
        return await self._rule({"status": status, "probability": self._rng.uniform(0.1, 1.0)})

    async def _slow_answers(self) -> str | None:
        return await self._rule(
            {"delay_seconds": self._rng.uniform(0.05, 2.0), "probability": self._rng.uniform(0.1, 1.0)}
        )

    async def _dropped_requests(self) -> str | None:
        return await self._rule({"drop": "before", "probability": self._rng.uniform(0.1, 0.8)})

    async def _dropped_answers(self) -> str | None:
        return await self._rule({"drop": "after", "probability": self._rng.uniform(0.1, 0.8)})

    async def _dropped_watches(self) -> str | None:
        await self._cluster.administer("POST", "faults/drop-watches")
        return ""

    async def _compaction(self) -> str | None:
        """Watches that are behind get 410 Gone."""
        await self._cluster.administer("POST", "compact")
        await self._cluster.administer("POST", "faults/drop-watches")
        return ""

    async def _rule(self, rule: Json) -> str | None:
        """One rule at a time, for a while, on the requests of the controller or of the kubelet."""
        if "api" in self._busy:
            return None
        about: Json = {
            "user": self._rng.choice([CONTROLLER, CONTROLLER, CONTROLLER, KUBELET]),
            "verb": self._rng.choice(["*", "*", "patch", "create", "delete", "get", "list", "watch"]),
            "resource": self._rng.choice(["*", "*", "pods", "slottasks", "slottasks/status", "leases"]),
        }
        seconds = self._rng.uniform(0.5, 6.0)
        self._busy.add("api")
        try:
            await self._cluster.administer("PUT", "faults", {"rules": [about | rule]})
        except BaseException:
            self._busy.discard("api")
            raise

        async def lift() -> None:
            try:
                await asyncio.sleep(seconds)
                with suppress(aiohttp.ClientError, OSError, TimeoutError):  # a killed server forgot it anyhow
                    await self._cluster.administer("DELETE", "faults")
            finally:
                self._busy.discard("api")

        self._later(lift())
        return f"{about | rule} for {seconds:.1f} s"


async def _pause_child(child: Child, seconds: float) -> None:
    child.send(signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        child.send(signal.SIGCONT)
