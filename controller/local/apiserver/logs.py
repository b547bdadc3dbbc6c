"""`pods/log`: finds the container that is meant; the text comes from whoever runs it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from controller.local.apiserver import requests
from controller.local.apiserver.errors import ApiError, bad_request
from controller.local.apiserver.store.versions import Record
from controller.local.log_source import LogOptions


def parse(pod: Record, query: Mapping[str, str], now: datetime) -> LogOptions:
    """The options of a request, with the container it means. Raises BadRequest."""
    return LogOptions(
        container=_container(pod.body, query.get("container", ""), pod.name),
        follow=requests.is_true(query.get("follow", "")),
        previous=requests.is_true(query.get("previous", "")),
        timestamps=requests.is_true(query.get("timestamps", "")),
        tail_lines=requests.integer(query, "tailLines"),
        since=_since(query, now),
        limit_bytes=requests.integer(query, "limitBytes"),
    )


def _since(query: Mapping[str, str], now: datetime) -> float | None:
    seconds, time = requests.integer(query, "sinceSeconds"), query.get("sinceTime", "")
    if seconds is not None and time:
        raise bad_request("at most one of `sinceTime` or `sinceSeconds` may be specified")
    if seconds is not None:
        return now.timestamp() - seconds
    if not time:
        return None
    try:
        return datetime.fromisoformat(time).timestamp()
    except ValueError:
        raise bad_request(f'parsing time "{time}" as "2006-01-02T15:04:05Z07:00": cannot parse "{time}"') from None


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
