"""What can go wrong on the way to the Kubernetes API and to agents. Translated at the edge, with `raise … from`.

PodslotsError
├── InvalidObject            a SlotPool, SlotTask or template that can't be used: the user's to mend
├── NotOurs                  an object is in the way that podslots did not make
├── NotLeader                this replica may not write now
├── ApiError                 the API server answered with an error status
│   ├── NotFound · AlreadyExists · Conflict · Invalid · Forbidden · Gone · TooManyRequests
├── ApiUnavailable           no answer, or a 5xx: a write may or may not have happened
│   └── NoConfiguration      where the API server is, or what opens it, can't be learned: nothing was sent
├── SignalError              Prometheus gave no usable answer
├── AgentRefused             the agent answered with an error: it did not do it
└── AgentUnreachable         no answer from the agent: it may or may not have done it
"""

from __future__ import annotations


class PodslotsError(Exception):
    """Anything the controller expects to go wrong."""


class InvalidObject(PodslotsError):
    """An object of the user's that can't be used. `field` is its path, as in `spec.template.spec`."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class SignalError(PodslotsError):
    """Prometheus gave no usable answer to a query."""


class NotOurs(PodslotsError):
    """An object of that name is there, and podslots did not make it."""


class NotLeader(PodslotsError):
    """This replica does not hold the Lease, or can't be sure that it does."""


class ApiError(PodslotsError):
    """A Status document of the API server. `code` is the HTTP status, `reason` its machine-readable word."""

    def __init__(self, code: int, reason: str, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after_seconds = retry_after_seconds

    @staticmethod
    def of(code: int, reason: str, message: str, retry_after_seconds: float | None = None) -> ApiError:
        """The subclass for this status."""
        kind = _BY_REASON.get(reason) or _BY_CODE.get(code) or ApiError
        return kind(code, reason, message, retry_after_seconds)


class NotFound(ApiError):
    """404."""


class AlreadyExists(ApiError):
    """409 AlreadyExists: the name is taken."""


class Conflict(ApiError):
    """409 Conflict: a precondition (resourceVersion, UID) did not hold."""


class Invalid(ApiError):
    """422, or 400: the object was refused."""


class Forbidden(ApiError):
    """401 or 403: RBAC, quota or an admission policy."""


class Gone(ApiError):
    """410: the resourceVersion or continue token is too old; list again."""


class TooManyRequests(ApiError):
    """429: `retry_after_seconds` says when to come back."""


class ApiUnavailable(PodslotsError):
    """No answer from the API server in time, a broken connection, or a 5xx. A write may have taken effect.

    `code` is the 5xx; None: there was no answer.
    """

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class NoConfiguration(ApiUnavailable):
    """No usable kubeconfig or service account."""


class AgentRefused(PodslotsError):
    """An agent's error answer. `code` is a `wire.ErrorCode` value (or a later agent's)."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message


class AgentUnreachable(PodslotsError):
    """No answer from the agent in time, or not an agent's answer. A write may have taken effect."""


_BY_REASON: dict[str, type[ApiError]] = {"AlreadyExists": AlreadyExists, "Conflict": Conflict, "Expired": Gone}
_BY_CODE: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
}
