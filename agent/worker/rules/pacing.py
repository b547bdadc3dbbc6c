"""One line to the agent: the request under way on it, and when the next may go out."""

from agent.worker.rules.ports import Clock, Jitter, Request

FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 2.0


class Line:
    """Paces one channel. Retries never end, and back off to LAST_RETRY_SECONDS, jittered."""

    def __init__(self, clock: Clock, jitter: Jitter) -> None:
        self._clock = clock
        self._jitter = jitter
        self._under_way: Request | None = None
        self._sent_at = 0.0
        self._not_before = 0.0
        self._failures = 0
        self._problem = ""

    @property
    def free(self) -> bool:
        """Whether a request may go out now."""
        return self._under_way is None and self._clock.monotonic() >= self._not_before

    @property
    def free_at(self) -> float | None:
        """When the next may go out; None while one is under way."""
        return self._not_before if self._under_way is None else None

    @property
    def age_seconds(self) -> float:
        """How long ago the last request went out."""
        return self._clock.monotonic() - self._sent_at

    def sent(self, request: Request) -> None:
        """A request goes out."""
        self._under_way = request
        self._sent_at = self._clock.monotonic()

    def done(self) -> Request:
        """Take the request that was under way: its answer, or the lack of one, is known."""
        if self._under_way is None:
            raise RuntimeError("an answer came, but no request was under way")
        request, self._under_way = self._under_way, None
        return request

    def healthy(self) -> None:
        """The next failure starts from the shortest delay, and is logged."""
        self._failures = 0
        self._problem = ""

    def is_news(self, problem: str) -> bool:
        """Whether to log this failure. A failure that repeats is logged once."""
        known, self._problem = self._problem, problem
        return known != problem

    def back_off(self) -> None:
        """Wait longer than the last time."""
        delay = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(self._failures, 10))
        self._failures += 1
        self.pause(self._jitter(delay))

    def pause(self, seconds: float) -> None:
        """Nothing goes out for that long."""
        self._not_before = self._clock.monotonic() + seconds
