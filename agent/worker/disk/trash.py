"""Removes forgotten trees bit by bit, even those that a task has made hard to remove.

A folder's sub-folders are moved up into the trash and emptied in their turn. So no path is ever longer than three
names, however deep the tree was, and nothing has to be remembered over a restart.
"""

import os
from collections.abc import Iterator

from agent.worker.disk.owned import is_folder
from agent.worker.rules.ports import Log


def remove_all(trash: str, log: Log) -> Iterator[None]:
    """Remove all that is in the trash, one entry a step. Links are removed, not followed. What can't be is said."""
    number = 0
    left: set[str] = set()
    while names := [name for name in os.listdir(trash) if name not in left]:
        for name in names:
            path = os.path.join(trash, name)
            try:
                if not is_folder(path):
                    os.unlink(path)
                else:
                    os.chmod(path, 0o700)
                    for below in os.listdir(path):
                        number = _remove_or_raise(trash, path, below, number)
                        yield
                    os.rmdir(path)
            except OSError as error:
                left.add(name)
                log("a forgotten file can't be removed", error=str(error))
            yield


def _remove_or_raise(trash: str, folder: str, name: str, number: int) -> int:
    """Remove one entry of a folder, or move it up. Returns the next free number."""
    path = os.path.join(folder, name)
    if not is_folder(path):
        os.unlink(path)
        return number
    os.chmod(path, 0o700)  # else its own `..` could not be changed
    while os.path.lexists(target := os.path.join(trash, f"up.{number}")):
        number += 1
    os.rename(path, target)
    return number + 1
