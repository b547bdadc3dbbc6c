"""Which image the controller puts into Pods as the agent's: that of a container of its own Pod.

So everything that rewrites images reaches the agent's too: kustomize's `images`, a mirror's admission webhook, a list
of the images that a cluster needs. None of them would see an image in a variable.
"""

import asyncio
import logging

from controller.errors import ApiUnavailable, PodslotsError
from controller.kube.api import PODS, Api
from controller.names import AGENT_CONTAINER

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0


class NoAgentImageError(PodslotsError):
    """The controller's own Pod does not say which image the agent has."""


async def agent_image(api: Api, namespace: str, pod: str) -> str:
    """The image of this Pod's init container `slot-agent`. Waits for the API server.

    Raises NoAgentImageError if there is none, ApiError if the Pod may not be read.
    """
    while True:
        try:
            found = await api.get(PODS, namespace, pod)
        except ApiUnavailable as error:
            log.warning("own pod not read", extra={"error": str(error)})
            await asyncio.sleep(RETRY_SECONDS)
            continue
        for container in found["spec"].get("initContainers") or []:
            if container["name"] == AGENT_CONTAINER:
                return str(container["image"])
        raise NoAgentImageError(f"Pod {namespace}/{pod} has no init container {AGENT_CONTAINER}, whose image to take")
