"""`podslots rollout status` says when a rollout is over, and when it will not be."""

from typing import Any

import click
import pytest

from controller.cli.verbs.rollout import follow, stand_of
from controller.kube.api import SLOTPOOLS, Object
from tests.support.cli_api import CliApi

STUCK = {"type": "Progressing", "status": "False", "reason": "RolloutStuck", "message": "1 of 2 …; ErrImagePull"}


def pool(updated: int = 2, ready: int = 2, *conditions: Object, seen: int = 3) -> Object:
    found: dict[str, Any] = {"observedGeneration": seen, "replicas": 2, "readyReplicas": ready}
    return {
        "metadata": {"name": "p", "generation": 3},
        "status": {**found, "updatedReplicas": updated, "conditions": list(conditions)},
    }


def test_it_is_over_when_every_pod_is_of_the_present_template_and_ready() -> None:
    assert stand_of(pool()).done
    assert not stand_of(pool(updated=1)).done
    assert not stand_of(pool(ready=1)).done
    assert not stand_of(pool(seen=2)).done


def test_why_it_does_not_go_on() -> None:
    assert stand_of(pool(1, 2, STUCK)).stuck
    assert "ErrImagePull" in stand_of(pool(1, 2, STUCK)).text
    invalid = {"type": "Degraded", "status": "True", "reason": "InvalidTemplate", "message": "no"}
    assert stand_of(pool(2, 2, invalid)).failed
    assert stand_of(pool(1, 2, {"type": "Progressing", "reason": "OnDelete", "message": "m"})).failed


def look(api: CliApi, *, watch: bool, stuck_seconds: float = 60, give_up: float | None = 5) -> list[str]:
    said: list[str] = []
    follow(
        api.connection(),
        "p",
        watch=watch,
        timeout_seconds=give_up,
        echo=said.append,
        poll_seconds=0.01,
        stuck_seconds=stuck_seconds,
    )
    return said


def site(*stands: Object) -> CliApi:
    """A pool that is as the first says, then as the next."""
    api, rest = CliApi(), list(stands)

    class Changing(dict[tuple[str, str], Object]):
        def __getitem__(self, key: tuple[str, str]) -> Object:
            assert key == (SLOTPOOLS.plural, "p")
            return rest.pop(0) if len(rest) > 1 else rest[0]

    api.objects = Changing()
    return api


def test_watched_it_says_each_change_once_until_it_is_over() -> None:
    said = look(site(pool(0), pool(0), pool(1), pool(2, 1), pool()), watch=True)
    assert len(said) == 4
    assert "rolled out" in said[-1]


def test_unwatched_it_says_how_it_stands() -> None:
    assert look(site(pool(1)), watch=False) == ["p: 1 of 2 Pods are updated"]
    with pytest.raises(click.ClickException, match="ErrImagePull"):
        look(site(pool(1, 2, STUCK)), watch=False)


def test_watched_it_is_patient_with_pods_that_do_not_start_for_a_moment() -> None:
    said = look(site(pool(1, 2, STUCK), pool()), watch=True)
    assert "rolled out" in said[-1]
    with pytest.raises(click.ClickException, match="ErrImagePull"):
        look(site(pool(1, 2, STUCK)), watch=True, stuck_seconds=0.05)


def test_it_gives_up_when_the_time_is_over() -> None:
    with pytest.raises(click.ClickException, match="not rolled out after"):
        look(site(pool(1)), watch=True, give_up=0.05)
