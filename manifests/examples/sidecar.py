"""Sidecar mode in Python, with the standard library alone: a program that takes a slot for each job, and gives it back.

    python sidecar.py COMMAND [ARGUMENT]...     # runs the command again and again, each time in a slot

Its Pod is deleted only while no slot is held. sidecar.yaml is the same in shell and curl.
"""

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import uuid
from http import HTTPStatus
from pathlib import Path
from typing import Any

URL = os.environ["PODSLOTS_URL"]
CREDENTIALS = Path(os.environ["PODSLOTS_CREDENTIAL_DIR"])
PAUSE_SECONDS = 1.0
stopping = threading.Event()


class RefusedError(Exception):
    """The agent said no: `no_free_slot`, `drained`, `closing`, and the like. Nothing has changed."""


def call(path: str, **body: object) -> dict[str, Any]:
    """One call of the agent; without a body it reads. What got no answer is sent again: the agent does it once."""
    authority = CREDENTIALS / "agent.crt"
    context = ssl.create_default_context(cafile=str(authority)) if authority.exists() else None
    token = (CREDENTIALS / "token").read_text().strip()
    request = urllib.request.Request(  # noqa: S310 - the agent's address, given by podslots
        f"{URL}{path}",
        data=json.dumps(body).encode() if body else None,
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as answer:  # noqa: S310
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            if error.code < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise RefusedError(json.load(error)["error"]) from None
        except (OSError, http.client.HTTPException):
            pass  # the agent restarts
        threading.Event().wait(PAUSE_SECONDS)


class Slot:
    """A slot that is held. Each answer has a new fence, which the next call has to name."""

    def __init__(self, task: str, number: int, fence: int) -> None:
        self.task, self.number, self._fence = task, number, fence

    @classmethod
    def acquire(cls, task_type: str) -> "Slot":
        """Take an idle slot that accepts the type. Raises RefusedError."""
        task = str(uuid.uuid4())
        taken = call("/slots/acquire", task_id=task, task_type=task_type)
        return cls(task, taken["slot"], taken["fence"])

    def reserve(self, seconds: int) -> None:
        """Wait for something, for so long at most: the slot is kept, and uses nothing."""
        self._change("reserve", ttl_seconds=seconds)

    def resume(self) -> None:
        """Go on. Raises RefusedError if the reservation has expired."""
        self._change("resume")

    def release(self) -> None:
        """Give the slot back."""
        self._change("release")

    def _change(self, transition: str, **more: object) -> None:
        answer = call(f"/slots/{self.number}/{transition}", task_id=self.task, fence=self._fence, **more)
        self._fence = answer["fence"]


def let_go_of_what_was_held() -> None:
    """What an earlier start of this program held when it was killed, or what the agent's disk forgot."""
    for slot in call("/slots")["slots"]:
        if slot["task_id"] or slot["recovering"]:
            Slot(slot["task_id"] or "none", slot["id"], slot["fence"]).release()


def main(command: list[str]) -> int:
    """Run the command in slots until SIGTERM. What runs then comes to its end: the agent waits for it."""
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    let_go_of_what_was_held()
    while not stopping.is_set():
        try:
            slot = Slot.acquire("job")
        except RefusedError:  # all are busy, or the Pod is about to go
            stopping.wait(PAUSE_SECONDS)
            continue
        try:
            subprocess.run(command, check=False)  # noqa: S603 - what the Pod's author wants run
        finally:
            slot.release()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
