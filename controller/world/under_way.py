"""Operations in flight, as decisions need to know them. Derived from what was started: nothing to reconcile."""

from collections import Counter, defaultdict
from collections.abc import Callable

from controller.decide.view import PodOperation
from controller.world.index import Key


class UnderWay:
    """`on_pod_changed(pod_uid)` is called where what is under way with a Pod has changed."""

    def __init__(self) -> None:
        self.creating: dict[Key, set[str]] = defaultdict(set)
        """Names of Pods whose creation is under way, by pool."""
        self.dispatching: dict[str, str] = {}
        """UID of the Pod that a task is being given to, by the task's UID."""
        self.on_pod_changed: Callable[[str], None] = lambda _: None
        self._pods: dict[str, PodOperation] = {}
        self._taken: set[str] = set()
        self._dispatches: Counter[str] = Counter()

    def with_pod(self, pod_uid: str) -> PodOperation | None:
        """What is under way with a Pod."""
        if (operation := self._pods.get(pod_uid)) is not None:
            return operation
        return PodOperation.DISPATCH if self._dispatches[pod_uid] else None

    def begin(self, pod_uid: str, operation: PodOperation) -> None:
        """An operation on a Pod has begun."""
        self._pods[pod_uid] = operation
        if operation is PodOperation.REMOVE:
            self._taken.add(pod_uid)
        self.on_pod_changed(pod_uid)

    def end(self, pod_uid: str) -> None:
        """It has ended, however."""
        if self._pods.pop(pod_uid, None) is not None:
            self.on_pod_changed(pod_uid)

    def was_taken(self, pod_uid: str) -> bool:
        """Whether this controller was about to remove a Pod that is gone now. To be asked once.

        The API server may have answered with the Pod, which went a moment later.
        """
        taken = pod_uid in self._taken
        self._taken.discard(pod_uid)
        return taken

    def dispatch(self, task_uid: str, pod_uid: str) -> None:
        """A task is being given to a Pod."""
        self.dispatching[task_uid] = pod_uid
        self._dispatches[pod_uid] += 1
        self.on_pod_changed(pod_uid)

    def dispatched(self, task_uid: str) -> None:
        """What was under way with a task has ended, however."""
        pod_uid = self.dispatching.pop(task_uid, None)
        if pod_uid is not None:
            self._dispatches[pod_uid] -= 1
            if not self._dispatches[pod_uid]:
                del self._dispatches[pod_uid]
            self.on_pod_changed(pod_uid)
