"""For whom a write is meant: a message may come late, or to a Pod that has another one's address by now."""

from agent.errors import Refusal
from agent.rules.report import Facts
from agent.wire import ErrorCode, Stamp, Write


class Addressee:
    """This Pod, at this start of its agent, and the newest stamp that it has seen."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._stamp: tuple[int, int] | None = None

    def check(self, write: Write) -> None:
        """Whether a controller's write is meant for this agent now. A stamp that got this far counts as seen.

        Raises Refusal wrong_pod, restarted, stale.
        """
        self.check_address(write)
        if write.stamp is not None:
            self._check_stamp(write.stamp)

    def check_address(self, write: Write) -> None:
        """Whether a write is meant for this Pod and this start of its agent. Raises Refusal wrong_pod, restarted."""
        if write.pod_uid is not None and write.pod_uid != self.facts.pod_uid:
            raise Refusal(ErrorCode.WRONG_POD, f"this is Pod {self.facts.pod} with UID {self.facts.pod_uid}")
        if write.incarnation is not None and write.incarnation != self.facts.incarnation:
            raise Refusal(ErrorCode.RESTARTED, f"the agent has restarted; its incarnation is {self.facts.incarnation}")

    def _check_stamp(self, stamp: Stamp) -> None:
        pair = (stamp.term, stamp.counter)
        if self._stamp is not None and pair <= self._stamp:
            raise Refusal(ErrorCode.STALE, f"stamp {pair} is not above {self._stamp}")
        self._stamp = pair
