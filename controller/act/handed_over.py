"""What a task hands over: a file of its last step, put into a Secret for what comes after. It outlives the task."""

import base64
import re

from controller import names
from controller.errors import AlreadyExists, NotOurs
from controller.kube.api import SECRETS, Api, Object
from controller.objects.task import Task
from controller.objects.task_spec import HandedOver

_NO_KEY = re.compile(r"[^-._a-zA-Z0-9]")


class HandedOverFiles:
    """Writes the Secrets."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def store(self, task: Task, asked: HandedOver, content: bytes) -> None:
        """Create the Secret, or replace what is in it. Raises NotOurs, or ApiError if it is refused."""
        made = secret(task, asked, content)
        try:
            await self._api.create(SECRETS, task.namespace, made)
        except AlreadyExists:
            found = await self._api.get(SECRETS, task.namespace, asked.secret)
            await self._api.patch(SECRETS, task.namespace, asked.secret, replacing(found, made))


def key_of(path: str) -> str:
    """The key of the Secret: the file's name, in characters that keys may have."""
    return _NO_KEY.sub("_", path.rpartition("/")[2])


def secret(task: Task, asked: HandedOver, content: bytes) -> Object:
    """The Secret. Without an owner: it stays when the task goes."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": asked.secret,
            "namespace": task.namespace,
            "labels": {names.OUTPUTS_LABEL: "true"},
            "annotations": {names.OUTPUTS_TASK: task.name},
        },
        "data": {key_of(asked.path): base64.b64encode(content).decode()},
    }


def replacing(found: Object, made: Object) -> Object:
    """The patch that puts what was made into the Secret that is there. Raises NotOurs if podslots did not make that."""
    metadata = found["metadata"]
    if names.OUTPUTS_LABEL not in (metadata.get("labels") or {}):
        raise NotOurs(f"Secret {metadata['name']} is there, and was not made by podslots")
    return {
        "metadata": {
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "annotations": made["metadata"]["annotations"],
        },
        "data": {**dict.fromkeys(found.get("data") or {}), **made["data"]},
    }
