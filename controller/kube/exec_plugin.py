"""Runs a kubeconfig's credential plugin (`exec`), as client-go does.

The protocol: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from controller.errors import NoConfiguration

TIMEOUT_SECONDS = 60.0
"""For a plugin that can't ask anybody anything. One that can may take as long as its person does."""
VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What a plugin gave: a token, or a certificate with its key, or both. `expires` None: it does not say."""

    token: str | None = field(default=None, repr=False)
    certificate: str | None = None
    key: str | None = field(default=None, repr=False)
    expires: datetime | None = None


def run(spec: Any, folder: Path, cluster: Mapping[str, Any]) -> Credential:
    """Run the plugin of `spec`. Its relative path is of `folder`. Raises NoConfiguration."""
    if not isinstance(spec, Mapping):
        raise NoConfiguration("kubeconfig: exec is not a mapping")
    version, command = spec.get("apiVersion"), spec.get("command")
    if version not in VERSIONS:
        raise NoConfiguration(f"kubeconfig: exec has apiVersion {version!r}; known are {' and '.join(VERSIONS)}")
    if not isinstance(command, str) or not command:
        raise NoConfiguration("kubeconfig: exec names no command")
    arguments, variables = _arguments(spec), _variables(spec)
    interactive = _interactive(spec, command)
    # As client-go: a name is looked for in the PATH, a relative path in the kubeconfig's folder.
    program = str(folder / command) if os.sep in command else command
    try:
        ran = subprocess.run(  # noqa: S603 - the kubeconfig names the program to run
            [program, *arguments],
            env={**os.environ, **variables, "KUBERNETES_EXEC_INFO": _info(spec, cluster, interactive)},
            stdin=None if interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=None if interactive else TIMEOUT_SECONDS,
            check=False,
        )
    except ValueError as error:  # a NUL somewhere, or a `=` in the name of a variable
        raise NoConfiguration(f"the credential plugin {command!r} can't be run: {error}") from error
    except OSError as error:
        hint = f"\n{spec['installHint']}" if spec.get("installHint") else ""
        raise NoConfiguration(f"the credential plugin {command} can't be run: {error.strerror}{hint}") from error
    except subprocess.TimeoutExpired as error:
        raise NoConfiguration(f"the credential plugin {command} took longer than {TIMEOUT_SECONDS:g} s") from error
    if ran.returncode:
        raise NoConfiguration(f"the credential plugin {command} ended with {ran.returncode}")
    return _credential(ran.stdout, command, str(version))


def _interactive(spec: Mapping[str, Any], command: str) -> bool:
    """Whether the plugin may ask the person at the terminal."""
    mode, terminal = spec.get("interactiveMode") or "IfAvailable", sys.stdin is not None and sys.stdin.isatty()
    if mode == "Always" and not terminal:
        raise NoConfiguration(f"the credential plugin {command} has to ask somebody, and there is no terminal")
    return terminal and mode != "Never"


def _arguments(spec: Mapping[str, Any]) -> list[str]:
    given = spec.get("args") or []
    if not isinstance(given, list):
        raise NoConfiguration("kubeconfig: exec.args is not a list")
    return list(map(str, given))


def _variables(spec: Mapping[str, Any]) -> dict[str, str]:
    given = spec.get("env") or []
    if not isinstance(given, list) or not all(isinstance(entry, Mapping) and entry.get("name") for entry in given):
        raise NoConfiguration("kubeconfig: exec.env is not a list of mappings with a name and a value")
    return {str(entry["name"]): str(entry.get("value") or "") for entry in given}


def _info(spec: Mapping[str, Any], cluster: Mapping[str, Any], interactive: bool) -> str:
    wanted: dict[str, Any] = {"interactive": interactive}
    if spec.get("provideClusterInfo"):
        told = ("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data", "proxy-url")
        wanted["cluster"] = {key: cluster[key] for key in told if cluster.get(key)}
    return json.dumps({"apiVersion": spec["apiVersion"], "kind": "ExecCredential", "spec": wanted})


def _text(status: Mapping[str, Any], key: str) -> str | None:
    value = status.get(key)
    if not isinstance(value, str | None):
        raise TypeError(key)
    return value


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(text)
    return moment


def _credential(output: bytes, command: str, version: str) -> Credential:
    try:
        document = json.loads(output)
        status = document["status"]
        if document["apiVersion"] != version:
            raise NoConfiguration(f"the credential plugin {command} answers in {document['apiVersion']}, not {version}")
        expires = status.get("expirationTimestamp")
        found = Credential(
            token=_text(status, "token"),
            certificate=_text(status, "clientCertificateData"),
            key=_text(status, "clientKeyData"),
            expires=_moment(expires) if expires else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NoConfiguration(f"the credential plugin {command} did not print an ExecCredential") from error
    if not found.token and not (found.certificate and found.key):
        raise NoConfiguration(f"the credential plugin {command} gave neither a token nor a certificate with its key")
    return found
