"""Who may read: a token's user, by what the API server says of both; remembered for a moment, and never longer."""

import asyncio

import pytest

from controller.errors import ApiUnavailable
from controller.kube.api import Object, Resource
from controller.status_page.access import LASTS_SECONDS, MAX_TOKEN, MOST_REMEMBERED, Reviewer, Verdict
from tests.support.status_site import ReviewingApi


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def reviewing() -> tuple[ReviewingApi, Reviewer, Clock]:
    api = ReviewingApi({"anna-token": "anna", "ben-token": "ben"}, lambda user, path: user == "anna" and path == "/")
    clock = Clock()
    return api, Reviewer(api, clock=clock), clock


async def test_the_user_of_the_token_is_asked_about_as_the_review_named_him() -> None:
    api, reviewer, _ = reviewing()
    assert await reviewer.judge("anna-token", "/") is Verdict.ALLOWED
    assert [kind for kind, _ in api.asked] == ["TokenReview", "SubjectAccessReview"]
    assert api.asked[1][1] == {
        "user": "anna",
        "uid": "u1",
        "groups": ["team"],
        "extra": {"scopes": ["a"]},
        "nonResourceAttributes": {"path": "/", "verb": "get"},
    }


async def test_what_kubernetes_grants_everybody_is_not_what_is_asked_for() -> None:
    """`/api/*` is in the ClusterRole `system:discovery`, which every service account has."""
    api, reviewer, _ = reviewing()
    await reviewer.judge("anna-token", "/api/v1/status")
    assert api.asked[1][1]["nonResourceAttributes"]["path"] == "/podslots/api/v1/status"


async def test_who_is_not_known_and_who_may_not_are_told_apart() -> None:
    _, reviewer, _ = reviewing()
    assert await reviewer.judge("made-up", "/") is Verdict.UNKNOWN
    assert await reviewer.judge("ben-token", "/") is Verdict.FORBIDDEN
    assert await reviewer.judge("anna-token", "/metrics") is Verdict.FORBIDDEN


async def test_an_answer_holds_for_a_moment_for_its_path_alone() -> None:
    api, reviewer, clock = reviewing()
    assert await reviewer.judge("anna-token", "/") is Verdict.ALLOWED
    api.users.clear()
    assert await reviewer.judge("anna-token", "/") is Verdict.ALLOWED
    assert await reviewer.judge("anna-token", "/api/v1/status") is Verdict.UNKNOWN
    clock.now += LASTS_SECONDS
    assert await reviewer.judge("anna-token", "/") is Verdict.UNKNOWN


async def test_no_answer_is_no_yes_and_is_not_remembered() -> None:
    api, reviewer, _ = reviewing()
    api.away = True
    with pytest.raises(ApiUnavailable):
        await reviewer.judge("anna-token", "/")
    api.away = False
    assert await reviewer.judge("anna-token", "/") is Verdict.ALLOWED


async def test_what_is_no_token_is_not_asked_about() -> None:
    api, reviewer, _ = reviewing()
    assert await reviewer.judge("", "/") is Verdict.UNKNOWN
    assert await reviewer.judge("x" * (MAX_TOKEN + 1), "/") is Verdict.UNKNOWN
    assert api.asked == []


async def test_a_flood_of_tokens_is_forgotten_again_and_asked_about_a_few_at_once() -> None:
    api, reviewer, _ = reviewing()
    under_way, most = 0, 0
    create = api.create

    async def slowly(resource: Resource, namespace: str | None, body: Object) -> Object:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return await create(resource, namespace, body)

    api.create = slowly  # type: ignore[method-assign]
    verdicts = await asyncio.gather(*(reviewer.judge(f"made-up-{n}", "/") for n in range(MOST_REMEMBERED + 50)))
    assert set(verdicts) == {Verdict.UNKNOWN}
    assert most == 8
    assert len(reviewer._remembered) == MOST_REMEMBERED
