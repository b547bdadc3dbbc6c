"""What may never happen as a step begins: twice, unapproved, with another plan, or beside its lock's holder."""

from typing import TYPE_CHECKING

from agent.wire import Assignment, Step
from controller import names
from controller.kube.api import Object

if TYPE_CHECKING:
    from tests.simulation.rules import Rules
    from tests.simulation.world import World


class StepRules:
    """`specs` and `approvals` (UID, attempt, digest) are of the tasks as the API has them, or had."""

    def __init__(self, world: "World", rules: "Rules") -> None:
        self._world = world
        self._rules = rules
        self.starts: dict[tuple[str, Step], int] = {}
        """How often each task's step was started, by (task id, step)."""
        self.specs: dict[str, Object] = {}
        self.approvals: set[tuple[str, int, str]] = set()

    def begins(self, assignment: Assignment, found: str) -> None:
        """A command is about to run; `found` is the digest of the plan that lies in its directory."""
        uid = assignment.task_id.partition(names.TASK_ID_SEPARATOR)[0]
        key = assignment.task_id, assignment.step
        self._rules.note(f"step {assignment.step} of {assignment.work.name} begins ({assignment.task_id})")
        self.starts[key] = self.starts.get(key, 0) + 1
        if self.starts[key] > 1:
            self._rules.breach(f"step {assignment.step} of {assignment.task_id} was started {self.starts[key]} times")
        if assignment.step is Step.APPLY or not self._is_forced(assignment.task_id):
            self._check_lock(uid)
        if assignment.step is not Step.APPLY:
            return
        if assignment.work.steps.plan is not None and self._world.finds_nothing(uid, assignment.work.attempt):
            self._rules.breach(f"an apply of {uid} began whose plan found nothing to change")
        if assignment.work.steps.plan is not None and found != assignment.plan_digest:
            self._rules.breach(f"an apply of {uid} began with another plan than the one that was approved")
        applies = [
            count for (task_id, step), count in self.starts.items() if step is Step.APPLY and task_id.startswith(uid)
        ]
        if sum(applies) > 1:
            self._rules.breach(f"the apply of {uid} was started again")
        if assignment.work.steps.plan is None:
            return
        digest = assignment.plan_digest or ""
        automatic = self.specs.get(uid, {}).get("approvalPolicy") == "Auto"
        if not automatic and (uid, assignment.work.attempt, digest) not in self.approvals:
            self._rules.breach(f"an apply of {uid} began without an approval of {digest}")

    def _is_forced(self, task_id: str) -> bool:
        """Whether a task runs on a Pod that somebody took by force, and so does what nobody waits for any more."""
        return any(
            pod.uid in self._world.taken_by_force and any(slot.task_id == task_id for slot in pod.state().slots)
            for pod in self._world.node.alive
        )

    def _check_lock(self, uid: str) -> None:
        """Of one lockKey, one task that may change things runs at a time.

        The plan of a task whose Pod somebody took by force goes on for a while; its apply can't begin any more.
        """
        key = self._lock_of(uid)
        for pod in self._world.node.alive:
            forced = pod.uid in self._world.taken_by_force
            for running in pod.running:
                if key is None or (forced and running.step is Step.PLAN):
                    continue
                other = running.task_id.partition(names.TASK_ID_SEPARATOR)[0]
                if other != uid and self._lock_of(other) == key:
                    self._rules.breach(f"tasks {uid} and {other} run at once, and both have lockKey {key}")

    def _lock_of(self, uid: str) -> str | None:
        spec = self.specs.get(uid, {})
        key: str | None = spec.get("lockKey")
        return key if "apply" in (spec.get("steps") or {}) else None
