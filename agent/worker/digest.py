"""What an approval names: the plan, the command that will apply it, that command's environment, and the attempt.

Pure but for `hash_content`. References to Secrets are covered as references: their content may rotate while the plan
waits, which must not undo an approval.
"""

import hashlib
import json
from collections.abc import Callable
from enum import StrEnum

from agent.codec import encode
from agent.work_messages import StepSpec, Work

_BLOCK_BYTES = 1 << 20


class Source(StrEnum):
    """What stands for the plan: the file that the plan step wrote, or, if there is none, its output."""

    FILE = "file"
    OUTPUT = "output"


def plan_digest(source: Source, content_sha256: str, apply: StepSpec, work: Work) -> str:
    """`sha256:` and 64 hexadecimal digits. Each of the five parts changes it."""
    parts = [
        f"{source}:{content_sha256}",
        encode(apply.command),
        encode(work.env),
        encode(work.env_from),
        work.attempt,
    ]
    canonical = json.dumps(parts, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def hash_content(read: Callable[[int], bytes]) -> str:
    """SHA-256 of everything that `read(size)` gives until it gives nothing, in hexadecimal."""
    state = hashlib.sha256()
    while block := read(_BLOCK_BYTES):
        state.update(block)
    return state.hexdigest()
