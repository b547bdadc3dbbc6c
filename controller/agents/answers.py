"""The meaning of an answer other than the expected one: that of an agent which refuses, or of something else."""

from typing import Any

import orjson

from agent.wire import (
    ErrorCode,
)
from controller.decide.agent_version import MINIMUM, is_too_old
from controller.errors import AgentRefused, AgentUnreachable

OK = 200
SERVER_ERROR = 500
REFUSALS = frozenset({ErrorCode.STORAGE, ErrorCode.NOT_READY})
"""Codes that say the write was not done even where the status is a 5xx."""


def misunderstood(error: Exception, document: Any) -> AgentUnreachable:
    """The error for a body that is no agent's answer. That of an agent too old to be understood names its version."""
    state = document.get("state", document) if isinstance(document, dict) else None
    version = state.get("version") if isinstance(state, dict) else None
    if isinstance(version, str) and is_too_old(version):
        return AgentUnreachable(f"the agent's version {version} is older than {MINIMUM}")
    return AgentUnreachable(f"not an agent's answer: {error}")


def refusal(status: int, body: bytes) -> AgentRefused | AgentUnreachable:
    """The error for an answer other than 200. Only an error of the agent itself proves that a write was not done."""
    try:
        document = orjson.loads(body)
        code, message = document["error"], str(document.get("message", ""))
    except (orjson.JSONDecodeError, TypeError, KeyError):
        return AgentUnreachable(f"not an agent's answer: status {status}")
    if status >= SERVER_ERROR and code not in REFUSALS:
        return AgentUnreachable(f"{status} {code}: {message}")
    return AgentRefused(status, str(code), message)
