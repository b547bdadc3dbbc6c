"""Quick dataclasses are dataclasses, but for the time that their values take to make."""

import copy
import dataclasses
from typing import Any

import pytest

from agent import wire
from agent.codec import decode, encode
from agent.quick import quick
from agent.rules import slots, state


@quick
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    name: str


@quick
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sample(Base):
    size: int = 3
    labels: dict[str, str] = dataclasses.field(default_factory=dict)


def test_values_are_what_they_were_made_from() -> None:
    one = Sample(name="a", labels={"x": "y"})
    assert dataclasses.asdict(one) == {"name": "a", "size": 3, "labels": {"x": "y"}}
    assert one == Sample(name="a", size=3, labels={"x": "y"}) != Sample(name="a")
    assert dataclasses.replace(one, size=4) == Sample(name="a", size=4, labels={"x": "y"})
    assert repr(one).endswith("Sample(name='a', size=3, labels={'x': 'y'})")
    assert copy.deepcopy(one) == one


def test_a_default_factory_makes_a_new_value_each_time() -> None:
    assert Sample(name="a").labels is not Sample(name="b").labels


def test_a_value_is_frozen() -> None:
    one = Sample(name="a")
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.size = 4  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del one.name


@pytest.mark.parametrize("given", [{}, {"name": "a", "colour": "red"}])
def test_a_field_that_is_missing_or_unknown_is_a_type_error(given: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Sample(**given)


def test_the_codec_reads_a_quick_class_as_any_other() -> None:
    one = Sample(name="a", size=5, labels={"x": "y"})
    assert decode(Sample, encode(one), strict=True) == one


@pytest.mark.parametrize(
    "kind",
    [
        *(state.Call, state.SlotEntry, state.State, slots.Acquire, slots.Hold),
        *(wire.AcquireRequest, wire.HoldRequest, wire.HoldAnswer),
    ],
)
def test_the_agents_own_have_every_field_in_its_place(kind: Any) -> None:
    given = {field.name: object() for field in dataclasses.fields(kind)}
    made = kind(**given)
    assert {name: getattr(made, name) for name in given} == given
