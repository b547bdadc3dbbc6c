"""What the controller does to tasks: lock, intent, acquire, output, result, ack. `task_actions` decides.

Every message that can start something on an agent follows a status write that says so: a leader that takes over finds
the intent, and asks the same agent again. A result is written to the SlotTask before the agent may forget it.
"""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from agent import wire
from controller import names
from controller.act.events import EventRecorder
from controller.act.handed_over import HandedOverFiles
from controller.act.locks import Locks
from controller.act.outputs import TaskOutputs
from controller.act.task_acks import TaskAcks
from controller.act.task_results import TaskResults, changes_nothing
from controller.act.task_words import TaskWords
from controller.act.task_writer import TaskWriter, Written, made
from controller.agents.client import AgentClient
from controller.decide.tasks.task_actions import (
    APPROVED,
    ASSIGNED,
    CANCELLING,
    CHANGED,
    Finish,
    RejectApproval,
    Retry,
    cancel_message,
    keeps_lock,
    may_retry,
)
from controller.decide.tasks.task_figures import RETRIED
from controller.decide.tasks.task_messages import approved_message, end_message, end_reason, end_type
from controller.decide.tasks.trying_again import after_end
from controller.decide.view import PodView
from controller.errors import AgentRefused, NotFound
from controller.kube.api import SLOTTASKS, Api
from controller.kube.cache import Cache
from controller.objects.conditions import Condition, find, put
from controller.objects.ended_task import EndedTask
from controller.objects.pool import OutputLimits
from controller.objects.sentences import sentence
from controller.objects.task import Task, TaskPhase

log = logging.getLogger(__name__)

_NOT_TAKEN = {
    wire.ErrorCode.NO_FREE_SLOT,
    wire.ErrorCode.DRAINED,
    wire.ErrorCode.CLOSING,
    wire.ErrorCode.UNKNOWN_TASK_TYPE,
}
"""Answers to an acquire after which this agent certainly doesn't have the task, and another may be asked."""

_NEVER_TAKEN = {wire.ErrorCode.BAD_REQUEST, wire.ErrorCode.INVALID, wire.ErrorCode.TOO_LARGE}
"""Answers after which no agent will ever take the task: it can't be asked for differently."""

_PHASES = {
    wire.Outcome.SUCCEEDED: TaskPhase.SUCCEEDED,
    wire.Outcome.FAILED: TaskPhase.FAILED,
    wire.Outcome.CANCELLED: TaskPhase.CANCELLED,
    wire.Outcome.EXPIRED: TaskPhase.EXPIRED,
    wire.Outcome.LOST: TaskPhase.LOST,
}


class Tasks:
    """Operations on tasks."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        locks: Locks,
        events: EventRecorder,
        *,
        outputs: TaskOutputs,
        handed_over: HandedOverFiles,
        now: Callable[[], datetime],
        written: Written = lambda _before, _after: None,
    ) -> None:
        self._api = api
        self._cache = cache
        self._locks = locks
        self._writer = TaskWriter(api, cache, events, now=now, written=written)
        self.words = TaskWords(api, cache, locks, events, self._writer, now=now)
        self._results = TaskResults(api, self._writer, outputs=outputs, handed_over=handed_over)
        self.acks = TaskAcks(api, self._results)
        self._now = now

    async def assign(self, task: Task, pod: PodView, agent: AgentClient, *, reservation_ttl_seconds: int) -> None:
        """Hold the task in the API, take the lockKey, write the intent, acquire a slot."""
        if names.TASK_FINALIZER not in task.finalizers:
            task = await self.add_finalizer(task)
        if not await self._locks.take(task):
            return
        written = await self._writer.write(
            task,
            phase=TaskPhase.ASSIGNED,
            queued_reason=None,
            not_before=None,
            attempt=max(1, task.status.attempt),
            pod=pod.name,
            pod_uid=pod.uid,
            step=None,
            slot=None,
            plan_digest=None,
        )
        self._writer.step(task, "Assigned", f"The task was assigned to Pod {pod.name}.")
        await self._acquire(written, pod, agent, reservation_ttl_seconds=reservation_ttl_seconds)

    async def ask_again(self, task: Task, pod: PodView, agent: AgentClient, *, reservation_ttl_seconds: int) -> None:
        """Ask the agent for a slot again, because the answer to the first request is not known.

        The status write before it changes the version. So the intent is still in the API, even if this replica's cache
        is old. An earlier write that withdraws the intent (by a former leader, or ours without an answer) fails.
        """
        message = f"The agent of Pod {pod.name} is asked for a slot again, as of version {task.resource_version}."
        asked = await self._writer.write(
            task, conditions=self._writer.condition(task, ASSIGNED, True, "AskedAgain", message)
        )
        await self._acquire(asked, pod, agent, reservation_ttl_seconds=reservation_ttl_seconds)

    async def _acquire(self, task: Task, pod: PodView, agent: AgentClient, *, reservation_ttl_seconds: int) -> None:
        """Ask the agent for a slot. The intent was written just now; the same question again gets the same answer."""
        if pod.agent is None:
            return
        try:
            answer = await agent.acquire(
                pod.agent.incarnation, task.task_id, task.spec.type, task.to_work(reservation_ttl_seconds)
            )
        except AgentRefused as refusal:
            if refusal.code in _NEVER_TAKEN:
                await self._finish(task, TaskPhase.FAILED, "WorkRefused", refusal.message)
                return
            if refusal.code in _NOT_TAKEN:
                await self._writer.write(task, phase=TaskPhase.QUEUED, pod=None, pod_uid=None, step=None, slot=None)
            raise
        step = wire.Step.PLAN if task.spec.steps.plan else wire.Step.APPLY
        started = task.status.started_at or self._now()
        await self._writer.write(task, phase=TaskPhase.RUNNING, slot=answer.slot, step=step, started_at=started)

    async def follow(self, task: Task, pod: PodView, agent: AgentClient, *, limits: OutputLimits) -> None:
        """Read the task from its agent and write what it says; a final result is acknowledged.

        Output is kept first: a status that says that a step is over names it, and after the ack the agent forgets it.
        """
        try:
            known = await agent.task(task.task_id)
        except AgentRefused as refusal:
            if refusal.code != wire.ErrorCode.NOT_FOUND:
                raise
            await self._forgotten(task, pod, agent)
            return
        if known.state is wire.TaskState.ENDED:
            known = await self._results.with_cause(task, known)
            kept = await self._results.keep_outputs(task, known, agent, limits)
            problem = await self._results.hand_over(task, known, agent)
            await self._ended(task, known, kept, problem)
            await self.acks.ack(task.task_id, pod, agent)
        elif task.status.step is wire.Step.APPLY and known.step is not wire.Step.APPLY:
            return  # it was approved, and the agent has not heard of it yet: what was let go is not called back
        elif known.state is wire.TaskState.RESERVED:
            kept = await self._results.keep_outputs(task, known, agent, limits)
            conditions = self._with_changed(task, known)
            await self._writer.write(
                task, phase=TaskPhase.AWAITING_APPROVAL, **_progress(known), **kept, conditions=conditions
            )
            message = f"The plan {known.plan_digest} waits for an approval."
            self._writer.step(task, "AwaitingApproval", message, at_once=True)
        else:
            await self._writer.write(task, phase=TaskPhase.RUNNING, **_progress(known))

    async def _ended(self, task: Task, known: wire.Task, kept: dict[str, str], problem: str | None) -> None:
        if (again := after_end(task, known, self._now())) is not None:
            await self.retry(task, again)
            return
        phase = _PHASES[known.outcome or wire.Outcome.FAILED]
        if known.outcome is wire.Outcome.LOST and task.status.phase is TaskPhase.AWAITING_APPROVAL:
            phase = TaskPhase.FAILED
        fields = {**_progress(known), **kept, "conditions": self._with_changed(task, known)}
        if changes_nothing(known):
            await self._finish(task, phase, wire.NO_CHANGES, "the plan found nothing to change", **fields)
            return
        message = "; ".join(part for part in (known.reason, problem) if part)
        await self._finish(task, phase, phase.value, message, **fields)

    async def _forgotten(self, task: Task, pod: PodView, agent: AgentClient) -> None:
        """The agent said that it doesn't know the task.

        That is believed only if the state of this Pod's agent confirms it.
        """
        state = await agent.state()
        known = {slot.task_id for slot in state.slots} | set(state.ended)
        if state.pod_uid != pod.uid or state.recovering or task.task_id in known:
            return
        message = f"the agent of Pod {pod.name} no longer knows the task: its journal was lost"
        if may_retry(task):
            await self.retry(task, Retry("AgentLostTask", message))
        else:
            await self._finish(task, TaskPhase.LOST, "AgentLostTask", message)

    async def approve(self, task: Task, pod: PodView, agent: AgentClient) -> None:
        """Write that the apply may start, then let the agent start it."""
        digest = task.status.plan_digest
        if pod.agent is None or digest is None:
            return
        if task.status.phase is TaskPhase.AWAITING_APPROVAL:
            message = approved_message(task)
            task = await self._writer.write(
                task,
                phase=TaskPhase.RUNNING,
                step=wire.Step.APPLY,
                expires_at=None,
                conditions=self._writer.condition(task, APPROVED, True, "Approved", message),
            )
            self._writer.step(task, "Approved", message)
        else:
            # As `ask_again`: a write from before that ends the task comes too late once it is approved again.
            message = f"The agent is told again that {digest} was approved, as of version {task.resource_version}."
            task = await self._writer.write(
                task, conditions=self._writer.condition(task, APPROVED, True, "ApprovedAgain", message)
            )
        await agent.approve(pod.agent.incarnation, task.task_id, plan_digest=digest, attempt=task.status.attempt)

    async def reject_approval(self, task: Task, action: RejectApproval) -> None:
        """Say on the task why its approval is not valid."""
        await self._writer.write(
            task, conditions=self._writer.condition(task, APPROVED, False, action.reason, action.message)
        )
        self._writer.warn(task, action.reason, action.message)

    async def cancel(self, task: Task, pod: PodView, agent: AgentClient) -> None:
        """End the task on its agent. One that the agent never got ends here: it can't get it any more."""
        if pod.agent is None:
            return
        try:
            await agent.cancel(pod.agent.incarnation, task.task_id)
        except AgentRefused as refusal:
            if refusal.code != wire.ErrorCode.NOT_FOUND or task.status.phase is not TaskPhase.ASSIGNED:
                raise
            await self._finish(task, TaskPhase.CANCELLED, "Cancelled", "cancelled before it started")
            return
        message = cancel_message(task, pod)
        await self._writer.write(
            task, conditions=self._writer.condition(task, CANCELLING, True, "CancelRequested", message)
        )

    async def retry(self, task: Task, action: Retry) -> None:
        """Back to the queue as the next attempt. The last one's processes are over."""
        attempt = task.status.attempt + 1
        kept = tuple(item for item in task.status.conditions if item.type != CHANGED)
        await self._writer.write(
            task,
            phase=TaskPhase.QUEUED,
            attempt=attempt,
            pod=None,
            pod_uid=None,
            slot=None,
            step=None,
            plan_digest=None,
            expires_at=None,
            plan=None,
            apply=None,
            plan_output=None,
            apply_output=None,
            not_before=action.not_before,
            conditions=put(kept, made(task, RETRIED, True, action.reason, sentence(action.message)), self._now()),
        )
        self._writer.warn(task, action.reason, f"{action.message}; the task is queued again as attempt {attempt}")

    async def finish(self, task: Task, action: Finish) -> None:
        """Write a final phase."""
        await self._finish(task, action.phase, action.reason, action.message)

    async def _finish(self, task: Task, phase: TaskPhase, reason: str, message: str, **fields: Any) -> None:
        step = fields.get("step", task.status.step)
        words = end_message(phase, reason, message, step)
        conditions = fields.get("conditions", task.status.conditions)
        cancelling = find(conditions, CANCELLING)
        if cancelling is not None and cancelling.status == "True":
            over = made(task, CANCELLING, False, phase.value, "The task has ended.")
            conditions = put(conditions, over, self._now())
        end = made(task, end_type(phase), True, end_reason(phase, reason, step), words)
        ending: dict[str, Any] = {
            "phase": phase,
            "reason": reason,
            "message": message or None,
            "finished_at": self._now(),
            "expires_at": None,
            "queued_reason": None,
            "conditions": put(conditions, end, self._now()),
        }
        await self._writer.write(task, **{**fields, **ending})
        if phase in {TaskPhase.SUCCEEDED, TaskPhase.CANCELLED}:
            self._writer.step(task, phase.value, words, at_once=True)
        else:
            self._writer.warn(task, phase.value, words)

    async def release_lock(self, task: EndedTask) -> None:
        """Let the next task of its lockKey go."""
        await self._locks.release(task.namespace, task.lock_key, task.uid)

    async def add_finalizer(self, task: Task) -> Task:
        """Make sure that the task is not gone from the API before it ended."""
        return Task.parse(await self._writer.patch_finalizers(task, [*task.finalizers, names.TASK_FINALIZER]))

    async def remove_finalizer(self, task: EndedTask) -> None:
        """Let an ended task be deleted. Its lock is released first: later nobody could tell whose lock it is."""
        if not keeps_lock(task):
            await self._locks.release(task.namespace, task.lock_key, task.uid)
        await self._writer.patch_finalizers(task, [entry for entry in task.finalizers if entry != names.TASK_FINALIZER])

    async def delete(self, task: EndedTask) -> None:
        """Delete a finished task whose time to live is over."""
        try:
            answer = await self._api.delete(SLOTTASKS, task.namespace, task.name, uid=task.uid)
        except NotFound:
            self._cache.note_gone(task.namespace, task.name, task.uid)
        else:
            self._cache.note_deleted(task.namespace, task.name, answer)

    def _with_changed(self, task: Task, known: wire.Task) -> tuple[Condition, ...]:
        """The task's conditions, with what its plan found, if the exit code said so."""
        changed = known.plan.changed if known.plan is not None else None
        if changed is None:
            return task.status.conditions
        reason, what = ("ChangesFound", "something") if changed else (wire.NO_CHANGES, "nothing")
        return self._writer.condition(task, CHANGED, changed, reason, f"the plan found {what} to change")


def _progress(known: wire.Task) -> dict[str, Any]:
    """Fields of the status from what the agent knows."""
    return {
        "slot": known.slot,
        "step": known.step,
        "plan_digest": known.plan_digest,
        "expires_at": known.expires_at,
        "plan": known.plan,
        "apply": known.apply,
    }
