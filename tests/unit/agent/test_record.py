"""Records look and behave like the dataclasses that type checkers take them for."""

import copy
import dataclasses
import inspect
import pickle
from typing import Any

import pytest

from agent import record, wire, work_messages
from agent.codec import decode, encode


def _both() -> tuple[Any, Any]:
    """One class body, made a record and a real dataclass."""
    made: list[Any] = []
    for decorator, field in ((record.dataclass, record.field), (dataclasses.dataclass, dataclasses.field)):

        class Sample:
            """A sample."""

            name: str
            size: int = 3
            labels: dict[str, str] = field(default_factory=dict)

            def double(self) -> int:
                return self.size * 2

        made.append(decorator(frozen=True, slots=True, kw_only=True)(Sample))
    return made[0], made[1]


@pytest.mark.parametrize(
    "look",
    [
        lambda kind: repr(kind(name="a")),
        lambda kind: kind(name="a", labels={"x": "y"}).double(),
        lambda kind: kind(name="a") == kind(name="a", size=3),
        lambda kind: kind(name="a") == kind(name="b"),
        lambda kind: kind(name="a") == "a",
        dataclasses.is_dataclass,
        lambda kind: dataclasses.asdict(kind(name="a", labels={"x": "y"})),
        lambda kind: dataclasses.replace(kind(name="a"), size=9).size,
        lambda kind: [(f.name, f.type, f.default is dataclasses.MISSING) for f in dataclasses.fields(kind)],
        lambda kind: str(inspect.signature(kind)).replace("<factory>", "_").split("labels")[0],
        lambda kind: kind.__init__.__annotations__,
        lambda kind: (kind.__slots__, kind.__match_args__, kind.__doc__, kind.__name__, kind.__module__),
        lambda kind: hasattr(kind(name="a"), "__dict__"),
        lambda kind: copy.copy(kind(name="a", size=4)).size,
        lambda kind: copy.deepcopy(kind(name="a", labels={"x": "y"})).labels,
    ],
)
def test_a_record_answers_as_a_dataclass_does(look: Any) -> None:
    of_record, of_dataclass = _both()
    assert look(of_record) == look(of_dataclass)


def test_a_record_is_frozen_hashable_and_strict_about_its_arguments() -> None:
    kind, _ = _both()
    value = kind(name="a")
    with pytest.raises(AttributeError):
        value.name = "b"
    with pytest.raises(AttributeError):
        del value.name
    with pytest.raises(TypeError):
        kind()
    with pytest.raises(TypeError):
        kind(name="a", other=1)
    assert kind(name="a").labels is not kind(name="a").labels
    exited = work_messages.StartedReport
    assert len({hash(work_messages.KeyRef(name="a", key="b")), hash(work_messages.KeyRef(name="a", key="b"))}) == 1
    assert exited.__slots__[0] == "instance"


def test_messages_survive_pickle_and_the_wire() -> None:
    work = work_messages.Work(
        name="ns/task", attempt=1, steps=work_messages.Steps(plan=work_messages.StepSpec(command=("true",)))
    )
    assert pickle.loads(pickle.dumps(work)) == work  # noqa: S301 - our own bytes
    assert decode(wire.Work, encode(work), strict=True) == work


def test_only_the_full_set_of_options_is_taken() -> None:
    with pytest.raises(TypeError):
        record.dataclass(frozen=True, slots=True, kw_only=False)
