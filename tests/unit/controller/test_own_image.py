"""The agent's image is that of an init container of the controller's own Pod."""

import asyncio
from typing import Any

import pytest

from controller import own_image
from controller.config import Config
from controller.errors import ApiUnavailable
from controller.kube.api import PODS, Resource
from controller.own_image import NoAgentImageError, agent_image
from tests.support.memory_api import MemoryApi


def site(*init_containers: dict[str, str]) -> MemoryApi:
    api = MemoryApi()
    spec = {"initContainers": list(init_containers), "containers": [{"name": "controller", "image": "c:1"}]}
    api.put(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "ns", "name": "p"}, "spec": spec})
    return api


def test_it_is_read_from_its_own_pod_once_the_api_server_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_image, "RETRY_SECONDS", 0.0)
    api = site({"name": "other", "image": "o:1"}, {"name": "slot-agent", "image": "reg/agent@sha256:aa"})
    missed: list[int] = []

    async def absent_at_first(verb: str, resource: Resource, name: str) -> None:
        del verb, resource, name
        if len(missed) < 2:
            missed.append(1)
            raise ApiUnavailable("not there yet")

    api.before = absent_at_first
    assert asyncio.run(agent_image(api, "ns", "p")) == "reg/agent@sha256:aa"
    assert len(missed) == 2


def test_a_pod_that_does_not_say_it_is_an_error() -> None:
    with pytest.raises(NoAgentImageError, match="ns/p has no init container slot-agent"):
        asyncio.run(agent_image(site(), "ns", "p"))


@pytest.mark.parametrize(
    ("given", "image", "pod"),
    [
        ({}, "podslots/agent:latest", None),
        ({"POD_NAME": "p"}, "podslots/agent:latest", "p"),
        ({"POD_NAME": "p", "PODSLOTS_AGENT_IMAGE": "a:1"}, "a:1", None),
    ],
)
def test_an_image_that_is_set_is_taken(given: dict[str, Any], image: str, pod: str | None) -> None:
    config = Config.from_environ(given)
    assert (config.agent_image, config.image_pod) == (image, pod)
