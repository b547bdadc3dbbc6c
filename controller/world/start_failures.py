"""Pods that went, or can't start, before they were ever opened: how often in a row, and when the next one may be made.

One back-off for each pool and template, over all ways to fail: refused by its node, ended, deleted by somebody, unable
to start for a while. It doubles from seconds to minutes, and is over once a Pod of that template opens. Failures of one
wave, that come before the pause is over, count once.
"""

from dataclasses import dataclass, field

from controller.decide.start_problem import StartProblem

FIRST_SECONDS = 5.0
LONGEST_SECONDS = 300.0
MOST_REMEMBERED = 1024
"""How many UIDs of failed Pods are kept, so that no Pod is counted twice."""

Template = tuple[str, str]
"""UID of a pool, and the hash of the template that a Pod was made from."""


@dataclass(slots=True)
class _Row:
    problem: StartProblem
    count: int = 0
    until: float = 0.0
    counted: dict[str, None] = field(default_factory=dict)


class StartFailures:
    """Times are the loop's, in seconds."""

    def __init__(self) -> None:
        self._rows: dict[Template, _Row] = {}
        self._started: dict[str, str] = {}
        """Of each pool the template of which a Pod was opened last."""

    def failed(self, template: Template, pod_uid: str, problem: StartProblem, now: float) -> bool:
        """A Pod failed before it was opened. False if that was known."""
        row = self._rows.setdefault(template, _Row(problem))
        if pod_uid in row.counted:
            return False
        row.counted[pod_uid] = None
        if self._started.get(template[0]) == template[1]:
            del self._started[template[0]]
        if len(row.counted) > MOST_REMEMBERED:
            del row.counted[next(iter(row.counted))]
        row.problem = problem
        if now >= row.until:
            row.count += 1
            row.until = now + min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(row.count - 1, 10))
        return True

    def opened(self, template: Template) -> None:
        """A Pod of that template takes work: the row is over."""
        self._rows.pop(template, None)
        self._started[template[0]] = template[1]

    def has_started(self, template: Template) -> bool:
        """Whether a Pod of that template was opened since this controller started, and none of another one since."""
        return self._started.get(template[0]) == template[1]

    def forget(self, pool_uid: str) -> None:
        """The pool is gone."""
        self._started.pop(pool_uid, None)
        for template in [template for template in self._rows if template[0] == pool_uid]:
            del self._rows[template]

    def wait_seconds(self, template: Template, now: float) -> float:
        """How long until another Pod may be made; 0 if one may be now."""
        row = self._rows.get(template)
        return max(0.0, row.until - now) if row is not None else 0.0

    def problem(self, template: Template) -> StartProblem | None:
        """Why Pods of that template do not start; None if they do, as far as is known."""
        row = self._rows.get(template)
        return row.problem if row is not None else None
