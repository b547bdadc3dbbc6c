"""What comes after the processes of a step's commands have ended, being stopped or not."""

from agent.worker.step.course import Course, Then


def ended(course: Course, *, well: bool = True) -> Course:
    course.ended(well=well)
    return course


def test_a_command_that_runs_is_waited_for() -> None:
    assert Course(2).then(alone=False) is Then.WAIT
    assert Course(2).then(alone=True) is Then.WAIT


def test_commands_run_one_after_the_other_as_long_as_each_ends_well() -> None:
    course = ended(Course(2))
    assert course.then(alone=True) is Then.NEXT
    course.begin_next()
    assert (course.command, course.then(alone=True)) == (1, Then.WAIT)
    assert ended(course).then(alone=True) is Then.END
    assert ended(Course(2), well=False).then(alone=True) is Then.END


def test_what_a_command_leaves_behind_is_cleared_away_before_anything_else() -> None:
    course = ended(Course(2))
    assert course.then(alone=False) is Then.CLEAR
    assert course.then(alone=True) is Then.NEXT


def test_what_is_left_of_a_step_that_is_being_stopped_is_waited_for_until_its_grace_is_over() -> None:
    course = Course(2)
    course.interrupt()
    assert ended(course).then(alone=False) is Then.WAIT
    course.kill()
    assert course.then(alone=False) is Then.CLEAR
    assert course.then(alone=True) is Then.END


def test_a_step_that_is_being_stopped_starts_no_other_command() -> None:
    """Even if it is told between two of them."""
    course = ended(Course(2))
    course.interrupt()
    assert course.then(alone=True) is Then.END
