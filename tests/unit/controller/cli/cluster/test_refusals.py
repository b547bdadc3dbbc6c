"""What the API server refuses is said in one line, of fields that there are."""

import pytest

from controller.cli.cluster.refusals import in_words

NOTE = (
    "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the "
    "existing errors to complete validation"
)
QUOTED = NOTE.replace("null", '"null"')
WRONG = (
    'spec.steps.plan.command: Invalid value: "string": spec.steps.plan.command in body must be of type array: "string"'
)


@pytest.mark.parametrize("note", [NOTE, QUOTED])
def test_a_text_where_a_list_is_needed_is_said_so_and_nothing_else(note: str) -> None:
    said = in_words(f'SlotTask.podslots.dev "bad" is invalid: [{WRONG}, {note}]')
    assert said == (
        'SlotTask.podslots.dev "bad" is invalid: '
        "spec.steps.plan.command: a text, where a list is needed, as [terraform, plan]"
    )


def test_several_refusals_stay_several() -> None:
    said = in_words(f'SlotTask.podslots.dev "bad" is invalid: [spec.pool: Required value, {WRONG}, {NOTE}]')
    assert said.endswith(
        "is invalid: [spec.pool: Required value, "
        "spec.steps.plan.command: a text, where a list is needed, as [terraform, plan]]"
    )


@pytest.mark.parametrize("message", ['slotpools "x" not found', "spec.pool: Invalid value: 7: must be short", ""])
def test_other_words_stay_as_they_are(message: str) -> None:
    assert in_words(message) == message
