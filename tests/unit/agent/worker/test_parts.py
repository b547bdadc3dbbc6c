"""The worker's smaller parts: settings, digest, environment, paths, HTTP answers, output, the log's limits."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import traceback
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.wire import (
    Command,
    EnvFrom,
    EnvVar,
    ExitCodes,
    ExitReport,
    File,
    KeyRef,
    Outcome,
    Step,
    Steps,
    StepSpec,
    encode,
)
from agent.worker import config
from agent.worker.disk import files, kept_log
from agent.worker.disk.directories import Directories
from agent.worker.errors import ConfigError, LinkError, StepRefusedError
from agent.worker.http.connection import parse
from agent.worker.process import environment, memory, temporary
from agent.worker.step import output
from agent.worker.step.digest import Source, hash_content, plan_digest
from agent.worker.step.preparation import SlotDisk
from tests.support.worker_process import assignment


def test_the_worker_imports_nothing_that_is_slow_or_large() -> None:
    """It may take four times the start and twice the memory of a bare interpreter."""
    program = "import sys, agent.worker.__main__; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, check=True, text=True)
    heavy = {"asyncio", "ssl", "http.client", "subprocess", "logging", "hashlib", "_hashlib", "dataclasses", "inspect"}
    heavy |= {"pathlib", "shutil", "urllib.parse", "threading", "random", "tempfile", "email"}
    assert not heavy & set(ended.stdout.split())


# --- settings -------------------------------------------------------------------------------------------------------

ENVIRON = {
    "PODSLOTS_URL": "http://10.0.0.7:8721",
    "PODSLOTS_SLOT": "2",
    "PODSLOTS_CREDENTIAL_DIR": "/credential",
    "PODSLOTS_WORK_DIR": "/work",
}


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://10.0.0.7:8721", ("10.0.0.7", 8721, False)),
        ("http://10.0.0.7", ("10.0.0.7", 8721, False)),
        ("http://[fd00::7]:99/", ("fd00::7", 99, False)),
        ("http://fd00::7:8721", ("fd00::7", 8721, False)),
        ("http://localhost:1", ("localhost", 1, False)),
        ("https://10.0.0.7:99", ("10.0.0.7", 99, True)),
    ],
)
def test_the_agents_address(url: str, address: tuple[str, int, bool]) -> None:
    settings = config.from_environ({**ENVIRON, "PODSLOTS_URL": url})
    assert (settings.host, settings.port, settings.tls) == address
    assert settings.grace_seconds == 30


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PODSLOTS_URL", ""),
        ("PODSLOTS_URL", "ftp://10.0.0.7"),
        ("PODSLOTS_URL", "http://a/b"),
        ("PODSLOTS_URL", "http://a:b"),
        ("PODSLOTS_SLOT", "-1"),
        ("PODSLOTS_SLOT", ""),
        ("PODSLOTS_WORK_DIR", ""),
        ("PODSLOTS_GRACE_SECONDS", "1.5"),
        ("PODSLOTS_SECRETS", "{"),
        ("PODSLOTS_CONFIG_MAPS", '["a"]'),
        ("PODSLOTS_CONFIG_MAPS", '{"a": 1}'),
        ("PODSLOTS_CONFIG_MAPS", 60_000 * "["),
        ("PODSLOTS_SECRETS", f'{{"a": {9000 * "1"}}}'),
        ("PODSLOTS_URL", "http://a:65536"),
        ("PODSLOTS_URL", "http://a:" + 9000 * "1"),
        ("PODSLOTS_GRACE_SECONDS", 9000 * "1"),
    ],
    ids=lambda value: value[:30],
)
def test_bad_settings_name_the_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name) as raised:
        config.from_environ({**ENVIRON, name: value})
    assert len(str(raised.value)) < 400


# --- digest ---------------------------------------------------------------------------------------------------------


def test_the_digest_is_pinned() -> None:
    """An approval waits for hours, over upgrades: another way of writing the parts down would undo it."""
    work = assignment("plan", apply=("apply", "-auto"), env=(EnvVar(name="A", value="1"),), grace_seconds=60).work
    assert work.steps.apply
    assert plan_digest(Source.FILE, "00ff", work.steps.apply, work) == (
        "sha256:56429f24114025d1416e50c1b1ae544c9212cfe17271db74b8c4474c3e1c4862"
    )


def test_the_digest_changes_with_each_part() -> None:
    base: dict[str, Any] = {"source": Source.FILE, "content": "00", "apply": ("a", "b"), "env": (), "env_from": ()}
    changes: list[dict[str, Any]] = [
        {},
        {"source": Source.OUTPUT},
        {"content": "01"},
        {"apply": ("a b",)},
        {"apply": ("a", "b", "")},
        {"env": (EnvVar(name="A", value=""),)},
        {"env": (EnvVar(name="A", secret=KeyRef(name="s", key="k")),)},
        {"env": (EnvVar(name="A", config_map=KeyRef(name="s", key="k")),)},
        {"env": (EnvVar(name="A", secret=KeyRef(name="s", key="k", optional=True)),)},
        {"env_from": (EnvFrom(secret="s"),)},
        {"env_from": (EnvFrom(config_map="s"),)},
        {"env_from": (EnvFrom(config_map="s", prefix="P"),)},
        {"attempt": 2},
    ]
    digests = set()
    for change in changes:
        parts = base | change
        work = assignment("plan", env=parts["env"], env_from=parts["env_from"], attempt=parts.get("attempt", 1)).work
        digests.add(plan_digest(parts["source"], parts["content"], StepSpec(command=parts["apply"]), work))
    assert len(digests) == len(changes)


@pytest.mark.parametrize(
    "change",
    [
        {"before": (Command(command=("login",)),)},
        {"before": (Command(command=("login",), working_dir="other"),)},
        {"working_dir": "stack"},
        {"exit_codes": ExitCodes(changed=(2,))},
        {"stop_signal": "SIGTERM"},
        {"cancel_grace_seconds": 0},
        {"cancel_grace_seconds": 61},
        {"timeout_seconds": 9},
    ],
)
def test_the_digest_covers_how_the_apply_runs(change: dict[str, Any]) -> None:
    work = assignment("plan").work
    digests = set()
    for apply in (StepSpec(command=("a",)), StepSpec(command=("a",), **change)):
        both = replace(work, steps=Steps(plan=StepSpec(command=("plan",)), apply=apply))
        digests.add(plan_digest(Source.FILE, "00", apply, both))
    assert len(digests) == 2


def test_the_digest_covers_what_comes_from_config_maps() -> None:
    work, apply = assignment("plan").work, StepSpec(command=("a",))
    contents: tuple[dict[str, str], ...] = ({}, {"A": "1"}, {"A": "2"}, {"B": "1"}, {"A": "1\udcff"})
    assert len({plan_digest(Source.FILE, "00", apply, work, content) for content in contents}) == len(contents)
    assert plan_digest(Source.FILE, "00", apply, work, {}) == plan_digest(Source.FILE, "00", apply, work)


def test_the_digest_covers_the_folder_that_an_apply_has_from_its_plan() -> None:
    work, apply = assignment("plan").work, StepSpec(command=("a",))
    digests = {
        plan_digest(Source.FILE, "00", apply, replace(work, steps=Steps(plan=plan, apply=apply)))
        for plan in (StepSpec(command=("p",)), StepSpec(command=("p",), working_dir="stack"))
    }
    assert len(digests) == 2


def test_content_is_hashed_in_blocks() -> None:
    blocks = [b"hello ", b"world", b""]
    expected = "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"
    assert hash_content(lambda size: blocks.pop(0)[:size]) == expected


# --- environment ----------------------------------------------------------------------------------------------------


def test_commands_do_not_see_the_workers_credential() -> None:
    own = {"PODSLOTS_CREDENTIAL_DIR": "/credential", "LD_LIBRARY_PATH": "/usr/lib/special", "KEPT": "1"}
    assert environment.container_environment(own) == {"LD_LIBRARY_PATH": "/usr/lib/special", "KEPT": "1"}


def test_mounts_show_keys_and_no_more(tmp_path: Path) -> None:
    data = tmp_path / "..2026_01"
    data.mkdir()
    (data / "key").write_bytes(b"va\xfflue")
    (tmp_path / "..data").symlink_to(data.name)
    (tmp_path / "key").symlink_to("..data/key")
    mounts = files.FolderMounts({"s": str(tmp_path), "gone": str(tmp_path / "no")})
    assert mounts.keys("s") == ["key"]
    assert os.fsencode(mounts.read("s", "key") or "") == b"va\xfflue"
    assert mounts.keys("gone") is None
    assert mounts.keys("unknown") is None
    assert mounts.read("s", "../" + tmp_path.name + "/key") is None
    assert mounts.read("s", "..data/key") is None


@pytest.mark.parametrize("broken", ["key", "folder"])
def test_a_mount_that_can_not_be_read_is_not_one_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """N8: a command would run without its credentials, as if they were optional."""
    (tmp_path / "key").write_text("value")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "open" if broken == "key" else "os", refuse, raising=False)
    if broken == "folder":
        monkeypatch.setattr(files, "os", type("Os", (), {"listdir": staticmethod(refuse), "path": os.path}))
    mounts = files.FolderMounts({"s": str(tmp_path)})
    with pytest.raises(StepRefusedError, match="can't be read: Permission denied"):
        mounts.read("s", "key") if broken == "key" else mounts.keys("s")


# --- paths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["..", "a/..", "/a", "a//b", "", ".", "a/./b", "a\0b", "a/"])
def test_paths_that_could_lead_elsewhere(path: str) -> None:
    with pytest.raises(StepRefusedError):
        files.split(path)


def test_links_are_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("s")
    (inside / "folder").symlink_to(outside)
    (inside / "file").symlink_to(outside / "secret")
    for path in ("folder/new", "folder/secret", "file"):
        with pytest.raises(StepRefusedError):
            files.write_files(str(inside), {path: "x"})
    for path in ("folder/secret", "file"):
        with pytest.raises(StepRefusedError):
            files.open_plain(str(inside), path)
    assert files.open_plain(str(inside), "missing") is None
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"secret": "s"}


# --- HTTP answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "ended", "result"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", False, (200, b"{}", True)),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nConnection: close\r\n\r\n{}", False, (200, b"{}", False)),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", False, (200, b"{}", False)),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False, (204, b"", True)),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", False, None),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", True, (200, b"{}", False)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", False, None),
        (b"HTTP/1.1 200 OK\r\nContent-Le", False, None),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x=y\r\n}\r\n0\r\n\r\n",
            False,
            (200, b"{}", True),
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n", False, None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", False, None),
    ],
)
def test_answers(data: bytes, ended: bool, result: tuple[int, bytes, bool] | None) -> None:
    assert parse(data, ended=ended) == result


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"x" * 100_000,
    ],
)
def test_what_is_no_answer(data: bytes) -> None:
    with pytest.raises(LinkError):
        parse(data, ended=False)


@pytest.mark.parametrize("size", range(1, 12))
def test_an_answer_is_the_same_however_it_is_cut(size: int) -> None:
    whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    results = [parse(whole[:end], ended=False) for end in range(0, len(whole), size)]
    assert results == [None] * len(results)
    assert parse(whole, ended=False) == (200, b"{}", True)


# --- output ---------------------------------------------------------------------------------------------------------


def _output(tmp_path: Path) -> tuple[output.StepOutput, int, output.Echo, Path]:
    source, sink = os.pipe()
    echoed = tmp_path / "echo"
    echo = output.Echo(os.open(echoed, os.O_CREAT | os.O_WRONLY))
    return output.StepOutput(source, str(tmp_path / "log"), b"[t plan 0]", echo), sink, echo, echoed


def test_lines_are_echoed_whole_between_the_runs_beginning_and_its_end(tmp_path: Path) -> None:
    step, sink, echo, echoed = _output(tmp_path)
    for piece in (b"par", b"tial\nsecond\nth", b"ird", b"\n\nlast"):
        os.write(sink, piece)
        step.read()
        echo.flush()
    os.close(sink)
    step.finish()
    echo.flush()
    os.close(echo.fd)
    marked = [b": begins", b" partial", b" second", b" third", b" ", b"+last", b": ended"]
    assert echoed.read_bytes() == b"".join(b"[t plan 0]" + line + b"\n" for line in marked)


def test_past_its_limit_a_log_keeps_its_beginning_and_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_log, "LOG_BYTES", 10)
    monkeypatch.setattr(kept_log, "TAIL_BYTES", 4)
    step, sink, echo, _ = _output(tmp_path)
    for piece in (b"0123456", b"789abc", b"defghij"):
        os.write(sink, piece)
        step.read()
    os.close(sink)
    step.finish()
    os.close(echo.fd)
    assert (tmp_path / "log").read_bytes() == b"0123456789\n[slot-agent: 6 bytes of output left out here]\nghij"
    assert step.total_bytes == 20


def test_output_just_past_the_limit_is_all_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_log, "LOG_BYTES", 10)
    step, sink, echo, _ = _output(tmp_path)
    os.write(sink, b"0123456789ab")
    os.close(sink)
    step.finish()
    os.close(echo.fd)
    assert (tmp_path / "log").read_bytes() == b"0123456789ab"


# --- the folder -----------------------------------------------------------------------------------------------------


def _folder(tmp_path: Path) -> Directories:
    folder = Directories(str(tmp_path), lambda *_, **__: None)
    assert folder.lock_instance()
    return folder


def test_only_one_instance_has_a_folder(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    assert not Directories(str(tmp_path), lambda *_, **__: None).lock_instance()
    assert folder.load() == []


@pytest.mark.parametrize("task_id", ["..", "a/b", "", ".hidden", "a" * 129])
def test_a_task_id_that_is_no_name_makes_no_folder(tmp_path: Path, task_id: str) -> None:
    folder = _folder(tmp_path)
    with pytest.raises(OSError, match="task id"):
        folder.assign(assignment("true", task_id=task_id))
    assert not list((tmp_path / "tasks").iterdir())


def test_a_damaged_record_is_left_alone_and_said(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    folder.assign(assignment("true", task_id="good"))
    folder.assign(assignment("true", task_id="bad"))
    broken = tmp_path / "tasks" / "bad" / "plan.assignment.json"
    broken.write_text('{"task_id": 7}')
    assert [stored.assignment.task_id for stored in folder.load()] == ["good"]
    assert (folder.unread, folder.damaged) == ((), ("bad",))
    assert broken.exists()


def test_what_cannot_be_read_is_neither_gone_nor_damaged() -> None:
    """As another user: root can read everything."""
    place = tempfile.mkdtemp()  # not below pytest's folder, which is only for its user
    try:
        Path(place).chmod(0o777)  # for whoever the child becomes
        pid = os.fork()
        if pid == 0:
            os._exit(_look_at_unreadable(place))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        shutil.rmtree(place)


def _look_at_unreadable(place: str) -> int:
    try:
        if os.geteuid() == 0:
            os.setuid(65534)
        folder = Directories(f"{place}/work", lambda *_, **__: None)
        assert folder.lock_instance()
        folder.assign(assignment("true"))
        record = Path(place) / "work" / "tasks" / "task.1" / "plan.assignment.json"
        record.chmod(0)
        assert (folder.load(), folder.unread, folder.damaged) == ([], ("task.1",), ())
        record.chmod(0o600)
        assert (len(folder.load()), folder.unread, folder.damaged) == (1, (), ())
    except BaseException:  # noqa: BLE001 - told by the status
        traceback.print_exc()
        return 1
    return 0


def test_an_end_without_the_assignments_nonce_is_not_believed(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    given = assignment("true", nonce="real")
    folder.assign(given)
    assert folder.claim(given, instance="w", run_id="w-0", start_time=datetime(2026, 1, 1, tzinfo=UTC))
    for nonce in (None, "forged"):
        report = ExitReport(
            instance="w",
            task_id="task.1",
            step=Step.PLAN,
            fence=7,
            outcome=Outcome.SUCCEEDED,
            end_time=datetime(2026, 1, 1, tzinfo=UTC),
            nonce=nonce,
        )
        (tmp_path / "tasks" / "task.1" / "plan.exit.json").write_text(json.dumps(encode(report)))
        (stored,) = folder.load()
        assert (stored.started, stored.exit) == (True, None)


def test_a_tree_whose_paths_are_longer_than_any_goes_too(tmp_path: Path) -> None:
    """PATH_MAX is 4096 bytes: nothing deeper can be named from the top."""
    folder = _folder(tmp_path / "w")
    folder.assign(assignment("true"))
    here = os.open(tmp_path / "w" / "tasks" / "task.1" / "dir", os.O_RDONLY)
    for _ in range(100):
        os.mkdir("d" * 200, dir_fd=here)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=below))
        os.close(here)
        here = below
    os.close(here)
    folder.forget("task.1")
    while folder.sweep():
        pass
    assert not list((tmp_path / "w" / "trash").iterdir())


# --- surroundings -----------------------------------------------------------------------------------------------------


def test_a_home_that_somebody_chose_stands_and_the_runtimes_own_does_not(tmp_path: Path) -> None:
    users = tmp_path / "passwd"
    users.write_text("root:x:0:0:root:/root:/bin/sh\nodd line\nrunner:x:1000:1000::/home/runner:/bin/sh\n")
    assert environment.usual_home(1000, str(users)) == "/home/runner"
    assert environment.usual_home(7, str(users)) is None
    for home, seen in (("/root", None), ("/", None), ("", None), ("/chosen", "/chosen")):
        assert environment.container_environment({"HOME": home}, "/root").get("HOME") == seen
    assert environment.container_environment({"TMPDIR": "/short"}) == {"TMPDIR": "/short"}
    assert environment.container_environment({"TMPDIR": "/long" * 20}) == {}
    for container, home in (({}, "/d"), ({"HOME": "/chosen"}, "/chosen")):
        resolved = environment.resolve(
            assignment("true"),
            container=container,
            secrets=files.FolderMounts({}),
            config_maps=files.FolderMounts({}),
            directory="/d",
            temporary="/t",
            slot=0,
        )
        assert (resolved["HOME"], resolved["TMPDIR"]) == (home, "/t")


def test_a_long_temporary_folder_has_a_short_name_that_goes_with_it(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120) / "tmp"
    long.mkdir(parents=True)
    short = temporary.temporary_folder(str(long))
    try:
        assert len(short) <= temporary.LONGEST
        assert temporary.temporary_folder(str(long)) == short, "the same again"
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(f"{short}/plugin1234567890123456789012345678901234")
        assert list(long.iterdir())
    finally:
        temporary.forget_temporary(str(long))
    assert not os.path.lexists(short)
    assert temporary.temporary_folder("/short") == "/short"


@pytest.mark.parametrize(("container", "linked"), [({}, True), ({"TMPDIR": "/chosen"}, False)])
def test_where_the_containers_own_temporary_folder_stands_no_name_is_made_that_would_stay(
    tmp_path: Path, container: dict[str, str], *, linked: bool
) -> None:
    """On one machine all containers share /tmp, and their kubelet gives each a TMPDIR."""
    nothing = files.FolderMounts({})
    disk = SlotDisk(
        str(tmp_path / ("x" * 120)),
        lambda *_, **__: None,
        slot=0,
        container=container,
        secret_variables={},
        secrets=nothing,
        config_maps=nothing,
    )
    wanted = assignment("true")
    Path(disk.directory(wanted.task_id)).mkdir(parents=True)
    found = disk.prepare(wanted, "run").environment["TMPDIR"]
    links = [name for name in temporary._names(disk.temporary(wanted.task_id)) if os.path.lexists(name)]
    temporary.forget_temporary(disk.temporary(wanted.task_id))
    assert (links == [found], bool(links)) == (linked, linked)


def test_files_may_have_bytes_and_permissions(tmp_path: Path) -> None:
    files.write_files(
        str(tmp_path),
        {"a/run": File(text="#!/bin/sh\n", mode=0o755), "b": File(base64="AP8="), "c": "text"},
    )
    assert (tmp_path / "a" / "run").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "b").read_bytes() == b"\0\xff"
    assert (tmp_path / "c").read_text() == "text"
    with pytest.raises(StepRefusedError, match="base64"):
        files.write_files(str(tmp_path), {"d": File(base64="?")})


def test_memory_that_ran_out_is_counted_by_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    (tmp_path / "memory.max").write_text(f"{64 << 20}\n")
    watch = memory.MemoryWatch(str(tmp_path))
    assert watch.ran_out() is None
    (tmp_path / "memory.events").write_text("low 0\noom 2\noom_kill 2\n")
    assert watch.ran_out() == "memory ran out (limit 64 MiB)"
    (tmp_path / "memory.max").write_text("max\n")
    assert watch.ran_out() == "memory ran out"


def test_a_marker_that_was_cut_short_still_says_started(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    folder.assign(assignment("true"))
    (tmp_path / "tasks" / "task.1" / "plan.started").write_text('{"instance": "w')
    (stored,) = folder.load()
    assert (stored.started, stored.start_time, stored.exit) == (True, None, None)
    assert folder.reclaim("task.1", Step.PLAN)


def test_forgotten_trees_go_bit_by_bit_without_following_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("stays")
    folder = _folder(tmp_path / "work")
    folder.assign(assignment("true"))
    directory = tmp_path / "work" / "tasks" / "task.1" / "dir"
    (directory / "link").symlink_to(outside)
    (directory / "sealed").mkdir()
    for number in range(1000):
        (directory / "sealed" / str(number)).touch()
    (directory / "sealed").chmod(0o500)
    folder.forget("task.1")
    folder.assign(assignment("true"))
    folder.forget("task.1")
    turns = 0
    while folder.sweep():
        turns += 1
    assert turns >= 5
    assert not list((tmp_path / "work" / "trash").iterdir())
    assert (outside / "file").exists()


def test_a_tree_deeper_than_the_stack_goes_too(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "w")
    folder.assign(assignment("true"))
    deep = str(tmp_path / "w" / "tasks" / "task.1" / "dir")
    here = os.open(deep, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    folder.forget("task.1")
    while folder.sweep():
        pass
    assert not list((tmp_path / "w" / "trash").iterdir())


def test_the_space_of_an_end_is_taken_before_the_command_can_fill_the_disk(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    folder.assign(assignment("true"))
    assert folder.claim(assignment("true"), instance="w", run_id="w-0", start_time=datetime(2026, 1, 1, tzinfo=UTC))
    space = tmp_path / "tasks" / "task.1" / "plan.exit.json.space"
    assert space.stat().st_blocks * 512 >= 8192
    assert json.loads((tmp_path / "tasks" / "task.1" / "plan.started").read_text())["run_id"] == "w-0"
