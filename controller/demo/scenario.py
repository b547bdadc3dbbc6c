"""The run itself, as a user would go about it: submit, watch, approve."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from agent.wire import SlotState
from controller import names
from controller.cli.cluster.called import Cluster
from controller.cli.cluster.session import Session
from controller.cli.local.stack import Stack
from controller.cli.show.tables import FINAL_PHASES, phase
from controller.cli.task.approval import Question, missing_text, patch, plan_text, question, summary
from controller.cli.task.outputs import Seen, of_last_attempt
from controller.demo import workload
from controller.demo.display import Display
from controller.demo.evidence import Approval, Evidence, Settled, parse_audit, parse_records
from controller.demo.observe import Observer
from controller.demo.workload import MAX_PODS, NAMESPACE, POOL
from controller.errors import PodslotsError
from controller.kube.access import KubeSettings
from controller.kube.api import PODS, SLOTPOOLS, SLOTTASKS, Object
from controller.kube.client import KubeClient

POLL_SECONDS = 0.05
PATIENCE_SECONDS = 90.0
"""For any one part of the run. It takes a tenth of this; a machine under load must not make it fail."""
USER = "demo"


class TookTooLongError(PodslotsError):
    """A part of the run did not come to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to run. `unattended`: approve by itself."""

    unattended: bool
    terraform: bool
    plan_seconds: float = workload.PLAN_SECONDS


class Scenario:
    """One run on a started stack."""

    def __init__(
        self, stack: Stack, api: KubeClient, observer: Observer, display: Display, clock: Callable[[], float]
    ) -> None:
        self._stack = stack
        self._api = api
        self._observer = observer
        self._display = display
        self._clock = clock
        self._approvals: list[Approval] = []
        self._settled: Settled | None = None
        self.declined = 0

    @property
    def _records(self) -> Path:
        return self._stack.folder / "records"

    async def run(self, options: Options) -> None:
        """Everything up to the pool's return to zero. Raises TookTooLongError, StackError and API errors."""
        say = self._display.say
        self._records.mkdir(exist_ok=True)
        await self._api.create(SLOTPOOLS, NAMESPACE, workload.pool())
        await self._until(self._pool_is_looked_after, "the pool was not looked at")
        say(f"pool {POOL}: 0 Pods, may grow to {MAX_PODS}; no task yet")
        tasks = workload.tasks(str(self._records), terraform=options.terraform, plan_seconds=options.plan_seconds)
        for task in tasks:
            await self._api.create(SLOTTASKS, NAMESPACE, task)
        kind = "Terraform" if options.terraform else "shell"
        say(f"submitted {workload.PLANS} plans and {workload.APPLIES} plans with an apply ({kind})")
        await self._until(lambda: len(self._observer.present()) == MAX_PODS, "the pool did not grow")
        say(f"{MAX_PODS} Pods created from zero; each takes three tasks as soon as its workers are there")
        await self._until(self._all_planned, "not all plans ended")
        say("all plans done; those with an apply wait for approval, their slots are reserved")
        await self._until(self._only_reserved_left, "the pool did not shrink to its reserved Pods")
        self._settled = Settled(pods=self._pod_names(), reserved=self._reserved_names())
        say(f"idle Pods are drained and gone; exactly the {workload.APPLIES} with a reservation stay")
        for name in sorted(task["metadata"]["name"] for task in tasks if "apply" in task["spec"]["steps"]):
            await self._approve(name, unattended=options.unattended)
        await self._until(lambda: self._count(FINAL_PHASES) == len(tasks), "not all applies ended")
        say("every task has ended")
        await self._until(lambda: not list(self._observer.pods.items()), "the pool did not return to zero")
        say(f"pool {POOL}: 0 Pods")

    async def evidence(self) -> Evidence:
        """What was seen, whether or not the run came to its end."""
        records = (path.read_text() for path in sorted(self._records.iterdir()))
        tasks = await self._observer.list_all(SLOTTASKS)
        return Evidence(
            audit=parse_audit(self._stack.audit_log.read_text().splitlines()),
            records=parse_records(records),
            agents=dict(self._observer.histories),
            approvals=tuple(self._approvals),
            settled=self._settled,
            phases={task["metadata"]["name"]: phase(task) for task in tasks},
            pods_left=len(await self._observer.list_all(PODS)),
            seconds=self._clock(),
        )

    async def _until(self, condition: Callable[[], bool], otherwise: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not condition():
                    self._stack.check()
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise TookTooLongError(f"{otherwise} within {PATIENCE_SECONDS:g} s") from None

    def _pool_is_looked_after(self) -> bool:
        pool = self._observer.pools.get(NAMESPACE, POOL)
        return pool is not None and "desiredReplicas" in (pool.get("status") or {})

    def _all_planned(self) -> bool:
        return self._count(frozenset({"Succeeded", "AwaitingApproval"})) == workload.PLANS + workload.APPLIES

    def _only_reserved_left(self) -> bool:
        present = {pod["metadata"]["name"] for pod in self._observer.pods.items()}
        return present == self._reserved_names() and bool(present)

    def _count(self, phases: frozenset[str]) -> int:
        return sum(count for name, count in self._observer.phases().items() if name in phases)

    def _pod_names(self) -> frozenset[str]:
        return frozenset(pod["metadata"]["name"] for pod in self._observer.pods.items())

    def _reserved_names(self) -> frozenset[str]:
        """Pods whose agent says that a slot is reserved."""
        found = set()
        for pod in self._observer.pods.items():
            state = self._observer.last(pod["metadata"]["uid"])
            if state and any(slot.state is SlotState.RESERVED for slot in state.slots):
                found.add(pod["metadata"]["name"])
        return frozenset(found)

    async def _approve(self, name: str, *, unattended: bool) -> None:
        """Approve what the agent itself says the plan's digest is, or cancel if the person declines."""
        task = await self._api.get(SLOTTASKS, NAMESPACE, name)
        status = task["status"]
        task_id = names.task_id(task["metadata"]["uid"], status["attempt"])
        of_agent = await self._observer.task_of_agent(status["podUID"], task_id)
        asked = question(task, digest=of_agent.plan_digest)
        if unattended or await self._display.ask(await self._shown(task, asked), f"Apply {name}'s plan?"):
            self._approvals.append(Approval(task=name, task_id=task_id, plan_digest=asked.plan_digest))
            change: Object = patch(asked, USER)
            self._display.say(f"approved {name}: plan {asked.plan_digest[:19]}… on {asked.pod}, slot {asked.slot}")
        else:
            self.declined += 1
            change = {"spec": {"cancel": True}}
            self._display.say(f"cancelled {name}")
        await self._api.patch(SLOTTASKS, NAMESPACE, name, change)

    def _plan_of(self, task: Object) -> Seen | None:
        settings = KubeSettings(kubeconfig=str(self._stack.kubeconfig_of(USER)))
        session = Session(settings=settings, now=lambda: datetime.now(UTC), cluster=Cluster(namespace=NAMESPACE))
        with session.open() as connection:
            return of_last_attempt(connection, task, "plan")

    async def _shown(self, task: Object, asked: Question) -> str:
        """What a person is shown: all of the plan, as `podslots approve` shows it."""
        seen = await asyncio.to_thread(self._plan_of, task)
        parts = (plan_text(seen), missing_text(seen), summary(asked))
        return "\n".join(part for part in parts if part)
