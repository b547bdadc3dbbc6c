"""What people look at, by all the names that it goes by. Pure."""

from dataclasses import dataclass

from controller.cli.cluster.nearest import meant
from controller.kube.api import PODS, SLOTPOOLS, SLOTTASKS, Resource


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of thing. `resource` None: it is no object, and lives in others."""

    plural: str
    aliases: tuple[str, ...]
    resource: Resource | None


POOLS = Kind("pools", ("pool", "slotpools", "slotpool", "slp"), SLOTPOOLS)
POD_KIND = Kind("pods", ("pod", "po"), PODS)
TASKS = Kind("tasks", ("task", "slottasks", "slottask", "slt"), SLOTTASKS)
SLOTS = Kind("slots", ("slot",), None)
KINDS = (POOLS, POD_KIND, TASKS, SLOTS)
OBJECTS = (POOLS, POD_KIND, TASKS)
"""What `get all` shows."""
ALL = "all"


def find(word: str) -> Kind | None:
    """The kind of a word, as `tasks`, `slt` or `slottasks.podslots.dev`; None if there is none."""
    for kind in KINDS:
        names = {kind.plural, *kind.aliases}
        if kind.resource is not None:
            names |= {f"{name}.{kind.resource.group}" for name in names if kind.resource.group}
        if word.lower() in names:
            return kind
    return None


class NoSelection(Exception):
    """The words select nothing that there is. The text says why."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Objects of one kind: those of these names; without names all of them."""

    kind: Kind
    names: tuple[str, ...] = ()


def select(words: tuple[str, ...], among: tuple[Kind, ...] = KINDS) -> tuple[Selection, ...]:
    """What words select, in kubectl's forms: `KIND NAME…`, `KIND,KIND`, `all`, `KIND/NAME…`. Raises NoSelection."""
    if not words:
        raise NoSelection(f"name what to look at: {_known(among)}")
    if "/" not in words[0]:
        for word in words[1:]:
            if "/" in word:
                raise NoSelection(f"{word!r} names a kind, and {words[0]!r} does, too: write one of them")
        return tuple(Selection(kind, tuple(dict.fromkeys(words[1:]))) for kind in _kinds(words[0], among))
    named: dict[str, tuple[Kind, list[str]]] = {}
    for word in words:
        first, slash, name = word.partition("/")
        if not slash or not name or "/" in name:
            raise NoSelection(f"{word!r} is not KIND/NAME, as {words[0]!r} is")
        (kind, *others) = _kinds(first, among)
        if others:
            raise NoSelection(f"{word!r}: one kind before the name")
        named.setdefault(kind.plural, (kind, []))[1].append(name)
    return tuple(Selection(kind, tuple(dict.fromkeys(names))) for kind, names in named.values())


def _kinds(text: str, among: tuple[Kind, ...]) -> tuple[Kind, ...]:
    if text.lower() == ALL:
        return tuple(kind for kind in among if kind in OBJECTS)
    return tuple(dict.fromkeys(_kind(word, among) for word in text.split(",")))


_LIKENESS = 0.75
"""Of a kind that is meant: `nodes` is no mistake for `pods`."""


def _kind(word: str, among: tuple[Kind, ...]) -> Kind:
    found = find(word)
    if found is not None and found in among:
        return found
    names = [name for kind in among for name in (kind.plural, *kind.aliases)]
    near = meant(word.lower(), names, likeness=_LIKENESS)
    if near:
        raise NoSelection(f"there is no kind {word!r}{near}")
    raise NoSelection(
        f"there is no kind {word!r}; there are {_known(among)}. Is it a name? Then its kind comes first: task {word}"
    )


def _known(among: tuple[Kind, ...]) -> str:
    return ", ".join(f"{kind.plural} ({', '.join(kind.aliases)})" for kind in among)
