"""What an approval names: the plan, the commands that will apply it and how they run, their environment, the attempt.

Pure but for `hash_content`. References to Secrets are covered as references: their content may rotate while the plan
waits, which must not undo an approval. What comes from ConfigMaps is covered by its content: that is how an apply is
set up, and whoever may edit them need not be one who may approve.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from agent.codec import encode
from agent.work_messages import Step, StepSpec, Work

_BLOCK_BYTES = 1 << 20
USUAL_GRACE_SECONDS = 60


class Source(StrEnum):
    """The plan's content: the file that the plan step wrote or, without one, the step's output."""

    FILE = "file"
    OUTPUT = "output"


def plan_digest(
    source: Source, content_sha256: str, apply: StepSpec, work: Work, config: Mapping[str, str] | None = None
) -> str:
    """`sha256:` and 64 hexadecimal digits.

    It depends on each of these parts, and on all settings of how the apply runs. `config`: the variables that come from
    ConfigMaps.
    """
    parts: list[Any] = [
        f"{source}:{content_sha256}",
        encode(apply.command),
        encode(work.env),
        encode(work.env_from),
        work.attempt,
    ]
    folder = work.steps.working_dir(Step.APPLY)
    # Only values that are not the default, so that digests from before these settings existed stay the same.
    settings = {
        "before": [{"command": each.command, "working_dir": each.working_dir or folder} for each in apply.before],
        "exit_codes": encode(apply.exit_codes),
        "working_dir": None if folder == "." else folder,
        "stop_signal": None if apply.stop_signal == "SIGINT" else apply.stop_signal,
        "cancel_grace_seconds": None
        if apply.cancel_grace_seconds == USUAL_GRACE_SECONDS
        else apply.cancel_grace_seconds,
        "timeout_seconds": apply.timeout_seconds,
        "config": dict(config or {}),
    }
    if said := {name: value for name, value in settings.items() if value or value == 0}:
        parts.append(said)
    canonical = json.dumps(parts, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def hash_content(read: Callable[[int], bytes]) -> str:
    """SHA-256 of everything that `read(size)` gives until it gives nothing, in hexadecimal."""
    state = hashlib.sha256()
    while block := read(_BLOCK_BYTES):
        state.update(block)
    return state.hexdigest()
