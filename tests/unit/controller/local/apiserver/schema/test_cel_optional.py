"""Optional values in CEL: what cel-python's grammar lacks and Kubernetes' expressions use."""

from __future__ import annotations

from typing import Any

import pytest

from controller.local.apiserver.schema.cel import CelEvaluationError, compile_rule, untyped_to_cel
from controller.local.apiserver.schema.cel_optional import rewritten

OBJECT = {"a": {"b": {"c": 1}, "text": "x.?y[?z]"}, "list": [1, 2], "none": None}


def _evaluate(text: str) -> Any:
    return compile_rule(text).evaluate({"o": untyped_to_cel(OBJECT)})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("o.?a.b.c.orValue(7)", 1),
        ("o.?x.b.c.orValue(7)", 7),
        ("o.a.?x.orValue('d')", "d"),
        ("o.a[?'b'].c.orValue(0)", 1),
        ("o.list[?1].orValue(0)", 2),
        ("o.list[?5].orValue(0)", 0),
        ("o.?a.?b.hasValue()", True),
        ("o.?none.hasValue()", False),
        ("o.?x == o.?y", True),
        ("o.?a != o.?y", True),
        ("has(o.a) ? o.?a.text.orValue('') : 'n'", "x.?y[?z]"),
        ("o.?a.text.orValue('') == 'x.?y[?z]'", True),
        ("o.list.map(i, o.?x[?i].orValue(i))[1]", 2),
        ("has(o.?x.y)", False),
    ],
)
def test_an_expression_comes_to(text: str, expected: Any) -> None:
    assert _evaluate(text) == expected


def test_a_plain_selection_from_what_is_not_there_is_an_error() -> None:
    with pytest.raises(CelEvaluationError, match="no such key"):
        _evaluate("o.x == 1")


@pytest.mark.parametrize("text", ["'a.?b' == r'[?c]'", '"""a.?b""" == \'[?\'', "a ? [1] : [2]", "a?b:c"])
def test_strings_and_conditionals_stay_as_they_are(text: str) -> None:
    assert rewritten(text) == text
