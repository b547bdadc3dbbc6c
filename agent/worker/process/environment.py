"""The environment of a task's command: what the container has, the task's own variables, and what its spec adds.

Pure: Secrets and ConfigMaps are read through `Mounts`.
"""

from collections.abc import Mapping
from typing import Protocol

from agent.work_messages import Assignment, EnvFrom, EnvVar, KeyRef, Work
from agent.worker.errors import StepRefusedError
from agent.worker.process.temporary import is_short

BASE = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
"""What a command finds if the image says nothing."""

HIDDEN_PREFIX = "PODSLOTS_CREDENTIAL_"
SECRET_VARIABLES = "PODSLOTS_SECRET_VARIABLES"  # noqa: S105 - the name of a variable
"""Names the container's variables that come from Secrets, with commas between them."""
SECRET_COPIES = f"{HIDDEN_PREFIX}FROM_SECRET_"
"""Begins the name of a second copy of each variable that the container has from a Secret by `envFrom`.

The place in that list and the Secret's key follow. Which keys there are, only the Pod's node knows. Tasks do not see
the copies.
"""
RUN_ID = "PODSLOTS_RUN_ID"
"""Marks the processes of one run of a step, so that a later worker can tell them from all others."""


class Mounts(Protocol):
    """The Secrets, or the ConfigMaps, that are mounted into the container."""

    def keys(self, name: str) -> list[str] | None:
        """The keys of one of them; None if it isn't mounted."""

    def read(self, name: str, key: str) -> str | None:
        """One value; None if there is no such key."""


def container_environment(environ: Mapping[str, str], usual_home: str | None = None) -> dict[str, str]:
    """Which variables of the worker's own environment commands may see.

    `usual_home` is the HOME that container runtimes fill in where neither the image nor the Pod says one: the user's of
    /etc/passwd. It does not count as a HOME that somebody chose: the tasks of a slot would share it. If TMPDIR is too
    long for a socket in it, each task gets its own.
    """
    seen = {name: value for name, value in environ.items() if not name.startswith(HIDDEN_PREFIX)}
    if "HOME" in seen and seen["HOME"] in {usual_home, "/", ""}:
        del seen["HOME"]
    if not is_short(seen.get("TMPDIR", "")):
        del seen["TMPDIR"]
    return seen


def usual_home(user_id: int, users_file: str = "/etc/passwd") -> str | None:
    """The home of a user, as runtimes look it up. By hand: the container may have no C library that could."""
    try:
        with open(users_file, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                fields = line.rstrip("\n").split(":")
                if len(fields) > 6 and fields[2] == str(user_id):  # noqa: PLR2004 - the fields of passwd(5)
                    return fields[5]
    except OSError:
        return None
    return None


def secret_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The values in the worker's own environment that come from Secrets, each with a name for people."""
    names = environ.get(SECRET_VARIABLES, "").split(",")
    found = {name: environ[name] for name in names if name in environ}
    for name, value in environ.items():
        if name.startswith(SECRET_COPIES):
            place, _, key = name.removeprefix(SECRET_COPIES).partition("_")
            found[f"envFrom[{place}]/{key}"] = value
    return found


def resolve(
    assignment: Assignment,
    *,
    container: Mapping[str, str],
    secrets: Mounts,
    config_maps: Mounts,
    directory: str,
    temporary: str,
    slot: int,
) -> dict[str, str]:
    """The whole environment of the step's command. Raises StepRefusedError if a reference leads nowhere."""
    work = assignment.work
    # HOME and TMPDIR that the image or the pool's author set stand.
    result = {**BASE, "TMPDIR": temporary, "HOME": directory, **container}
    result |= {
        "PWD": directory,
        "PODSLOTS_TASK": work.name,
        "PODSLOTS_TASK_ID": assignment.task_id,
        "PODSLOTS_STEP": assignment.step.value,
        "PODSLOTS_ATTEMPT": str(work.attempt),
        "PODSLOTS_SLOT": str(slot),
    }
    for source in work.env_from:
        result |= _from_source(source, secrets, config_maps)
    for variable in work.env:
        value = _from_variable(variable, secrets, config_maps)
        if value is not None:
            result[variable.name] = value
    for name, value in result.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise StepRefusedError(f"environment variable {name!r} can't be set: a name or value no process can have")
    return result


def of_config_maps(work: Work, config_maps: Mounts) -> dict[str, str]:
    """The variables that the task takes from ConfigMaps, as these are now. What can't be found is left out.

    Raises StepRefusedError if one can't be read.
    """
    result: dict[str, str] = {}
    for source in work.env_from:
        if source.config_map is not None:
            result |= _from_source(
                EnvFrom(config_map=source.config_map, prefix=source.prefix, optional=True), config_maps, config_maps
            )
    for variable in work.env:
        if (reference := variable.config_map) is not None:
            there_or_not = KeyRef(name=reference.name, key=reference.key, optional=True)
            value = _from_key("ConfigMap", variable.name, there_or_not, config_maps)
            result |= {} if value is None else {variable.name: value}
    return result


def _from_source(source: EnvFrom, secrets: Mounts, config_maps: Mounts) -> dict[str, str]:
    if source.secret is not None:
        kind, mounts, name = "Secret", secrets, source.secret
    elif source.config_map is not None:
        kind, mounts, name = "ConfigMap", config_maps, source.config_map
    else:
        raise StepRefusedError("envFrom names neither a Secret nor a ConfigMap")
    keys = mounts.keys(name)
    if keys is None:
        if source.optional:
            return {}
        raise StepRefusedError(f"{kind} {name} of envFrom is not mounted into this worker")
    values = {key: mounts.read(name, key) for key in keys}
    return {source.prefix + key: value for key, value in values.items() if value is not None}


def _from_variable(variable: EnvVar, secrets: Mounts, config_maps: Mounts) -> str | None:
    """Its value; None if an optional reference leads nowhere."""
    if variable.secret is not None:
        return _from_key("Secret", variable.name, variable.secret, secrets)
    if variable.config_map is not None:
        return _from_key("ConfigMap", variable.name, variable.config_map, config_maps)
    return variable.value or ""


def _from_key(kind: str, variable: str, reference: KeyRef, mounts: Mounts) -> str | None:
    value = mounts.read(reference.name, reference.key) if mounts.keys(reference.name) is not None else None
    if value is None and not reference.optional:
        missing = "has no such key" if mounts.keys(reference.name) is not None else "is not mounted into this worker"
        raise StepRefusedError(f"{variable} refers to key {reference.key} of {kind} {reference.name}, which {missing}")
    return value
