"""The meaning of an answer other than the expected one: that of an agent which refuses, or of something else."""

from dataclasses import dataclass
from typing import Any

import orjson

from agent.wire import ErrorCode, WireError, decode
from controller.decide.agent_version import MINIMUM, is_too_old
from controller.errors import AgentRefused, AgentUnreachable

OK = 200
SERVER_ERROR = 500
REFUSALS = frozenset({ErrorCode.STORAGE, ErrorCode.NOT_READY})
"""Codes that say the write was not done even where the status is a 5xx."""
MAX_CODE_LENGTH = 64
MAX_MESSAGE_LENGTH = 1024
"""Characters of what is passed on of a message, to logs, Events and conditions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Error:
    """What is read of an error's body."""

    error: str
    message: str = ""


def misunderstood(error: Exception, document: Any) -> AgentUnreachable:
    """The error for a body that is no agent's answer. That of an agent too old to be understood names its version."""
    state = document.get("state", document) if isinstance(document, dict) else None
    version = state.get("version") if isinstance(state, dict) else None
    if isinstance(version, str) and is_too_old(version):
        return AgentUnreachable(f"the agent's version {version} is older than {MINIMUM}")
    return AgentUnreachable(f"not an agent's answer: {error}"[:MAX_MESSAGE_LENGTH])


def refusal(status: int, body: bytes) -> AgentRefused | AgentUnreachable:
    """The error for an answer other than 200. Only an error of the agent itself proves that a write was not done."""
    try:
        said = decode(_Error, orjson.loads(body))
    except (orjson.JSONDecodeError, WireError):
        return AgentUnreachable(f"not an agent's answer: status {status}")
    code, message = said.error[:MAX_CODE_LENGTH], said.message[:MAX_MESSAGE_LENGTH]
    if status >= SERVER_ERROR and code not in REFUSALS:
        return AgentUnreachable(f"{status} {code}: {message}")
    return AgentRefused(status, code, message)
