"""Whether the policies bite, from what a cluster has of them."""

from typing import Any

import pytest

from controller.decide.pools.protection import POLICIES, finding
from manifests.generate import policies

Json = dict[str, Any]


def installed() -> tuple[list[Json], list[Json]]:
    documents = [document for policy in policies() for document in policy.documents()]
    return documents[::2], documents[1::2]


def test_as_shipped_they_are_in_force() -> None:
    found = finding(*installed())
    assert (found.protected, found.reason, found.message) == (True, "PoliciesInForce", "")


@pytest.mark.parametrize("name", POLICIES)
def test_each_one_that_is_missing_is_named_with_what_it_held_back(name: str) -> None:
    made, bound = installed()
    found = finding([policy for policy in made if policy["metadata"]["name"] != name], bound)
    assert not found.protected
    assert found.message == f"nothing holds back {POLICIES[name]} ({name} is missing)"


def test_one_that_only_warns_protects_nothing() -> None:
    made, bound = installed()
    bound[0]["spec"]["validationActions"] = ["Warn", "Audit"]
    assert "podslots-pod-delete has no binding that denies" in finding(made, bound).message
    assert "podslots-pod-delete has no binding that denies" in finding(made, bound[1:]).message


def test_one_that_lets_errors_pass_protects_nothing() -> None:
    made, bound = installed()
    made[0]["spec"]["failurePolicy"] = "Ignore"
    assert "podslots-pod-delete lets pass what it can't decide" in finding(made, bound).message
    del made[0]["spec"]["failurePolicy"]
    assert finding(made, bound).protected, "Fail is the default"
