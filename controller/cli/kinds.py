"""What people look at, by all the names that it goes by. Pure."""

from dataclasses import dataclass

from controller.kube.api import PODS, SLOTPOOLS, SLOTTASKS, Resource


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of thing. `resource` None: it is no object, and lives in others."""

    plural: str
    aliases: tuple[str, ...]
    resource: Resource | None

    @property
    def singular(self) -> str:
        """Its name in a message."""
        return self.plural.removesuffix("s")


POOLS = Kind("pools", ("pool", "slotpools", "slotpool", "slp"), SLOTPOOLS)
POD_KIND = Kind("pods", ("pod", "po"), PODS)
TASKS = Kind("tasks", ("task", "slottasks", "slottask", "slt"), SLOTTASKS)
SLOTS = Kind("slots", ("slot",), None)
KINDS = (POOLS, POD_KIND, TASKS, SLOTS)


def find(word: str) -> Kind | None:
    """The kind of a word, as `tasks`, `slt` or `slottasks.podslots.dev`; None if there is none."""
    for kind in KINDS:
        names = {kind.plural, *kind.aliases}
        if kind.resource is not None:
            names |= {f"{name}.{kind.resource.group}" for name in names if kind.resource.group}
        if word.lower() in names:
            return kind
    return None
