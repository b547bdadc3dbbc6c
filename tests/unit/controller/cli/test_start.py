"""The program itself: Ctrl-C at any moment ends it with 130 and no traceback, and errors are no Python objects."""

import fcntl
import os
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.support.repository import ROOT
from tests.support.waiting import wait_until

INTERRUPTED_WHILE_LOADING = """
import importlib.abc, os, signal, sys

class Interrupting(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
module, sys.argv = sys.argv[1], ["podslots", *sys.argv[2:]]
from controller.cli.start import main
main()
"""
SILENT_SERVER = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
here = server.accept()
open(sys.argv[1], "w")
input()
"""
FULL_PIPE_BYTES = 64 * 1024
LINE = "x" * 100_000
NOBODY = {"PODSLOTS_SERVER": "http://127.0.0.1:1", "PODSLOTS_TOKEN": "t"}


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", **environ}
    return subprocess.run(
        [sys.executable, *arguments], check=False, capture_output=True, text=True, timeout=60, env=variables
    )


@pytest.mark.parametrize(
    "module", ["controller.cli.main", "click", "controller.cli.verbs.get", "http.client", "ssl", "orjson", "yaml"]
)
def test_ctrl_c_while_modules_are_loaded(module: str, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("{}")
    done = run("-c", INTERRUPTED_WHILE_LOADING, module, "get", "tasks", KUBECONFIG=str(tmp_path / "config"))
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "")


def test_ctrl_c_while_it_waits_for_an_answer(tmp_path: Path) -> None:
    server = tmp_path / "server"
    with subprocess.Popen(
        [sys.executable, "-c", SILENT_SERVER, str(server)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as silence:
        assert silence.stdout is not None
        port = silence.stdout.readline().strip()
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PODSLOTS_SERVER": f"http://127.0.0.1:{port}"}
        command = [sys.executable, "-m", "controller.cli.start", "get", "tasks"]
        with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as asking:
            wait_until(server.exists, 30, "it was not asked")
            asking.send_signal(signal.SIGINT)
            _, said = asking.communicate(timeout=30)
        silence.communicate("\n")
    assert (asking.returncode, said.strip()) == (130, "")


def test_an_api_server_that_is_away_is_said_without_python_objects() -> None:
    done = run("-m", "controller.cli.start", "get", "tasks", **NOBODY)
    assert (done.returncode, done.stderr) == (
        1,
        "Error: the Kubernetes API can't be reached: can't connect to 127.0.0.1:1: Connection refused\n",
    )


def test_a_verb_loads_no_other_verbs_and_nothing_heavy() -> None:
    """What makes it as fast as it is."""
    code = "import sys; from controller.cli.start import main\ntry: main()\nfinally: print(*sys.modules)"
    done = run("-c", code, "get", "tasks", **NOBODY)
    loaded = set(done.stdout.split())
    assert "controller.cli.verbs.get" in loaded
    heavy = {
        "aiohttp",
        "asyncio",
        "yaml",
        "rich",
        "agent",
        "controller.objects",
        "controller.cli.verbs.tasks",
        "subprocess",
    }
    assert loaded & heavy == set()


@pytest.mark.parametrize(
    "words",
    [
        "describe pod p",
        "logs t",
        "plans",
        "wait t",
        "submit -f FILE",
        "approve t",
        "retry t",
        "cancel t",
        "drain p",
        "break-glass p --reason r -y",
        "forget p -y",
        "unlock k -y",
        "rotate p",
        "rollout history p",
        "version",
        "completion zsh",
    ],
)
def test_a_verb_of_one_request_loads_no_event_loop_and_no_client_for_one(words: str, tmp_path: Path) -> None:
    """Each costs as much time as all that such a verb has."""
    (tmp_path / "FILE").write_text(
        "apiVersion: podslots.dev/v1alpha1\nkind: SlotPool\nmetadata: {name: x}\nspec: {template: {spec: {}}}"
    )
    code = "import sys; from controller.cli.start import main\ntry: main()\nfinally: print(*sys.modules)"
    arguments = [str(tmp_path / word) if word == "FILE" else word for word in words.split()]
    loaded = set(run("-c", code, *arguments, **NOBODY).stdout.split())
    assert "controller.cli.main" in loaded
    assert loaded & {"aiohttp", "asyncio", "kubernetes_asyncio", "rich"} == set()


@pytest.mark.parametrize("words", ["local start ", "aply ", "delete "])
def test_completion_after_an_unknown_verb_prints_no_error_into_the_prompt(words: str) -> None:
    environ = {"COMP_WORDS": f"podslots {words}", "COMP_CWORD": str(len(words.split(" "))), **NOBODY}
    code = "import sys; sys.argv = ['podslots']; from controller.cli.start import main; main()"
    done = run("-c", code, _PODSLOTS_COMPLETE="bash_complete", **environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(line.startswith("plain,") for line in done.stdout.splitlines())


def test_as_a_plugin_of_kubectl_it_is_called_so() -> None:
    code = "import sys; sys.argv[0] = 'kubectl-podslots'; from controller.cli.start import main; main()"
    assert run("-c", code, "--help").stdout.startswith("Usage: kubectl podslots ")


def test_a_reader_that_goes_away_is_no_error_of_ours() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "controller.cli.start", "--help"]
    done = subprocess.run(command, check=False, stdout=writing, stderr=subprocess.PIPE, env=environ, timeout=60)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def saying(words: str) -> str:
    """A program that starts as `podslots` does, and says something that is written as Python writes it."""
    return (
        f"import click; from controller.cli import main, start; main.run = lambda: click.echo('{words}'); start.main()"
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_stdout_that_was_made_non_blocking_takes_all(unbuffered: str) -> None:
    """By node, for instance, which shares it with us."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-c", saying(LINE)]
    with (
        subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE, env=environ) as asked,
        os.fdopen(reading, "rb") as file,
    ):
        os.close(writing)
        wait_until(lambda: waiting_bytes(reading) >= FULL_PIPE_BYTES or asked.poll() is not None, 30, "nothing comes")
        assert file.read() == f"{LINE}\n".encode()
        assert asked.stderr is not None
        assert asked.stderr.read() == b""
    assert asked.returncode == 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_one_clear_line(unbuffered: str) -> None:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", "controller.cli.start", "completion", "bash"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, env=environ, timeout=60)
    assert (done.returncode, done.stderr) == (1, b"Error: the output can't be written: No space left on device\n")


def waiting_bytes(reading: int) -> int:
    """How much can be read at once."""
    return int.from_bytes(fcntl.ioctl(reading, termios.FIONREAD, bytes(4)), sys.byteorder)


def on_a_terminal(code: str, **environ: str) -> str:
    """What a terminal gets of a program."""
    outside, inside = os.openpty()
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TERM": "xterm", "LANG": "C.UTF-8", **environ}
    done = subprocess.run([sys.executable, "-c", code], check=False, stdout=inside, env=variables, timeout=60)
    seen = os.read(outside, 4096)
    for end in (inside, outside):
        os.close(end)
    assert done.returncode == 0
    return seen.decode()


def test_words_from_an_object_do_not_steer_the_terminal() -> None:
    """The command that an apply will run, for instance, which a person is asked to approve."""
    said = "a\\x1b[2Jb \\x1b[31mred\\x1b[0m \\u202e \u00e4"
    assert on_a_terminal(saying(said)) == "a\\x1b[2Jb \x1b[31mred\x1b[0m \\u202e \u00e4\r\n"


def test_nor_do_they_where_output_is_ascii() -> None:
    assert on_a_terminal(saying("a\\x1b[2Jb"), PYTHONIOENCODING="ascii") == "a\\x1b[2Jb\r\n"


def test_bytes_of_a_name_that_is_no_text_are_shown_as_they_are() -> None:
    assert on_a_terminal(saying("\\udcff")) == "\\xff\r\n"


@pytest.mark.parametrize("shown", ["", "1"])
def test_an_error_that_nobody_expected_is_a_line_unless_its_traceback_is_asked_for(shown: str) -> None:
    broken = (
        "import sys, controller.cli.cluster.session\n"
        "def run(*_, **__): raise KeyError('status\\n' + 5000 * 'x')\n"
        "controller.cli.cluster.session.Session.run = run\n"
        "sys.argv = ['podslots', 'get', 'tasks']\n"
        "from controller.cli.start import main\n"
        "main()\n"
    )
    done = run("-c", broken, **NOBODY, PODSLOTS_TRACEBACK=shown)
    assert (done.returncode, done.stdout) == (1, "")
    if shown:
        assert "Traceback" in done.stderr
    else:
        assert done.stderr.startswith("Error: podslots broke: KeyError in <string>, line 2: ")
        assert done.stderr.count("\n") == 1
        assert len(done.stderr) < 500
