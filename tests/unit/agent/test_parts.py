"""Configuration, credentials, log, output, table and measurements of the agent."""

import asyncio
import json
import os
import re
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.auth import (
    Identity,
    Keyring,
    Kind,
    TokenFolder,
    ensure_credential,
    has_credentials,
    own_credentials,
    read_pool_tokens,
)
from agent.config import from_environ, local_url
from agent.errors import ConfigError
from agent.http.bodies import prefers_text
from agent.http.text_table import duration, render
from agent.log import StreamLog
from agent.store.output import FolderFiles, Outputs, Stream, cut_notice, follow
from agent.wire import AgentState, Origin, Phase, Slot, SlotState, Step, WorkerLink

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ENVIRON = {
    "PODSLOTS_POD_UID": "uid",
    "PODSLOTS_STATE_DIR": "/state",
    "PODSLOTS_TOKENS_DIR": "/tokens",
    "PODSLOTS_CREDENTIALS_DIR": "/credentials",
}


def test_defaults() -> None:
    settings = from_environ(ENVIRON)
    assert settings.layout == (("plan", "apply", "plan_and_apply"), ("plan",), ("plan",))
    assert (settings.port, settings.workers, settings.addresses) == (8721, True, ("127.0.0.1",))
    assert (settings.grace_seconds, settings.stop_seconds) == (30, 15)


def test_a_pods_address_is_bound_with_its_loopback() -> None:
    assert from_environ({**ENVIRON, "PODSLOTS_POD_IP": "10.1.2.3"}).addresses == ("10.1.2.3", "127.0.0.1", "::1")
    assert from_environ({**ENVIRON, "PODSLOTS_POD_IP": "127.5.6.7"}).addresses == ("127.5.6.7",)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PODSLOTS_POD_UID", ""),
        ("PODSLOTS_POD_IP", "localhost"),
        ("PODSLOTS_PORT", "http"),
        ("PODSLOTS_PORT", "99999"),
        ("PODSLOTS_GRACE_SECONDS", "-1"),
        ("PODSLOTS_WORKERS", "yes"),
        ("PODSLOTS_LAYOUT", "{"),
        ("PODSLOTS_LAYOUT", "[]"),
        ("PODSLOTS_LAYOUT", "[[]]"),
        ("PODSLOTS_LAYOUT", '["plan"]'),
        ("PODSLOTS_LAYOUT", '[["has space"]]'),
        ("PODSLOTS_LAYOUT", json.dumps([["plan"]] * 17)),
        ("PODSLOTS_LAYOUT", 60_000 * "["),
        ("PODSLOTS_LAYOUT", f"[[{9000 * '1'}]]"),
        ("PODSLOTS_PORT", 9000 * "1"),
        ("PODSLOTS_POD_IP", 9000 * "1"),
        *((name, "a\udcff") for name in ("PODSLOTS_POD", "PODSLOTS_POD_UID", "PODSLOTS_POOL")),
    ],
    ids=lambda value: value[:30].encode("ascii", "backslashreplace").decode(),
)
def test_bad_settings_are_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_environ({**ENVIRON, name: value})
    assert len(error.value.problems) == 1
    assert error.value.problems[0].startswith(name)
    assert len(error.value.problems[0].encode()) < 400


def test_all_problems_are_said_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        from_environ({"PODSLOTS_PORT": "x"})
    assert len(error.value.problems) == 5


def test_where_the_local_agent_is() -> None:
    assert local_url({}) == "http://127.0.0.1:8721"
    assert local_url({"PODSLOTS_POD_IP": "fd00::1"}) == "http://[fd00::1]:8721"
    assert local_url({"PODSLOTS_URL": "http://10.0.0.1:8721/"}) == "http://10.0.0.1:8721"


# --- credentials ----------------------------------------------------------------------------------------------------


def test_tokens_are_told_apart_and_hidden() -> None:
    keyring = Keyring({Identity(Kind.SLOT, 2): "s" * 40, Identity(Kind.CLOSE): "c" * 40}, {"1": "p1", "2": "p2"})
    assert keyring.identify("Bearer p1") == keyring.identify("bearer p2") == Identity(Kind.POOL)
    assert keyring.identify("Bearer " + "s" * 40) == Identity(Kind.SLOT, 2)
    for wrong in (
        None,
        "",
        "p1",
        "Bearer",
        "Bearer ",
        "Bearer p",
        "Bearer p11",
        "Basic p1",
        "Bearer p1 p2",
        "Bearer é",
    ):
        assert keyring.identify(wrong) is None
    assert keyring.pool_token_ids == ("1", "2")
    assert "p1" not in repr(vars(keyring)["_all"])
    assert keyring.replace_pool({"2": "p2"})
    assert not keyring.replace_pool({"2": "p2"})
    assert keyring.identify("Bearer p1") is None


def test_tokens_for_reading_are_told_by_their_id() -> None:
    keyring = Keyring({}, {"t1-a": "p1", "read-prometheus": "r1"})
    assert keyring.identify("Bearer r1") == Identity(Kind.READER)
    assert keyring.pool_token_ids == ("t1-a",), "the controller must not count on it"


def test_pool_tokens_as_the_kubelet_mounts_them(tmp_path: Path) -> None:
    data = tmp_path / "..2026_03_01"
    data.mkdir()
    (data / "k1").write_text("token-1\n")
    (tmp_path / "..data").symlink_to(data.name)
    (tmp_path / "k1").symlink_to("..data/k1")
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "folder").mkdir()
    assert read_pool_tokens(tmp_path).tokens == {"k1": "token-1"}


async def test_a_token_that_can_not_be_read_is_not_revoked_and_one_that_is_gone_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unreadable, missing and empty are three things."""
    for name in ("1", "2", "3"):
        (tmp_path / name).write_text(f"token-{name}")
    keyring = Keyring({}, read_pool_tokens(tmp_path).tokens)
    said: list[tuple[str, ...]] = []
    opening = Path.open

    def failing(self: Path, *given: Any, **named: Any) -> Any:
        if self.name == "1":
            raise OSError(5, "Input/output error")
        return opening(self, *given, **named)

    monkeypatch.setattr(Path, "open", failing)
    (tmp_path / "2").unlink()
    (tmp_path / "3").write_text("")
    await TokenFolder(tmp_path, keyring, lambda: None, said.append).refresh()
    assert keyring.identify("Bearer token-1") == Identity(Kind.POOL)
    assert keyring.identify("Bearer token-2") is None
    assert keyring.identify("Bearer token-3") is None
    assert keyring.identify("Bearer ") is None
    assert said == [("1: Input/output error", "3: empty, or not text")]


async def test_a_token_folder_that_vanishes_changes_nothing(tmp_path: Path) -> None:
    """T16: an instant without the mount must not lock everybody out."""
    folder = tmp_path / "tokens"
    folder.mkdir()
    (folder / "1").write_text("one")
    keyring = Keyring({}, {})
    changes: list[None] = []
    said: list[tuple[str, ...]] = []
    await TokenFolder(folder, keyring, lambda: changes.append(None), said.append).refresh()
    assert (keyring.pool_token_ids, len(changes)) == (("1",), 1)
    (folder / "1").unlink()
    folder.rmdir()
    await TokenFolder(folder, keyring, lambda: changes.append(None), said.append).refresh()
    assert keyring.pool_token_ids == ("1",)


def test_own_credentials_are_made_once_and_kept(tmp_path: Path) -> None:
    names = {"PODSLOTS_STATE_DIR": "state", "PODSLOTS_CREDENTIALS_DIR": "credentials"}
    settings = from_environ({**ENVIRON, **{name: str(tmp_path / value) for name, value in names.items()}})
    settings.state_dir.mkdir()
    assert not has_credentials(settings)
    own = own_credentials(settings)
    assert has_credentials(settings)
    assert own == own_credentials(settings)
    assert len(set(own.values())) == len(own) == 5
    assert all(len(token) >= 43 for token in own.values())
    assert stat.S_IMODE((tmp_path / "credentials/0/token").stat().st_mode) == 0o440


def test_a_credential_that_others_planted_is_replaced(tmp_path: Path) -> None:
    """Links are not followed, and what is not of our making is not taken."""
    secret = tmp_path / "elsewhere"
    secret.write_text("x" * 60)
    for name, planted in (("link", None), ("short", "abc"), ("odd", "a b" * 30), ("empty", "")):
        file = tmp_path / name / "token"
        file.parent.mkdir()
        if planted is None:
            file.symlink_to(secret)
        else:
            file.write_text(planted)
        token = ensure_credential(file)
        assert len(token) >= 43
        assert not file.is_symlink()
        assert file.read_text() == token
    assert secret.read_text() == "x" * 60


# --- the log --------------------------------------------------------------------------------------------------------


def test_log_lines_are_json_and_whole(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        log = StreamLog(file.fileno(), lambda: NOW, {"pod": "p"})
        log.event("slot", slot=1, **{"from": SlotState.IDLE})
        log.event("odd", value={"a": Path("/x")}, text="two\nlines")
    lines = [json.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    assert lines[0] == {"time": "2026-03-01T12:00:00Z", "message": "slot", "pod": "p", "slot": 1, "from": "idle"}
    assert lines[1]["text"] == "two\nlines"


def test_a_reader_that_stopped_never_stops_the_agent() -> None:
    reader, writer = os.pipe()
    try:
        log = StreamLog(writer, lambda: NOW, {})
        for number in range(20_000):
            log.event("line", number=number)
        first = os.read(reader, 1 << 20)
        assert json.loads(first.splitlines()[0])["number"] == 0
        log.event("after")
        rest = [json.loads(line) for line in os.read(reader, 1 << 20).splitlines()]
        assert rest[-2]["message"] == "log lines dropped"
        assert rest[-2]["lines"] == 20_000 - len(first.splitlines())
        assert rest[-1]["message"] == "after"
    finally:
        os.close(reader)
        os.close(writer)


def test_a_closed_log_is_no_reason_to_stop() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    log = StreamLog(writer, lambda: NOW, {})
    log.event("nobody reads")
    os.close(writer)


# --- output ---------------------------------------------------------------------------------------------------------


def outputs(folder: Path, cap_bytes: int = 100) -> Outputs:
    return Outputs(FolderFiles(folder), asyncio.to_thread, cap_bytes=cap_bytes)


async def text(kept: Outputs, offset: int = 0, log_bytes: int = 0, going: Callable[[], bool] = lambda: False) -> bytes:
    def notice(stream: Stream) -> bytes:
        return cut_notice(stream, log_bytes)

    pieces = follow(kept, "t", Step.PLAN, offset, going=going, notice=notice, look_again_seconds=5)
    return b"".join([piece async for piece in pieces])


async def test_whether_a_file_was_handed_over_is_known_until_its_task_is_forgotten(tmp_path: Path) -> None:
    kept = outputs(tmp_path)
    assert not await kept.has("t.1")
    await kept.put("t.1", b"{}")
    assert await kept.has("t.1")
    await kept.forget(["t.1"])
    assert not await kept.has("t.1")


async def test_output_resumes_where_it_ends(tmp_path: Path) -> None:
    kept = outputs(tmp_path)
    assert await kept.append("t", Step.PLAN, 0, b"hello ") == 6
    assert await kept.append("t", Step.PLAN, 3, b"lo world") == 11
    assert await kept.append("t", Step.PLAN, 50, b"gap") == 11
    again = outputs(tmp_path)
    assert await again.append("t", Step.PLAN, 0, b"") == 11
    assert await again.tail("t", Step.PLAN) == (11, "hello world")
    assert await again.read("t", Step.PLAN, 6) == b"world"


async def test_many_uploads_at_once_are_taken_one_after_the_other(tmp_path: Path) -> None:
    kept = outputs(tmp_path, 10_000)
    await asyncio.gather(*(kept.append("t", Step.PLAN, 0, b"x" * 1000) for _ in range(20)))
    assert (await kept.tail("t", Step.PLAN))[0] == 1000
    assert (tmp_path / "t/plan.log").stat().st_size == 1000


async def test_past_the_cap_output_is_counted(tmp_path: Path) -> None:
    kept = outputs(tmp_path)
    assert await kept.append("t", Step.PLAN, 0, b"a" * 90) == 90
    assert await kept.append("t", Step.PLAN, 90, b"b" * 90) == 180
    assert await kept.append("t", Step.PLAN, 180, b"end") == 183
    assert (await kept.stream("t", Step.PLAN)).kept == 100
    assert (await kept.tail("t", Step.PLAN))[1].endswith("bend")
    assert await text(kept) == b"a" * 90 + b"b" * 10 + b"\n[podslots: the rest of 83 bytes of output was not kept]\n"
    whole = await text(kept)
    for offset in range(95, len(whole)):
        assert await text(kept, offset) == whole[offset:], "a reader resumes anywhere, in the notice too"
    again = outputs(tmp_path)
    assert await text(again, log_bytes=183) == whole, "what the worker said counts, after a restart too"
    assert await again.append("t", Step.PLAN, 0, b"") == 100, "what was not kept is asked for again, and counted again"


async def test_forgotten_output_is_gone(tmp_path: Path) -> None:
    kept = outputs(tmp_path)
    for task_id in ("a", "b", "c"):
        await kept.append(task_id, Step.PLAN, 0, b"x")
    await kept.forget(["a"])
    assert not (tmp_path / "a").exists()
    await outputs(tmp_path).forget_unknown(["b"].__contains__)
    assert (tmp_path / "b").exists()
    assert not (tmp_path / "c").exists()
    await outputs(tmp_path / "nowhere").forget_unknown([].__contains__)


async def test_nothing_is_kept_of_a_task_that_was_forgotten_meanwhile(tmp_path: Path) -> None:
    """An upload and a reader that were under way leave neither files nor memory behind."""
    kept = outputs(tmp_path, 1 << 20)
    await kept.append("t", Step.PLAN, 0, b"x")
    reader = asyncio.create_task(text(kept, going=lambda: True))
    writer = asyncio.create_task(kept.append("t", Step.PLAN, 1, b"y"))
    await asyncio.sleep(0)
    await kept.forget(["t"])
    await asyncio.gather(reader, writer)
    await kept.stream("t", Step.PLAN)
    await kept.forget_unknown(lambda _: False)
    assert not kept._streams
    assert not os.listdir(tmp_path)  # noqa: PTH208 - nothing of pathlib that blocks


async def test_what_a_full_disk_refused_is_sent_again_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One failed write does not end the copy of a log."""
    kept = outputs(tmp_path, 1 << 20)
    assert await kept.append("t", Step.PLAN, 0, b"one ") == 4
    writing = os.write

    def half(fd: int, data: bytes) -> int:
        if len(data) < 2:
            raise OSError(28, "No space left on device")
        return writing(fd, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", half)
    assert await kept.append("t", Step.PLAN, 4, b"two ") == 4
    monkeypatch.setattr(os, "write", writing)
    assert (tmp_path / "t/plan.log").read_bytes() == b"one "
    assert await kept.append("t", Step.PLAN, 4, b"two three") == 13
    assert await text(kept) == b"one two three"


async def test_output_leaves_room_for_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = os.statvfs(tmp_path)
    few = os.statvfs_result((*volume[:3], 1, 1, *volume[5:]))
    kept = outputs(tmp_path, 1 << 20)
    monkeypatch.setattr(os, "statvfs", lambda _: few)
    assert await kept.append("t", Step.PLAN, 0, b"x") == 0


async def test_followers_get_every_byte_to_the_end(tmp_path: Path) -> None:
    kept = outputs(tmp_path, 1 << 20)
    going = True

    async def read() -> bytes:
        return await text(kept, going=lambda: going)

    readers = [asyncio.create_task(read()) for _ in range(3)]
    for number in range(100):
        await kept.append("t", Step.PLAN, number * 10, b"%010d" % number)
    going = False
    kept.nudge("t")
    expected = b"".join(b"%010d" % number for number in range(100))
    assert await asyncio.gather(*readers) == [expected] * 3


# --- for people -----------------------------------------------------------------------------------------------------


def test_table() -> None:
    state = AgentState(
        version="1",
        pod="pod-1",
        pod_uid="u",
        pool="tf",
        incarnation="i",
        phase=Phase.OPEN,
        revision=7,
        tokens=(),
        slots=(
            Slot(
                id=0,
                accepts=("plan", "apply"),
                state=SlotState.RESERVED,
                fence=2,
                since=NOW - timedelta(hours=3, minutes=12, seconds=5),
                task_id="t.1",
                task_type="apply",
                step=Step.PLAN,
                origin=Origin.CONTROLLER,
                expires_at=NOW + timedelta(days=1),
                worker=WorkerLink(instance="w", connected=True),
            ),
            Slot(id=1, accepts=("plan",), state=SlotState.IDLE, fence=0, since=NOW),
        ),
        ended=("t.0",),
        warnings=("look here",),
    )
    lines = render(state, NOW).splitlines()
    assert lines[0] == "pod-1  pool tf  open  revision 7"
    assert re.split(" {2,}", lines[3])[1:7] == ["reserved", "t.1", "apply", "plan", "3h12m", "in 1d"]
    assert lines[4].split() == ["1", "idle", "-", "-", "-", "0s", "-", "-", "-", "plan"]
    assert lines[-2:] == ["ended, not acknowledged: t.0", "warning: look here"]
    columns = [line.index(word) for line, word in zip(lines[2:5], ("STATE", "reserved", "idle"), strict=True)]
    assert len(set(columns)) == 1


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m"), (3661, "1h1m"), (90000, "1d1h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("accept", "text"),
    [
        ("text/plain", True),
        ("text/plain, */*;q=0.1", True),
        ("text/plain;q=0.5, application/json", False),
        ("application/json, text/plain", False),
        ("text/plain, application/json", True),
        ("text/plain;q=0", False),
        ("text/plain;q=x", False),
        ("*/*", False),
    ],
)
def test_who_wants_the_table(accept: str, text: bool) -> None:
    assert prefers_text(accept) is text
