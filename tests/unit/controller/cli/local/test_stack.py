"""The processes of `podslots local`, by what their folder says about them."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from controller.cli.cluster.called import command
from controller.cli.local.processes import Running, StackError, recorded, start_ticks
from controller.cli.local.stack import Stack
from controller.cli.main import main

SLEEP = (sys.executable, "-c", "import time; time.sleep(100)")


def record(folder: Path, *processes: Running) -> None:
    (folder / "processes.json").write_text(json.dumps([asdict(process) for process in processes]))


def test_a_folder_without_records_runs_nothing(tmp_path: Path) -> None:
    assert Stack(tmp_path, os.environ).running() == []


def test_a_pid_that_was_used_again_is_not_taken_for_ours(tmp_path: Path) -> None:
    own = os.getpid()
    ticks = start_ticks(own)
    assert ticks is not None
    record(tmp_path, Running(name="cluster", pid=own, start_ticks=ticks - 1))
    stack = Stack(tmp_path, os.environ)
    assert stack.running() == []
    asyncio.run(stack.stop())  # we are still here


def test_stop_ends_what_an_earlier_command_started(tmp_path: Path) -> None:
    with subprocess.Popen(SLEEP) as process:
        ticks = start_ticks(process.pid)
        assert ticks is not None
        record(tmp_path, Running(name="cluster", pid=process.pid, start_ticks=ticks))
        asyncio.run(Stack(tmp_path, os.environ).stop())
        assert process.wait(5) < 0
    assert not (tmp_path / "processes.json").exists()


def test_the_remains_of_a_process_are_no_process() -> None:
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read()  # its end: closed as it exits
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert start_ticks(process.pid) is None


def test_a_record_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "processes.json").write_text("{")
    with pytest.raises(StackError, match="can't be read"):
        Stack(tmp_path, os.environ).running()


def test_a_second_start_on_a_folder_is_refused(tmp_path: Path) -> None:
    ticks = start_ticks(os.getpid())
    assert ticks is not None
    record(tmp_path, *(Running(name=name, pid=os.getpid(), start_ticks=ticks) for name in ("cluster", "controller")))
    with pytest.raises(StackError, match="run already"):
        asyncio.run(Stack(tmp_path, os.environ).start())
    up = CliRunner().invoke(main, ["local", "up", "--state-dir", str(tmp_path)])
    assert (up.exit_code, up.stdout) == (1, ""), "it does not say first that it starts one"


@pytest.mark.parametrize("taken", [False, True])
def test_the_status_page_stays_at_its_address_unless_another_program_has_its_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, taken: bool
) -> None:
    """What was started notes its port and lives on; no cluster is needed to see which one it was given."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        if not taken:
            other.close()
        ticks = start_ticks(os.getpid())
        assert ticks is not None
        record(tmp_path, Running(name="cluster", pid=os.getpid(), start_ticks=ticks))
        (tmp_path / "ready.json").write_text('{"url": "http://127.0.0.1:1"}')
        (tmp_path / "controller.log").write_text(json.dumps({"message": "serving", "port": port}) + "\n")
        given: list[str] = []

        def spawn(self: Stack, name: str, command: object, environ: dict[str, str]) -> None:
            del name, command
            given.append(environ["PODSLOTS_HTTP_PORT"])
            with (self.folder / "controller.log").open("a") as log:
                log.write(json.dumps({"message": "serving", "port": 1}) + "\n")

        monkeypatch.setattr(Stack, "_spawn", spawn)
        asyncio.run(Stack(tmp_path, os.environ).start())
    assert given == ["0" if taken else str(port)]


def test_of_a_cluster_that_was_killed_a_command_says_so(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "kubeconfig").write_text(
        "{current-context: c, contexts: [{name: c, context: {cluster: c}}],"
        " clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]}"
    )
    record(tmp_path, Running(name="cluster", pid=os.getpid(), start_ticks=1))
    asked = CliRunner().invoke(main, ["get", "tasks", "--kubeconfig", str(tmp_path / "cluster" / "kubeconfig")])
    assert f"The local cluster in {tmp_path} was killed. Start it again: " in asked.stderr


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    places = {tmp_path / "file" / "x": f"in {tmp_path}/file: that is a file", Path("/proc/x/y"): "in /proc: "}
    for folder, problem in places.items():
        stack = Stack(folder, os.environ)
        assert stack.running() == []
        with pytest.raises(StackError, match=f"the state folder {folder} can't be made {problem}"):
            asyncio.run(stack.start())


def test_a_process_that_does_not_start_is_said_with_the_end_of_its_log(tmp_path: Path) -> None:
    """The cluster's folder can't be made: a file is in its place."""
    (tmp_path / "cluster").write_text("")
    with pytest.raises(StackError, match=r"the cluster ended with status 1"):
        asyncio.run(Stack(tmp_path, os.environ).start())
    assert Stack(tmp_path, os.environ).running() == []
    assert not (tmp_path / "processes.json").exists(), "nothing was killed: `local status` has nothing to mend"


def test_a_start_that_fails_leaves_it_said_that_a_cluster_was_killed_whose_pods_may_run(tmp_path: Path) -> None:
    (tmp_path / "cluster").write_text("")
    killed = Running(name="cluster", pid=os.getpid(), start_ticks=1)
    record(tmp_path, killed)
    with pytest.raises(StackError):
        asyncio.run(Stack(tmp_path, os.environ).start())
    assert recorded(tmp_path) == [killed]
    assert Stack(tmp_path, os.environ).cluster_was_killed


def test_a_command_says_that_a_local_cluster_is_stopped_and_how_to_start_it(tmp_path: Path) -> None:
    """Whether the folder is the one here, or its kubeconfig is named."""
    folder = tmp_path / ".podslots" / "local"
    (folder / "cluster").mkdir(parents=True)
    (folder / "cluster" / "kubeconfig").write_text(
        "{current-context: c, contexts: [{name: c, context: {cluster: c}}],"
        " clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]}"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.delenv("KUBECONFIG", raising=False)
        here = CliRunner().invoke(main, ["wait", "net"])
        assert here.exit_code == 4
        assert here.stderr.endswith(f"is stopped. Start it again: {command()} local up\n")
        stopped = CliRunner().invoke(main, ["local", "status"])
        assert (stopped.exit_code, "is stopped" in stopped.stdout) == (3, True)
        assert "was never started" in CliRunner().invoke(main, ["local", "status", "--state-dir", "x"]).stdout
        patch.chdir("/")
        elsewhere = CliRunner().invoke(main, ["local", "status", "--state-dir", str(folder)])
        assert elsewhere.stdout.endswith(f"podslots local up --state-dir {folder}\n")
        named = CliRunner().invoke(main, ["get", "tasks", "--kubeconfig", str(folder / "cluster" / "kubeconfig")])
        assert named.stderr.endswith(f"podslots local up --state-dir {folder}\n")


def test_a_full_disk_is_said_with_its_file_and_what_was_started_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though no record names it. `Error: the output can't be written` would be said of another disk."""
    (tmp_path / "processes.json.tmp").symlink_to("/dev/full")
    spawned: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            spawned.append(self)

    monkeypatch.setattr("controller.cli.local.stack.subprocess.Popen", Noted)
    up = CliRunner().invoke(main, ["local", "up", "--state-dir", str(tmp_path)])
    said = f"Error: {tmp_path / 'processes.json'} can't be written: No space left on device\n"
    assert (up.exit_code, up.stderr) == (1, said)
    assert [process.poll() is not None for process in spawned] == [True]


def test_a_log_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "cluster.log").mkdir()
    with pytest.raises(StackError, match=f"the cluster can't be started: {tmp_path / 'cluster.log'}: Is a directory"):
        asyncio.run(Stack(tmp_path, os.environ).start())
