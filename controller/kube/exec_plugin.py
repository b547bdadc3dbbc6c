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


def run(spec: Mapping[str, Any], folder: Path, cluster: Mapping[str, Any]) -> Credential:
    """Run the plugin of `spec`. Its relative path is of `folder`. Raises NoConfiguration."""
    version, command = spec.get("apiVersion"), spec.get("command")
    if version not in VERSIONS:
        raise NoConfiguration(f"kubeconfig: exec has apiVersion {version!r}; known are {' and '.join(VERSIONS)}")
    if not isinstance(command, str) or not command:
        raise NoConfiguration("kubeconfig: exec names no command")
    interactive = _interactive(spec, command)
    # As client-go: a name is looked for in the PATH, a relative path in the kubeconfig's folder.
    program = str(folder / command) if os.sep in command else command
    try:
        ran = subprocess.run(  # noqa: S603 - the kubeconfig names the program to run
            [program, *map(str, spec.get("args") or ())],
            env={**os.environ, **_variables(spec), "KUBERNETES_EXEC_INFO": _info(spec, cluster, interactive)},
            stdin=None if interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=None if interactive else TIMEOUT_SECONDS,
            check=False,
        )
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


def _variables(spec: Mapping[str, Any]) -> dict[str, str]:
    return {str(entry["name"]): str(entry["value"]) for entry in spec.get("env") or ()}


def _info(spec: Mapping[str, Any], cluster: Mapping[str, Any], interactive: bool) -> str:
    wanted: dict[str, Any] = {"interactive": interactive}
    if spec.get("provideClusterInfo"):
        told = ("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data", "proxy-url")
        wanted["cluster"] = {key: cluster[key] for key in told if cluster.get(key)}
    return json.dumps({"apiVersion": spec["apiVersion"], "kind": "ExecCredential", "spec": wanted})


def _credential(output: bytes, command: str, version: str) -> Credential:
    try:
        document = json.loads(output)
        status = document["status"]
        if document["apiVersion"] != version:
            raise NoConfiguration(f"the credential plugin {command} answers in {document['apiVersion']}, not {version}")
        expires = status.get("expirationTimestamp")
        found = Credential(
            token=status.get("token"),
            certificate=status.get("clientCertificateData"),
            key=status.get("clientKeyData"),
            expires=datetime.fromisoformat(expires) if expires else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoConfiguration(f"the credential plugin {command} did not print an ExecCredential") from error
    if not found.token and not (found.certificate and found.key):
        raise NoConfiguration(f"the credential plugin {command} gave neither a token nor a certificate with its key")
    return found
