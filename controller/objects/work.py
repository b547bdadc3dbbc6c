"""What of a SlotTask's spec a worker runs: steps, files and environment, parsed once.

Bounds and patterns are those of the definition, which needs a bound for everything; a test holds the two together.
"""

import binascii
import re
from collections.abc import Callable

from agent.wire import (
    PATH_RULE,
    STOP_SIGNALS,
    Command,
    EnvFrom,
    EnvVar,
    ExitCodes,
    File,
    KeyRef,
    Step,
    Steps,
    StepSpec,
    folder_among,
    is_folder_path,
    is_path,
)
from controller.errors import InvalidObject
from controller.objects.fields import Fields
from controller.objects.pool import MAX_NAME_LENGTH

STEPS_OF_TYPE = {"plan": {Step.PLAN}, "apply": {Step.APPLY}, "plan_and_apply": {Step.PLAN, Step.APPLY}}
"""The steps of the built-in types. Any other type has the steps it is given."""


MAX_FILES = 64
"""As in the definition. What the policy over a task's files costs grows with its square: see `agent.paths`."""

MAX_VARIABLES = 128
MAX_SOURCES = 32
MAX_TEXT_LENGTH = 32_768
MAX_WORDS = 256
MAX_BEFORE = 16
MAX_EXIT_CODES = 16
MAX_EXIT_CODE = 255
MAX_TIMEOUT_SECONDS = 365 * 86400
MAX_GRACE_SECONDS = 86400
MAX_MODE = 0o777

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_OCTAL = re.compile(r"0?[0-7]{3}")


def parse_steps(fields: Fields, task_type: str) -> Steps:
    """The steps, those that the type has. Raises InvalidObject."""
    plan, apply = (fields.optional_child(step) for step in Step)
    given = {step for step, child in zip(Step, (plan, apply), strict=True) if child}
    expected = STEPS_OF_TYPE.get(task_type, given)
    if given != expected or not given:
        wanted = " and ".join(sorted(expected, reverse=True)) or "a plan or an apply"
        raise InvalidObject(fields.path, f"a task of type {task_type!r} has {wanted}, and nothing else")
    return Steps(
        plan=_step(plan, Step.PLAN) if plan else None,
        apply=_step(apply, Step.APPLY) if apply else None,
    )


def _step(fields: Fields, step: Step) -> StepSpec:
    main = _command(fields)
    codes = fields.optional_child("exitCodes") if step is Step.PLAN else None
    return StepSpec(
        command=main.command,
        working_dir=main.working_dir,
        before=tuple(_command(item) for item in fields.children("before", most=MAX_BEFORE)),
        plan_file=_optional_task_path(fields, "planFile", is_path) if step is Step.PLAN else None,
        exit_codes=_exit_codes(codes) if codes else None,
        timeout_seconds=fields.optional_integer("timeoutSeconds", least=1, most=MAX_TIMEOUT_SECONDS),
        stop_signal=fields.choice("stopSignal", "SIGINT", STOP_SIGNALS),
        cancel_grace_seconds=fields.integer("cancelGraceSeconds", 60, most=MAX_GRACE_SECONDS),
    )


def _command(fields: Fields) -> Command:
    command = fields.texts("command", most=MAX_WORDS, longest=MAX_TEXT_LENGTH)
    if not command or not command[0]:
        raise fields.fail("command", "must name a program")
    return Command(command=command, working_dir=_optional_task_path(fields, "workingDir", is_folder_path))


def _optional_task_path(fields: Fields, name: str, fits: Callable[[str], bool]) -> str | None:
    """A path that the task may name; None if it names none. Raises InvalidObject."""
    return task_path(fields, name, fits) if fields.has(name) else None


def task_path(fields: Fields, name: str, fits: Callable[[str], bool]) -> str:
    """A path that the task has to name. Raises InvalidObject."""
    text = fields.text(name)
    if not fits(text):
        raise fields.fail(name, PATH_RULE)
    return text


def _exit_codes(fields: Fields) -> ExitCodes:
    codes = ExitCodes(changed=exit_codes(fields, "changed"), unchanged=exit_codes(fields, "unchanged"))
    if set(codes.changed) & set(codes.unchanged):
        raise InvalidObject(fields.path, "the same code can't say both")
    return codes


def exit_codes(fields: Fields, name: str, *, least: int = 0) -> tuple[int, ...]:
    """The exit codes of a list, each there once. Raises InvalidObject."""
    entries = fields.items(name, most=MAX_EXIT_CODES)
    for path, code in entries:
        if type(code) is not int or not least <= code <= MAX_EXIT_CODE:
            raise InvalidObject(path, f"must be an exit code from {least} to {MAX_EXIT_CODE}")
    codes = tuple(code for _, code in entries)
    if len(set(codes)) < len(codes):
        raise fields.fail(name, "names a code twice")
    return codes


def parse_files(spec: Fields) -> dict[str, str | File]:
    """The files by their paths. The definition can't look into them, so all of it is checked here."""
    given = spec.optional_child("files") or Fields({}, spec.at("files"))
    paths = [path for path in given.data if given.has(path)]
    if len(paths) > MAX_FILES:
        raise spec.fail("files", f"must have at most {MAX_FILES} entries")
    for path in paths:
        if not is_path(path):
            raise InvalidObject(f"{given.path}[{path[:100]}]", PATH_RULE)
    if (folder := folder_among(paths)) is not None:
        raise InvalidObject(f"{given.path}[{folder}]", "is the folder of another file")
    return {path: _file(given.data[path], f"{given.path}[{path}]") for path in paths}


def _file(content: object, path: str) -> str | File:
    if isinstance(content, str):
        return content
    if not isinstance(content, dict):
        raise InvalidObject(path, "must be a text, or an object with text or base64")
    fields = Fields(content, path)
    if unknown := sorted(set(content) - {"text", "base64", "mode"}):
        raise fields.fail(unknown[0], "is not known: there are text, base64 and mode")
    if fields.has("text") == fields.has("base64"):
        raise InvalidObject(path, "must have either text or base64")
    encoded = fields.optional_text("base64")
    if encoded is not None:
        try:
            binascii.a2b_base64(encoded, strict_mode=True)
        except ValueError as error:
            raise fields.fail("base64", f"is not valid base64: {error}") from error
    return File(text=fields.optional_text("text"), base64=encoded, mode=_mode(fields))


def _mode(fields: Fields) -> int:
    """A number as Pods' volumes have it, or its octal digits."""
    given = fields.data.get("mode")
    if isinstance(given, str) and _OCTAL.fullmatch(given):
        return int(given, 8)
    return fields.integer("mode", 0o644, most=MAX_MODE)


def parse_environment(spec: Fields) -> tuple[EnvVar, ...]:
    """The variables, each name there once. Raises InvalidObject."""
    children = spec.children("env", most=MAX_VARIABLES)
    variables = tuple(_env_var(child) for child in children)
    seen: set[str] = set()
    for child, variable in zip(children, variables, strict=True):
        if variable.name in seen:
            raise child.fail("name", f"{variable.name} is there twice")
        seen.add(variable.name)
    return variables


def _env_var(fields: Fields) -> EnvVar:
    name = fields.text("name", most=MAX_NAME_LENGTH, pattern=_VARIABLE)
    source = fields.optional_child("valueFrom")
    if source is None:
        return EnvVar(name=name, value=fields.text("value", "", most=MAX_TEXT_LENGTH))
    if fields.has("value"):
        raise fields.fail("valueFrom", "is given beside a value")
    secret, config_map = (source.optional_child(kind) for kind in ("secretKeyRef", "configMapKeyRef"))
    if (secret is None) == (config_map is None):
        raise InvalidObject(source.path, "must have either secretKeyRef or configMapKeyRef")
    return EnvVar(
        name=name,
        secret=_key_ref(secret) if secret else None,
        config_map=_key_ref(config_map) if config_map else None,
    )


def _key_ref(fields: Fields) -> KeyRef:
    return KeyRef(
        name=fields.text("name", most=MAX_NAME_LENGTH),
        key=fields.text("key", most=MAX_NAME_LENGTH),
        optional=fields.boolean("optional"),
    )


def parse_sources(spec: Fields) -> tuple[EnvFrom, ...]:
    """Secrets and ConfigMaps with all of their keys as variables. Raises InvalidObject."""
    return tuple(_env_from(item) for item in spec.children("envFrom", most=MAX_SOURCES))


def _env_from(fields: Fields) -> EnvFrom:
    secret, config_map = (fields.optional_child(kind) for kind in ("secretRef", "configMapRef"))
    source = secret or config_map
    if source is None or (secret is not None and config_map is not None):
        raise InvalidObject(fields.path, "must have either secretRef or configMapRef")
    return EnvFrom(
        prefix=fields.text("prefix", "", most=MAX_NAME_LENGTH),
        secret=secret.text("name", most=MAX_NAME_LENGTH) if secret else None,
        config_map=config_map.text("name", most=MAX_NAME_LENGTH) if config_map else None,
        optional=source.boolean("optional"),
    )
