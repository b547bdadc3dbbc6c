"""Every reason that the controller can show is explained in docs/reasons.md."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from controller.decide.pools.rotation import TokensStand
from controller.decide.scaling.signal import SignalWord
from controller.decide.scaling.size import Reason
from controller.decide.view import RolloutStand
from tests.support.repository import ROOT

SAYING = ("decide", "act", "objects", "passes", "world")
"""Folders of the controller whose words get into conditions, Events and logs."""
PAGE = (ROOT / "docs" / "reasons.md").read_text()
NOT_SHOWN = {
    "ContainerCreating",
    "ControllerRevision",
    "FailedDelete",
    "NoExecute",
    "NotFound",
    "OnRootMismatch",
    "PodDisruptionBudget",
    "PodInitializing",
    "PodScheduled",
    "ReplicaFailure",
    "ReplicaSet",
    "RestartAllContainers",
    "RollingUpdate",
    "RuntimeDefault",
    "SlotPool",
    "SlotTask",
    "SlotTaskOutput",
    "WhenIdle",
}
"""Names of Kubernetes' things and values of fields: read or written, and never shown as a reason."""
OF_KUBERNETES = {"ErrImagePull", "Unschedulable"}


def words_of(path: Path) -> Iterator[str]:
    """The strings of a module that look like a reason, except names of types."""
    tree = ast.parse(path.read_text())
    types = {
        id(part)
        for node in ast.walk(tree)
        for name in ("annotation", "returns")
        if (found := getattr(node, name, None)) is not None
        for part in ast.walk(found)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in types:
            yield node.value


CONTROLLER = ROOT / "controller"
WORDS = {word for folder in SAYING for path in (CONTROLLER / folder).rglob("*.py") for word in words_of(path)}
OF_ONE_WORD = {str(word) for kind in (Reason, RolloutStand, SignalWord, TokensStand) for word in kind}
REASONS = {word for word in WORDS if re.fullmatch(r"(?:[A-Z][a-z]+){2,}", word)} - NOT_SHOWN | OF_ONE_WORD


def first_cells() -> set[str]:
    return {
        word
        for line in PAGE.splitlines()
        if line.startswith("| `")
        for word in re.findall(r"`(\w+)`", line.split("|")[1])
    }


def test_each_reason_is_explained() -> None:
    assert "AgentsUnreachable" in REASONS
    assert not REASONS - first_cells() - OF_KUBERNETES
