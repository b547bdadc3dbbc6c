"""How long a Pod bears the taints of its node."""

from typing import Any

import pytest

from controller.local.node.taints import tolerated_seconds

Json = dict[str, Any]

UNREACHABLE: Json = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}
GPU: Json = {"key": "gpu", "value": "a100", "effect": "NoExecute"}


def exists(key: str = "", seconds: int | None = None, effect: str = "NoExecute") -> Json:
    limit = {} if seconds is None else {"tolerationSeconds": seconds}
    return {"operator": "Exists", "effect": effect, **({"key": key} if key else {}), **limit}


@pytest.mark.parametrize(
    ("tolerations", "taints", "seconds"),
    [
        ([], [], None),
        ([], [UNREACHABLE], 0.0),
        ([exists(UNREACHABLE["key"], 300)], [UNREACHABLE], 300.0),
        ([exists(UNREACHABLE["key"])], [UNREACHABLE], None),
        ([exists(UNREACHABLE["key"])], [UNREACHABLE, GPU], 0.0),
        ([exists(UNREACHABLE["key"], 300), exists("gpu", 5)], [UNREACHABLE, GPU], 5.0),
        ([exists(UNREACHABLE["key"], effect="NoSchedule")], [UNREACHABLE], 0.0),
        ([exists(effect="")], [UNREACHABLE, GPU], None),
        ([{"key": "gpu", "value": "a100"}], [GPU], None),
        ([{"key": "gpu", "value": "other"}], [GPU], 0.0),
        ([exists(UNREACHABLE["key"], -1)], [UNREACHABLE], 0.0),
    ],
)
def test_the_shortest_limit_counts_and_one_taint_that_is_not_tolerated(
    tolerations: list[Json], taints: list[Json], seconds: float | None
) -> None:
    assert tolerated_seconds(tolerations, taints) == seconds
