"""The step that runs now: its limits, and what its end comes to."""

from agent.work_messages import Outcome, StepSpec
from agent.worker.kept_step import Kept
from agent.worker.ports import Ended


class Run:
    """Limits on monotonic time, and why the step was told to stop, if it was."""

    def __init__(self, kept: Kept, spec: StepSpec, now: float) -> None:
        self.kept = kept
        self.limit_at = None if spec.timeout_seconds is None else now + spec.timeout_seconds
        self.limit_reason = f"time limit of {spec.timeout_seconds} s exceeded"
        self.kill_at: float | None = None
        self._grace_seconds = spec.cancel_grace_seconds
        self._cause: tuple[Outcome, str] | None = None

    def stop(self, outcome: Outcome, reason: str, now: float) -> bool:
        """SIGTERM is due now, SIGKILL after the grace. Only the first reason counts: False for a later one."""
        if self._cause is not None:
            return False
        self._cause = (outcome, reason)
        self.kill_at = now + self._grace_seconds
        return True

    def kill_by(self, moment: float) -> None:
        """The grace ends then at the latest."""
        self.kill_at = moment if self.kill_at is None else min(self.kill_at, moment)

    def result(self, ended: Ended) -> tuple[Outcome, str | None, int | None]:
        """Outcome, reason and exit code, which for a signal is 128 and its number, as shells have it."""
        exit_code = ended.exit_code if ended.signal is None else 128 + ended.signal
        if self._cause is not None:
            return (*self._cause, exit_code)
        if exit_code == 0:
            return Outcome.SUCCEEDED, None, exit_code
        reason = f"exit code {exit_code}" if ended.signal is None else f"ended by signal {ended.signal}"
        return Outcome.FAILED, reason, exit_code
