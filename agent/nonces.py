"""What tells a worker's own marker from one that a task's code wrote into the slot's folder.

Each assignment of a step has a nonce: a code over task, step and fence, made with a secret that lies in the agent's own
volume. Nothing is to be stored for it, and a restarted agent gives the same one. The worker writes it into the step's
marker and end and hands it back. Code of an earlier step, or of another task of the slot, can't know it; the step's own
code can, and could only lie about itself. See docs/security.md.
"""

import hmac

from agent.errors import Refusal
from agent.rules.state import TaskEntry
from agent.wire import ErrorCode, ExitReport, KeptTask, StartedReport, Step

NONCE_CHARACTERS = 32


class Nonces:
    """Gives nonces and compares them."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def of(self, task: TaskEntry, step: Step) -> str:
        """The nonce of a step that was assigned."""
        if task.nonce is not None and step is task.step:
            return task.nonce
        text = f"{task.task_id}\0{step}\0{task.fence_of(step)}"
        return hmac.new(self._secret, text.encode(), "sha256").hexdigest()[:NONCE_CHARACTERS]

    def check(self, task: TaskEntry, report: StartedReport | ExitReport) -> None:
        """Raises Refusal fenced if the report is not of the step that was assigned."""
        if not hmac.compare_digest((report.nonce or "").encode(), self.of(task, report.step).encode()):
            raise Refusal(
                ErrorCode.FENCED, f"the report is not of the {report.step} of {task.task_id} that was assigned"
            )

    def believed(self, task: TaskEntry | None, kept: KeptTask) -> KeptTask:
        """What a worker keeps; if that was written by somebody else, as a step that is not yet started."""
        assignment = kept.assignment
        if task is None or (assignment.nonce or "") == self.of(task, assignment.step):
            return kept
        return KeptTask(assignment=assignment, started=False)
