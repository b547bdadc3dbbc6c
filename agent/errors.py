"""What the agent refuses, and what can go wrong in it.

A `Refusal` is an answer: the request was understood and the rules say no. Everything else is our own fault.
"""

from agent.wire import ErrorBody, ErrorCode


class AgentError(Exception):
    """The root of everything the agent raises on purpose."""


class ConfigError(AgentError):
    """The environment does not describe a runnable agent. Each problem is one line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class JournalDamagedError(AgentError):
    """A journal that can't be trusted: wrong header, another Pod's, or a bad record before its end."""


class Refusal(AgentError):
    """A request that changes nothing. `slots` and `tasks` name what is in the way of a drain."""

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        slots: tuple[int, ...] | None = None,
        tasks: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.slots = slots
        self.tasks = tasks

    @property
    def status(self) -> int:
        """The HTTP status of this code."""
        return STATUS[self.code]

    def body(self) -> ErrorBody:
        """The error as it goes over the wire."""
        return ErrorBody(error=self.code, message=self.message, slots=self.slots, tasks=self.tasks)


STATUS: dict[ErrorCode, int] = {
    ErrorCode.BAD_REQUEST: 400,
    ErrorCode.UNAUTHORIZED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.METHOD_NOT_ALLOWED: 405,
    ErrorCode.NO_FREE_SLOT: 409,
    ErrorCode.DRAINED: 409,
    ErrorCode.CLOSING: 409,
    ErrorCode.BUSY: 409,
    ErrorCode.DRAIN_MISMATCH: 409,
    ErrorCode.MANAGED: 409,
    ErrorCode.FENCED: 409,
    ErrorCode.ILLEGAL: 409,
    ErrorCode.DIGEST_MISMATCH: 409,
    ErrorCode.RESTARTED: 409,
    ErrorCode.STALE: 409,
    ErrorCode.UNREGISTERED: 409,
    ErrorCode.SUPERSEDED: 409,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.WRONG_POD: 421,
    ErrorCode.UNKNOWN_TASK_TYPE: 422,
    ErrorCode.INVALID: 422,
    ErrorCode.INTERNAL: 500,
    ErrorCode.STORAGE: 503,
    ErrorCode.NOT_READY: 503,
}
