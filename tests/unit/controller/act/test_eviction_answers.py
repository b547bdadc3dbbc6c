"""An answer changes our entry alone, whoever else writes meanwhile."""

from typing import Any

from controller import names
from controller.act.eviction_answers import EvictionAnswers
from controller.decide.pods.eviction import Answer, Eviction
from controller.kube.api import EVICTIONS, Object
from tests.support.memory_api import MemoryApi
from tests.support.pools import NOW

OTHER = "example.org/backup"
ANSWER = Answer(heartbeat=NOW, message="holds vpc", expected=None)


def stored(api: MemoryApi, *, state: str = "Active") -> Eviction:
    found = Eviction.parse(
        api.put(
            EVICTIONS,
            {
                "metadata": {"namespace": "ns", "name": "e", "uid": "u"},
                "spec": {"target": {"pod": {"name": "p", "uid": "uid-p"}}},
                "status": {
                    "targetResponders": [
                        {"name": names.EVICTION_RESPONDER, "priority": 10_000, "state": state},
                        {"name": OTHER, "priority": 100, "state": "Inactive"},
                    ],
                    "responders": [
                        {
                            "name": names.EVICTION_RESPONDER,
                            "startTime": "2026-03-01T11:00:00Z",
                            "expectedCompletionTime": "2026-03-01T12:30:00Z",
                        },
                        {"name": OTHER},
                    ],
                },
            },
        )
    )
    assert found is not None
    return found


def responders(api: MemoryApi) -> Any:
    return api.all(EVICTIONS)["ns", "e"]["status"]["responders"]


async def test_our_entry_says_it_and_keeps_its_start_and_the_others_stay() -> None:
    api, noted = MemoryApi(), list[Object]()
    await EvictionAnswers(api, noted.append).write(stored(api), ANSWER)
    ours = {"startTime": "2026-03-01T11:00:00Z", "heartbeatTime": "2026-03-01T12:00:00Z", "message": "holds vpc"}
    assert responders(api) == [{"name": names.EVICTION_RESPONDER, **ours}, {"name": OTHER}]
    assert noted == [api.all(EVICTIONS)["ns", "e"]]


async def test_what_others_wrote_meanwhile_is_read_and_kept() -> None:
    api = MemoryApi()
    read = stored(api)
    changed = api.all(EVICTIONS)["ns", "e"]
    changed["status"]["responders"][1]["message"] = "theirs"
    api.put(EVICTIONS, changed)
    await EvictionAnswers(api, lambda _: None).write(read, ANSWER)
    assert responders(api)[0]["message"] == "holds vpc"
    assert responders(api)[1] == {"name": OTHER, "message": "theirs"}


async def test_nothing_is_written_once_it_was_canceled_or_is_gone() -> None:
    api = MemoryApi()
    read = stored(api)
    stored(api, state="Canceled")
    await EvictionAnswers(api, lambda _: None).write(read, ANSWER)
    assert "message" not in responders(api)[0]
    api.remove(EVICTIONS, "ns", "e")
    await EvictionAnswers(api, lambda _: None).write(read, ANSWER)
    assert not api.all(EVICTIONS)


async def test_an_entry_that_is_missing_is_made() -> None:
    """Else the answer would be lost, and given again at once."""
    api = MemoryApi()
    stored(api)
    bare = api.all(EVICTIONS)["ns", "e"]
    del bare["status"]["responders"]
    read = Eviction.parse(api.put(EVICTIONS, bare))
    assert read is not None
    await EvictionAnswers(api, lambda _: None).write(read, ANSWER)
    said = {"heartbeatTime": "2026-03-01T12:00:00Z", "message": "holds vpc"}
    assert responders(api) == [{"name": names.EVICTION_RESPONDER, **said}]
