"""Events are said once, counted when repeated, and never stand in anybody's way."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.act.events import EventRecorder, EventSettings
from controller.errors import ApiError, ApiUnavailable
from controller.kube.api import EVENTS, Object, Resource
from tests.support import virtual_time
from tests.support.memory_api import MemoryApi

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "ns", "uid": "u", "labels": {}}}


def play(script: Callable[[MemoryApi, EventRecorder], Awaitable[None]], settings: EventSettings | None = None) -> None:
    async def main() -> None:
        api = MemoryApi()
        loop = asyncio.get_running_loop()
        recorder = EventRecorder(
            api,
            component="podslots-controller",
            instance="one",
            now=lambda: datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=loop.time()),
            rng=random.Random(1),
            settings=settings,
        )
        running = asyncio.create_task(recorder.run())
        await script(api, recorder)
        running.cancel()
        await asyncio.wait([running])

    virtual_time.run(main)


def written(api: MemoryApi) -> list[Object]:
    return list(api.all(EVENTS).values())


def test_an_event_names_the_object_and_who_says_it() -> None:
    async def script(api: MemoryApi, recorder: EventRecorder) -> None:
        recorder.event(POD, "Drained", "idle for 60 s")
        await asyncio.sleep(1)
        [event] = written(api)
        assert event["involvedObject"] == {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": "ns",
            "name": "a",
            "uid": "u",
        }
        assert (event["reason"], event["message"], event["type"]) == ("Drained", "Idle for 60 s.", "Normal")
        assert event["metadata"]["namespace"] == "ns"
        assert event["source"] == {"component": "podslots-controller"}
        assert event["firstTimestamp"].endswith("Z")
        assert event["count"] == 1

    play(script)


def test_repetitions_within_ten_minutes_are_counted_on_the_same_event() -> None:
    async def script(api: MemoryApi, recorder: EventRecorder) -> None:
        for _ in range(5):
            recorder.event(POD, "Unreachable", "no answer", warning=True)
            await asyncio.sleep(60)
        [event] = written(api)
        assert event["count"] == 5
        assert event["lastTimestamp"] > event["firstTimestamp"]
        recorder.event(POD, "Unreachable", "no answer at all", warning=True)
        await asyncio.sleep(700)
        recorder.event(POD, "Unreachable", "no answer", warning=True)
        await asyncio.sleep(1)
        assert sorted(event["count"] for event in written(api)) == [1, 1, 5]

    play(script)


def test_what_is_repeated_faster_than_it_is_written_is_one_write() -> None:
    async def script(api: MemoryApi, recorder: EventRecorder) -> None:
        for _ in range(1000):
            recorder.event(POD, "Busy", "again")
        await asyncio.sleep(1)
        [event] = written(api)
        assert event["count"] == 1000
        assert len(api.calls) == 1

    play(script)


def test_an_event_that_the_server_forgot_is_written_anew() -> None:
    async def script(api: MemoryApi, recorder: EventRecorder) -> None:
        recorder.event(POD, "Busy", "again")
        await asyncio.sleep(1)
        api.remove(EVENTS, "ns", written(api)[0]["metadata"]["name"])
        recorder.event(POD, "Busy", "again")
        await asyncio.sleep(1)
        assert [event["count"] for event in written(api)] == [1]

    play(script)


def test_an_outage_loses_events_at_worst_and_the_queue_stays_bounded() -> None:
    async def script(api: MemoryApi, recorder: EventRecorder) -> None:
        down = True

        async def fail(verb: str, resource: Resource, name: str) -> None:
            del verb, resource, name
            if down:
                raise ApiUnavailable("down")

        api.before = fail
        for index in range(50):
            recorder.event(POD, "Busy", f"number {index}")
        await asyncio.sleep(600)
        assert recorder.dropped == 50
        down = False
        recorder.event(POD, "Busy", "after")
        await asyncio.sleep(1)
        assert [event["message"] for event in written(api)] == ["After."]

    play(script, EventSettings(max_waiting=10))


def test_a_refused_event_is_dropped_and_the_next_one_written() -> None:
    """As in a namespace that is being deleted."""

    async def script(api: MemoryApi, recorder: EventRecorder) -> None:
        refuse = True

        async def forbid(verb: str, resource: Resource, name: str) -> None:
            del verb, resource, name
            if refuse:
                raise ApiError.of(403, "Forbidden", "because it is being terminated")

        api.before = forbid
        recorder.event(POD, "Busy", "one")
        await asyncio.sleep(1)
        refuse = False
        recorder.event(POD, "Busy", "two")
        await asyncio.sleep(1)
        assert [event["message"] for event in written(api)] == ["Two."]
        assert recorder.dropped == 1

    play(script)


def test_events_of_cluster_scoped_objects_and_long_messages_fit() -> None:
    async def script(api: MemoryApi, recorder: EventRecorder) -> None:
        node: dict[str, Any] = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n" * 253, "uid": "x"}}
        recorder.event(node, "Cordoned", "m" * 5000)
        await asyncio.sleep(1)
        [event] = written(api)
        assert event["metadata"]["namespace"] == "default"
        assert len(event["metadata"]["name"]) <= 253
        assert len(event["message"]) == 1024

    play(script)


def test_what_waits_is_written_at_a_stop() -> None:
    async def main() -> None:
        api = MemoryApi()
        recorder = EventRecorder(
            api, component="c", instance="i", now=lambda: datetime(2026, 3, 1, tzinfo=UTC), rng=random.Random(1)
        )
        recorder.event(POD, "Stopping", "bye")
        await recorder.flush(5)
        assert len(written(api)) == 1

    virtual_time.run(main)


def test_steps_that_follow_each_other_are_one_event_with_both_times() -> None:
    async def script(api: MemoryApi, recorder: EventRecorder) -> None:
        recorder.step(POD, "Assigned", "assigned to Pod p", at_once=False)
        await asyncio.sleep(2)
        recorder.step(POD, "Succeeded", "Succeeded", at_once=True)
        await asyncio.sleep(0.1)
        [event] = written(api)
        assert (event["reason"], event["message"]) == ("Succeeded", "Assigned to Pod p. Succeeded.")
        first, last = (datetime.fromisoformat(event[name]) for name in ("firstTimestamp", "lastTimestamp"))
        assert last - first == timedelta(seconds=2)
        await asyncio.sleep(60)
        assert len(written(api)) == 1

    play(script)


def test_a_step_that_none_follows_is_said_after_a_moment() -> None:
    async def script(api: MemoryApi, recorder: EventRecorder) -> None:
        recorder.step(POD, "Assigned", "assigned to Pod p", at_once=False)
        await asyncio.sleep(4)
        assert [event["reason"] for event in written(api)] == ["Assigned"]

    play(script)


def test_a_warning_stays_an_event_of_its_own_after_the_steps_before_it() -> None:
    async def script(api: MemoryApi, recorder: EventRecorder) -> None:
        recorder.step(POD, "Assigned", "assigned to Pod p", at_once=False)
        recorder.event(POD, "Failed", "exit code 1", warning=True)
        await asyncio.sleep(0.1)
        assert [(event["reason"], event["type"]) for event in written(api)] == [
            ("Assigned", "Normal"),
            ("Failed", "Warning"),
        ]

    play(script)


def test_a_step_has_the_time_at_which_it_was_said_however_late_it_is_written() -> None:
    async def script(api: MemoryApi, recorder: EventRecorder) -> None:
        recorder.step(POD, "Assigned", "assigned to Pod p", at_once=False)
        await asyncio.sleep(2)
        recorder.event(POD, "Failed", "exit code 1", warning=True)
        await asyncio.sleep(0.1)
        said = {event["reason"]: datetime.fromisoformat(event["lastTimestamp"]) for event in written(api)}
        assert said["Failed"] - said["Assigned"] == timedelta(seconds=2)

    play(script)


def test_a_stop_says_the_steps_that_still_wait_for_the_next_one() -> None:
    async def script(api: MemoryApi, recorder: EventRecorder) -> None:
        recorder.step(POD, "Assigned", "assigned to Pod p", at_once=False)
        await recorder.flush(1.0)
        assert [event["reason"] for event in written(api)] == ["Assigned"]

    play(script)


def test_an_event_that_breaks_takes_no_other_with_it(caplog: pytest.LogCaptureFixture) -> None:
    async def breaks(verb: str, resource: Resource, name: str) -> None:
        del verb, resource, name
        raise RuntimeError("a mistake")

    async def script(api: MemoryApi, recorder: EventRecorder) -> None:
        api.before, whole = breaks, api.before
        for number in range(3):
            recorder.event(POD, "Broken", str(number))
        await asyncio.sleep(60)
        assert recorder.dropped == 3
        recorder.event(POD, "Broken", "at the stop")
        await recorder.flush(1)
        api.before = whole
        recorder.event(POD, "Whole", "")
        await asyncio.sleep(60)
        assert [event["reason"] for event in written(api)] == ["Whole"]

    play(script)
    assert [record.message for record in caplog.records] == ["writing an event broke"], "and is said once"
