"""An environment that notes what is looked up in it."""

from collections.abc import Iterator, Mapping


class Asked(Mapping[str, str]):
    """`names` are those that were looked up; it has `given`, and nothing else."""

    def __init__(self, given: Mapping[str, str] | None = None) -> None:
        self.names: set[str] = set()
        self._given = given or {}

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return self._given[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)
