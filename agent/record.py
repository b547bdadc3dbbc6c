"""`dataclass(frozen=True, slots=True, kw_only=True)`, made cheap for the worker.

`dataclasses` imports inspect, and with it ast, dis and tokenize: 10 ms and 2 MiB. It then compiles six methods for each
class, 0.7 ms. The worker may take four times the start of a bare interpreter, about 50 ms, and twice its memory, so
that was half of what it has. Here a class gets one compiled method, `__init__`; the others are shared functions.

Type checkers are told that these are the real thing (see `agent.work_messages`), and so it looks from outside:
equality, repr, hash, `dataclasses.replace`, `fields` and `asdict` work; a test compares them with a real dataclass.
Standard library only.
"""

from collections.abc import Callable
from typing import Any

_FACTORY = object()


class _Field:
    """A default that is made anew for each value."""

    def __init__(self, default_factory: Callable[[], Any]) -> None:
        self.default_factory = default_factory


def field(*, default_factory: Callable[[], Any]) -> Any:
    """A field whose default is what `default_factory` returns."""
    return _Field(default_factory)


class FrozenRecordError(AttributeError):
    """A field of a record was assigned to or deleted."""


def dataclass(*, frozen: bool, slots: bool, kw_only: bool) -> Callable[[type], type]:
    """Make a class a record. The three arguments must be true; classes can't be inherited from."""
    if not (frozen and slots and kw_only):
        raise TypeError("a record is frozen, has slots and takes keywords only")
    return _record


def _record(cls: type) -> type:
    annotations: dict[str, Any] = vars(cls).get("__annotations__", {})
    body = {name: value for name, value in vars(cls).items() if name not in {"__dict__", "__weakref__"}}
    defaults = {name: body.pop(name) for name in annotations if name in body}
    body |= _SHARED
    body["__slots__"] = tuple(annotations)
    body["__qualname__"] = cls.__qualname__
    body["__init__"] = _initialiser(cls, annotations, defaults)
    body["__dataclass_fields__"] = _LazyFields(annotations, defaults)
    return type(cls)(cls.__name__, cls.__bases__, body)


def _initialiser(cls: type, annotations: dict[str, Any], defaults: dict[str, Any]) -> Any:
    parameters = ", ".join(f"{name}=None" if name in defaults else name for name in annotations)
    lines = [f"def __init__(self{', *, ' if parameters else ''}{parameters}):"]
    for name in annotations:
        made = isinstance(defaults.get(name), _Field)
        value = f"_factories[{name!r}]() if {name} is _missing else {name}" if made else name
        lines.append(f" _set(self, {name!r}, {value})")
    lines.append(" return None")
    factories = {name: value.default_factory for name, value in defaults.items() if isinstance(value, _Field)}
    names: dict[str, Any] = {"_set": object.__setattr__, "_missing": _FACTORY, "_factories": factories}
    exec("\n".join(lines), names)  # noqa: S102 - names of fields written in this package, as dataclasses does it
    made_init = names["__init__"]
    made_init.__kwdefaults__ = {
        name: _FACTORY if isinstance(value, _Field) else value for name, value in defaults.items()
    } or None
    made_init.__annotations__ = {**annotations, "return": None}
    made_init.__qualname__ = f"{cls.__qualname__}.__init__"
    made_init.__module__ = cls.__module__
    return made_init


def _values(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, name) for name in self.__slots__)


def _equal(self: Any, other: object) -> Any:
    return _values(self) == _values(other) if other.__class__ is self.__class__ else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


def _repr(self: Any) -> str:
    pairs = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
    return f"{self.__class__.__qualname__}({pairs})"


def _refuse(self: Any, name: str, value: object = None) -> None:
    del self, value
    raise FrozenRecordError(f"cannot assign to or delete field {name!r}")


def _state(self: Any) -> list[Any]:
    return list(_values(self))


def _restore(self: Any, state: list[Any]) -> None:
    for name, value in zip(self.__slots__, state, strict=True):
        object.__setattr__(self, name, value)


_SHARED: dict[str, Any] = {
    "__eq__": _equal,
    "__hash__": _hash,
    "__repr__": _repr,
    "__setattr__": _refuse,
    "__delattr__": _refuse,
    "__getstate__": _state,
    "__setstate__": _restore,
    "__match_args__": (),
}


class _LazyFields:
    """`__dataclass_fields__` of a record: made by `dataclasses` when someone first asks for it."""

    def __init__(self, annotations: dict[str, Any], defaults: dict[str, Any]) -> None:
        self._annotations = annotations
        self._defaults = defaults

    def __get__(self, instance: object, owner: type) -> dict[str, Any]:
        import dataclasses  # noqa: PLC0415 - its import is what this module avoids

        body: dict[str, Any] = {
            name: dataclasses.field(default_factory=value.default_factory) if isinstance(value, _Field) else value
            for name, value in self._defaults.items()
        }
        model: Any = type(owner.__name__, (), {"__annotations__": self._annotations, **body})
        fields: dict[str, Any] = dataclasses.dataclass(kw_only=True)(model).__dataclass_fields__
        type.__setattr__(owner, "__dataclass_fields__", fields)
        return fields
