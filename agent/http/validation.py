"""What a well-formed request may still not say. Pure; every limit keeps a state small and printable."""

import binascii
import re
from collections.abc import Mapping

from agent.config import MAX_TASK_TYPE_LENGTH
from agent.errors import Refusal
from agent.wire import (
    PATH_RULE,
    STOP_SIGNALS,
    TASK_ID_PATTERN,
    EnvVar,
    ErrorCode,
    ExitCodes,
    ExitReport,
    File,
    StepSpec,
    Work,
    folder_among,
    is_folder_path,
    is_path,
)

MAX_NAME_LENGTH = 512
NAME_PATTERN = "^[ -~]+$"
"""Printable ASCII: names stand in logs, and a pattern can say it."""
MAX_FENCE = 2**53
"""No agent gets there by itself. How far a worker's may be from the agent's own, `rules.recovery` says."""
MAX_SECONDS = 10 * 366 * 86400
"""Ten years: past it a time limit is a mistake, and dates overflow."""
MAX_FILE_MODE = 0o777
EXIT_CODES = range(-(2**31), 2**31)
"""What the status of a SlotTask can hold."""
MAX_REASON_LENGTH = 16384
"""Of why a step ended. Workers cut theirs far below."""
MAX_BEFORE = 16
"""Commands before a step's own."""

DIGEST_PATTERN = "^sha256:[0-9a-f]{64}$"
"""Of a plan: as an approval can name it."""

_DIGEST = re.compile(DIGEST_PATTERN)
_TASK_ID = re.compile(TASK_ID_PATTERN)
_PRINTABLE = re.compile(NAME_PATTERN)


def check_task_id(task_id: str) -> None:
    """Raises Refusal bad_request."""
    if not _TASK_ID.fullmatch(task_id):
        raise Refusal(ErrorCode.BAD_REQUEST, f"task_id: {task_id[:200]!r} does not match {TASK_ID_PATTERN}")


def check_task_type(task_type: str) -> None:
    """Raises Refusal bad_request."""
    if not 1 <= len(task_type) <= MAX_TASK_TYPE_LENGTH:
        raise Refusal(ErrorCode.BAD_REQUEST, f"task_type: must have 1 to {MAX_TASK_TYPE_LENGTH} characters")


def check_name(field: str, name: str) -> None:
    """A drain id, an instance: any short printable text. Raises Refusal bad_request."""
    if not 1 <= len(name) <= MAX_NAME_LENGTH or not _PRINTABLE.fullmatch(name):
        raise Refusal(ErrorCode.BAD_REQUEST, f"{field}: must be 1 to {MAX_NAME_LENGTH} printable ASCII characters")


def check_fence(fence: int) -> None:
    """The fence of a task that a worker kept. Raises Refusal bad_request."""
    if not 0 <= fence <= MAX_FENCE:
        raise Refusal(ErrorCode.BAD_REQUEST, f"fence: must be from 0 to {MAX_FENCE}")


def check_exit(report: ExitReport) -> None:
    """The end of a step, as a worker tells it. Raises Refusal bad_request.

    A task's code may have its slot's credential. An end that no status can hold would stay with the agent for ever.
    """
    if report.exit_code is not None and report.exit_code not in EXIT_CODES:
        raise Refusal(ErrorCode.BAD_REQUEST, "exit_code: must have 32 bits")
    if report.log_bytes < 0:
        raise Refusal(ErrorCode.BAD_REQUEST, "log_bytes: must not be negative")
    if report.reason is not None and len(report.reason) > MAX_REASON_LENGTH:
        raise Refusal(ErrorCode.BAD_REQUEST, f"reason: must have at most {MAX_REASON_LENGTH} characters")
    if report.plan_digest is not None and not _DIGEST.fullmatch(report.plan_digest):
        raise Refusal(ErrorCode.BAD_REQUEST, f"plan_digest: must match {DIGEST_PATTERN}")


def check_seconds(field: str, seconds: int | None) -> None:
    """Raises Refusal bad_request."""
    if seconds is not None and not 1 <= seconds <= MAX_SECONDS:
        raise Refusal(ErrorCode.BAD_REQUEST, f"{field}: must be from 1 to {MAX_SECONDS}")


def check_work(work: Work) -> None:
    """Raises Refusal invalid: the worker could not run this."""
    steps = [(name, step) for name in ("plan", "apply") if (step := getattr(work.steps, name)) is not None]
    if not steps:
        raise _invalid("steps", "needs a plan, an apply or both")
    for name, step in steps:
        _check_step(f"steps.{name}", step)
    if work.attempt < 1:
        raise _invalid("attempt", "must be at least 1")
    if not 1 <= len(work.name) <= MAX_NAME_LENGTH:
        raise _invalid("name", f"must have 1 to {MAX_NAME_LENGTH} characters")
    if not 1 <= work.reservation_ttl_seconds <= MAX_SECONDS:
        raise _invalid("reservation_ttl_seconds", f"must be from 1 to {MAX_SECONDS}")
    _check_files(work.files)
    if work.outputs_path is not None:
        _check_path("outputs_path", work.outputs_path)
    for variable in work.env:
        _check_variable(variable)
    for index, source in enumerate(work.env_from):
        if (source.secret is None) == (source.config_map is None):
            raise _invalid(f"env_from[{index}]", "must name a secret or a config_map")


def _check_step(field: str, step: StepSpec) -> None:
    _check_command(field, step.command, step.working_dir)
    if len(step.before) > MAX_BEFORE:
        raise _invalid(f"{field}.before", f"must have at most {MAX_BEFORE} commands")
    for index, before in enumerate(step.before):
        _check_command(f"{field}.before[{index}]", before.command, before.working_dir)
    if step.stop_signal not in STOP_SIGNALS:
        raise _invalid(f"{field}.stop_signal", f"must be one of {', '.join(STOP_SIGNALS)}")
    if step.exit_codes is not None:
        _check_exit_codes(f"{field}.exit_codes", step.exit_codes)
    if step.plan_file is not None:
        _check_path(f"{field}.plan_file", step.plan_file)
    if step.timeout_seconds is not None and not 1 <= step.timeout_seconds <= MAX_SECONDS:
        raise _invalid(f"{field}.timeout_seconds", f"must be from 1 to {MAX_SECONDS}")
    if not 0 <= step.cancel_grace_seconds <= MAX_SECONDS:
        raise _invalid(f"{field}.cancel_grace_seconds", f"must be from 0 to {MAX_SECONDS}")


def _check_command(field: str, command: tuple[str, ...], working_dir: str | None) -> None:
    if not command or not command[0]:
        raise _invalid(f"{field}.command", "must not be empty")
    if any("\0" in word for word in command):
        raise _invalid(f"{field}.command", "must not contain NUL")
    if working_dir is not None and not is_folder_path(working_dir):
        raise _invalid(f"{field}.working_dir", PATH_RULE)


def _check_exit_codes(field: str, codes: ExitCodes) -> None:
    if any(not 0 <= code <= 255 for code in (*codes.changed, *codes.unchanged)):  # noqa: PLR2004 - what a process has
        raise _invalid(field, "must be from 0 to 255")
    if set(codes.changed) & set(codes.unchanged):
        raise _invalid(field, "the same code can't say both")


def _check_files(files: Mapping[str, str | File]) -> None:
    for path, content in files.items():
        _check_file(f"files[{path[:100]!r}]", path, content)
    if (folder := folder_among(files)) is not None:
        raise _invalid(f"files[{folder[:100]!r}]", "is the folder of another file")


def _check_file(field: str, path: str, content: str | File) -> None:
    _check_path(field, path)
    if isinstance(content, str):
        return
    if (content.text is None) == (content.base64 is None):
        raise _invalid(field, "must have a text or base64")
    if not 0 <= content.mode <= MAX_FILE_MODE:
        raise _invalid(f"{field}.mode", "must be from 0 to 0777")
    if content.base64 is not None:
        try:
            binascii.a2b_base64(content.base64, strict_mode=True)
        except ValueError as error:
            raise _invalid(f"{field}.base64", f"is not valid base64: {error}") from None


def _check_path(field: str, path: str) -> None:
    if not is_path(path):
        raise _invalid(field, PATH_RULE)


def _check_variable(variable: EnvVar) -> None:
    field = f"env[{variable.name[:100]!r}]"
    if not variable.name or "=" in variable.name or "\0" in variable.name:
        raise _invalid(field, "is not a name for an environment variable")
    given = [value for value in (variable.value, variable.secret, variable.config_map) if value is not None]
    if len(given) > 1:
        raise _invalid(field, "must have one of value, secret, config_map")
    if variable.value is not None and "\0" in variable.value:
        raise _invalid(field, "must not contain NUL")


def _invalid(field: str, problem: str) -> Refusal:
    return Refusal(ErrorCode.INVALID, f"work.{field}: {problem}")
