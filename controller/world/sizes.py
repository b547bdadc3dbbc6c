"""What this leader decided on pools' sizes. The pools' status has it too, for the next leader.

But that write takes time, and the next pass does not wait for it.
"""

from controller.kube.api import Object
from controller.objects.scaling_history import ScalingHistory


class Sizes:
    """The history of each pool's size, by the pool's UID."""

    def __init__(self) -> None:
        self._known: dict[str, ScalingHistory] = {}

    def of(self, pool: Object) -> ScalingHistory:
        """What is known of a pool: by the last decision of this leader, else by its status."""
        known = self._known.get(pool["metadata"]["uid"])
        return ScalingHistory.of(pool) if known is None else known

    def note(self, pool_uid: str, history: ScalingHistory) -> None:
        """A size was decided on."""
        self._known[pool_uid] = history

    def forget(self, pool_uid: str) -> None:
        """The pool is gone."""
        self._known.pop(pool_uid, None)

    def forget_all(self) -> None:
        """Another one leads now: its decisions are in the status."""
        self._known.clear()
