"""The step that runs now: its limits, and what its end comes to."""

from agent.work_messages import TIME_LIMIT, Outcome, StepSpec
from agent.worker.rules.kept_step import Kept
from agent.worker.rules.ports import Ended, Launch

TERM_SECONDS = 5.0
"""Before the grace is over what still runs gets SIGTERM, but not before three quarters of it: what has begun to tidy
up may die of it."""
_SHOWN_CHARACTERS = 80


class Run:
    """Limits on monotonic time, and why the step was told to stop, if it was."""

    def __init__(self, kept: Kept, spec: StepSpec, launch: Launch, now: float) -> None:
        self.kept = kept
        self.spec = spec
        self.limit_at = None if spec.timeout_seconds is None else now + spec.timeout_seconds
        self.limit_reason = f"{TIME_LIMIT} of {spec.timeout_seconds} s exceeded"
        self.term_at: float | None = None
        self.kill_at: float | None = None
        self.ended: Ended | None = None
        """How its commands ended, while the plan's digest is computed."""
        self._launch = launch
        self._cause: tuple[Outcome, str] | None = None

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._cause is not None

    def stop(self, outcome: Outcome, reason: str, now: float) -> bool:
        """The stop signal is due now, SIGTERM late in the grace, SIGKILL after it. Only the first reason counts."""
        if self._cause is not None:
            return False
        grace = self.spec.cancel_grace_seconds
        self._cause = (outcome, reason)
        self.kill_at = now + grace
        self.term_at = _term_at(self.kill_at, grace)
        return True

    def kill_by(self, moment: float, now: float) -> None:
        """The grace ends then at the latest."""
        self.kill_at = moment if self.kill_at is None else min(self.kill_at, moment)
        if self.term_at is not None:
            self.term_at = min(self.term_at, _term_at(self.kill_at, max(0.0, self.kill_at - now)))

    def result(self, ended: Ended) -> tuple[Outcome, str | None, int | None]:
        """Outcome, reason and exit code, which for a signal is 128 and its number, as shells have it."""
        exit_code = ended.exit_code if ended.signal is None else 128 + ended.signal
        was_last = ended.command in {-1, len(self._launch.commands) - 1}
        well = was_last and ended.problem is None and ended.signal is None and exit_code in self._good_codes()
        if self._cause is not None:
            outcome, reason = self._cause
            # Also with exit code 0: a shell may go on after its command was stopped. The agent reports the exit code,
            # too.
            return outcome, _with(reason, ended.memory), exit_code
        if well:
            return Outcome.SUCCEEDED, None, exit_code
        return Outcome.FAILED, _with(self._failure(ended, exit_code, was_last=was_last), ended.memory), exit_code

    def changed(self, exit_code: int | None) -> bool | None:
        """What the exit code of a step that ended well says."""
        codes = self.spec.exit_codes
        if codes is None or exit_code is None:
            return None
        return True if exit_code in codes.changed else False if exit_code in codes.unchanged else None

    def _good_codes(self) -> set[int]:
        codes = self.spec.exit_codes
        return {0} if codes is None else {0, *codes.changed, *codes.unchanged}

    def _failure(self, ended: Ended, exit_code: int | None, *, was_last: bool) -> str:
        if ended.problem is not None:
            return ended.problem
        if was_last:
            return f"exit code {exit_code}" if ended.signal is None else f"ended by signal {ended.signal}"
        command = _cut(" ".join(self._launch.commands[ended.command].argv))
        return (
            f"{command} ended with {exit_code}" if ended.signal is None else f"{command} ended by signal {ended.signal}"
        )


def _term_at(kill_at: float, grace_seconds: float) -> float:
    return kill_at - min(TERM_SECONDS, grace_seconds / 4)


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"


def _with(reason: str, memory: str | None) -> str:
    return reason if memory is None else f"{reason}; {memory}"
