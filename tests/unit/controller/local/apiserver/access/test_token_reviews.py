"""Whose token it is: answered as a cluster answers, of whose recordings the contract tests replay the refusals."""

import random
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from controller.local.apiserver.access.authentication import authenticate
from controller.local.apiserver.access.authorization import Authorizer
from controller.local.apiserver.access.rbac import Rbac
from controller.local.apiserver.access.reviews import AUDIENCE, AUTHENTICATION, Reviews
from controller.local.apiserver.requests import RequestInfo
from controller.local.apiserver.store.store import Store
from controller.local.apiserver.store.users import User

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
USERS = {"bot-token": "system:serviceaccount:default:bot", "root-token": "admin"}


def review(**spec: Any) -> dict[str, Any]:
    store = Store()
    store.bootstrap(NOW, random.Random(1))
    authorizer = Authorizer(Rbac(store), frozenset(USERS.values()), enforce=True)
    reviews = Reviews(authorizer, lambda header: authenticate(USERS, frozenset({"admin"}), header))
    info = RequestInfo(verb="create", path="", group=AUTHENTICATION, version="v1", plural="tokenreviews")
    body = orjson.dumps({"apiVersion": f"{AUTHENTICATION}/v1", "kind": "TokenReview", "spec": spec})
    status: dict[str, Any] = reviews.answer(info, body, "application/json", User("asker"), now=NOW)["status"]
    return status


@pytest.mark.parametrize("audiences", [[], [AUDIENCE], ["elsewhere", AUDIENCE]])
def test_a_tokens_user_is_named_with_the_groups_that_he_has(audiences: list[str]) -> None:
    assert review(token="bot-token", audiences=audiences) == {
        "authenticated": True,
        "user": {
            "username": "system:serviceaccount:default:bot",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"],
        },
        "audiences": [AUDIENCE],
    }
    assert review(token="root-token")["user"]["groups"][0] == "system:masters"


def test_a_token_is_for_no_other_audience() -> None:
    said = review(token="bot-token", audiences=["elsewhere"])
    assert said["user"] == {}
    assert said["error"].endswith('is invalid for the target audiences ["elsewhere"]]')
    assert "authenticated" not in said
