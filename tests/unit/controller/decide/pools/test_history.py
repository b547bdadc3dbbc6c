"""Of the templates that a pool had a few are kept, each once, under numbers that rise."""

from controller.decide.pools.history import history_step
from controller.objects.revision import Revision


def revisions(**numbers: int) -> list[Revision]:
    return [Revision(name=name, number=number, resource_version="1") for name, number in numbers.items()]


def test_the_first_template_is_revision_one() -> None:
    step = history_step([], "a", 5)
    assert (step.present, step.number, step.surplus) == (None, 1, ())


def test_a_new_template_comes_after_all_others() -> None:
    step = history_step(revisions(a=3, b=7), "c", 5)
    assert (step.present, step.number) == (None, 8)


def test_a_template_that_comes_back_gets_a_new_number() -> None:
    step = history_step(revisions(a=1, b=2), "a", 5)
    assert step.present is not None
    assert (step.present.number, step.number) == (1, 3)


def test_the_present_one_keeps_its_number() -> None:
    step = history_step(revisions(a=1, b=2), "b", 5)
    assert step.present is not None
    assert (step.number, step.surplus) == (step.present.number, ())


def test_the_oldest_go_and_the_present_one_stays() -> None:
    step = history_step(revisions(a=1, b=2, c=3, d=4), "a", 2)
    assert step.number == 5
    assert [revision.name for revision in step.surplus] == ["b"]
    alone = history_step(revisions(a=1, b=2, c=3), "c", 0)
    assert [revision.name for revision in alone.surplus] == ["a", "b"]
