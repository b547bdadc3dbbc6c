"""What is to be done about a pool's revisions: one for the present template, with the highest number, few before it."""

from collections.abc import Iterable
from dataclasses import dataclass

from controller.objects.revision import Revision


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryStep:
    """`present` is the revision of the present template, None if it is to be made. `number` is the one it is to have.

    `surplus` are those that go, the oldest first.
    """

    present: Revision | None
    number: int
    surplus: tuple[Revision, ...] = ()


def history_step(revisions: Iterable[Revision], present: str, limit: int) -> HistoryStep:
    """`present` names the revision of the present template; beside it, at most `limit` are kept.

    A template that comes back gets a new number, as that of a Deployment does: numbers say what came after what.
    """
    found = sorted(revisions, key=lambda revision: (revision.number, revision.name))
    known = next((revision for revision in found if revision.name == present), None)
    earlier = [revision for revision in found if revision.name != present]
    latest = earlier[-1].number if earlier else 0
    number = known.number if known is not None and known.number > latest else latest + 1
    surplus = earlier[: max(0, len(earlier) - limit)]
    return HistoryStep(present=known, number=number, surplus=tuple(surplus))
