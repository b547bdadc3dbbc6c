"""`pods/log`: finds the container that is meant; the text comes from whoever runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from controller.local import requests
from controller.local.errors import ApiError, bad_request
from controller.local.versions import Record


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Which part of a container's log is wanted."""

    container: str
    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    since_seconds: int | None = None
    limit_bytes: int | None = None


class LogUnavailableError(LookupError):
    """The container has no log to give; the text says why."""


class LogSource(Protocol):
    """Whoever runs the containers."""

    def stream(self, namespace: str, pod: str, pod_uid: str, options: LogOptions) -> AsyncIterator[bytes]:
        """The log in pieces; with `follow` until the container ends. Raises LogUnavailableError before the first."""


def parse(pod: Record, query: Mapping[str, str]) -> LogOptions:
    """The options of a request, with the container it means."""
    return LogOptions(
        container=_container(pod.body, query.get("container", ""), pod.name),
        follow=requests.is_true(query.get("follow", "")),
        previous=requests.is_true(query.get("previous", "")),
        timestamps=requests.is_true(query.get("timestamps", "")),
        tail_lines=requests.integer(query, "tailLines"),
        since_seconds=requests.integer(query, "sinceSeconds"),
        limit_bytes=requests.integer(query, "limitBytes"),
    )


def _container(body: Mapping[str, Any], asked: str, pod: str) -> str:
    spec = body["spec"]
    names = [container["name"] for container in spec.get("containers") or ()]
    init = [container["name"] for container in spec.get("initContainers") or ()]
    if asked:
        if asked not in names and asked not in init:
            raise bad_request(f"container {asked} is not valid for pod {pod}")
        return asked
    if len(names) == 1:
        return str(names[0])
    choices = f"choose one of: [{' '.join(names)}]"
    if init:
        choices += f" or one of the init containers: [{' '.join(init)}]"
    raise bad_request(f"a container name must be specified for pod {pod}, {choices}")


def unavailable(pod: str, why: str) -> ApiError:
    """400: as the real server when the kubelet has nothing."""
    return bad_request(f"{why} (pod {pod})")
