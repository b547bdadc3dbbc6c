"""Counts the calls of agents, by call and by what was answered, on their way to the transport."""

from collections.abc import AsyncGenerator, Callable

from controller.agents.tls import PodTls
from controller.agents.transport import Transport
from controller.errors import AgentRefused, AgentUnreachable

NO_ANSWER = "none"
CALLS = ("slots", "watch", "acquire", "open", "drain", "task", "log", "outputs", "approve", "cancel", "ack")
"""What a controller asks of agents."""
OTHER = "other"

Observe = Callable[[str, str], None]
"""Told of a call and the status of its answer."""


class Counted:
    """`Transport` that counts. No name in a path becomes a label."""

    def __init__(self, transport: Transport, observe: Observe) -> None:
        self._transport = transport
        self._observe = observe

    @staticmethod
    def each(transports: Callable[[str, PodTls], Transport], observe: Observe) -> Callable[[str, PodTls], Transport]:
        """The same for every transport that a function gives."""
        return lambda namespace, tls: Counted(transports(namespace, tls), observe)

    async def request(
        self, method: str, url: str, *, headers: dict[str, str], body: bytes | None, timeout_seconds: float
    ) -> tuple[int, bytes]:
        """As `Transport.request`; its duration and outcome are observed."""
        try:
            status, answer = await self._transport.request(
                method, url, headers=headers, body=body, timeout_seconds=timeout_seconds
            )
        except AgentUnreachable:
            self._observe(call_of(url), NO_ANSWER)
            raise
        self._observe(call_of(url), str(status))
        return status, answer

    async def stream(
        self, url: str, *, headers: dict[str, str], idle_timeout_seconds: float
    ) -> AsyncGenerator[bytes, None]:
        """The lines of a GET, as they come. It is counted once: as it begins, or as it fails to."""
        stream = self._transport.stream(url, headers=headers, idle_timeout_seconds=idle_timeout_seconds)
        begun = False
        try:
            async for line in stream:
                if not begun:
                    begun = True
                    self._observe("watch", "200")
                yield line
        except (AgentUnreachable, AgentRefused) as error:
            if not begun:
                self._observe("watch", str(error.status) if isinstance(error, AgentRefused) else NO_ANSWER)
            raise
        finally:
            if close := getattr(stream, "aclose", None):
                await close()


def call_of(url: str) -> str:
    """What a request is counted as: `/tasks/{id}/ack` is an `ack`, `/tasks/{id}` a `task`."""
    path = url.partition("://")[2].partition("?")[0].split("/")[1:]
    match path:
        case ["tasks", _]:
            return "task"
        case ["slots"] | ["open"] | ["drain"] | ["slots", "acquire"] | ["tasks", _, _] if path[-1] in CALLS:
            return path[-1]
    return OTHER
