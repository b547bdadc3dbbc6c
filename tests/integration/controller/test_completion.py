"""Completion in the shells that people have: verbs, options, their values, kinds, and names that make sense there."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.terminal import Terminal

BIN = Path(sys.executable).parent
TASKS = {
    "/apis/podslots.dev/v1alpha1/namespaces/default/slottasks": [
        ("net-queued", {}),
        ("net-waits", {"phase": "AwaitingApproval"}),
        ("net-ended", {"phase": "Succeeded"}),
    ],
    "/apis/podslots.dev/v1alpha1/namespaces/team/slottasks": [("net-team", {"phase": "AwaitingApproval"})],
}


class Api(BaseHTTPRequestHandler):
    """Lists tasks."""

    def do_GET(self) -> None:
        found = TASKS.get(self.path.partition("?")[0], [])
        items = [{"metadata": {"name": name}, "spec": {}, "status": status} for name, status in found]
        body = json.dumps({"metadata": {}, "items": items}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Api) as api:
        thread = threading.Thread(target=api.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{api.server_port}"
        api.shutdown()
        thread.join()


@pytest.fixture
def environ(server: str, tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "PODSLOTS_SERVER": server,
        "PODSLOTS_TOKEN": "t",
        "TERM": "xterm",
    }


def run(environ: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, check=False, env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def script(environ: dict[str, str], shell: str, file: Path) -> None:
    """As the page says it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(run(environ, "podslots", "completion", shell))


Complete = Callable[[str], list[str]]


@pytest.fixture
def in_bash(environ: dict[str, str], tmp_path: Path) -> Complete:
    file = tmp_path / "podslots"
    script(environ, "bash", file)
    code = (
        f"source {file}; read -ra COMP_WORDS <<<\"$1\"; [[ $1 == *' ' ]] && COMP_WORDS+=('');"
        "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _podslots_completion podslots; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    return lambda line: run(environ, "bash", "-c", code, "bash", line).split()


@pytest.fixture
def in_fish(environ: dict[str, str], tmp_path: Path) -> Complete:
    script(environ, "fish", tmp_path / ".config" / "fish" / "completions" / "podslots.fish")
    return lambda line: [
        found.partition("\t")[0] for found in run(environ, "fish", "-c", 'complete -C "$argv"', line).splitlines()
    ]


@pytest.fixture
def in_zsh(environ: dict[str, str], tmp_path: Path) -> Complete:
    """What zsh puts into the line as the tab key is hit: all of them, with a space between, by a widget of its own."""
    script(environ, "zsh", tmp_path / "functions" / "_podslots")
    (tmp_path / ".zshrc").write_text(
        "PS1='ready> '; fpath=(~/functions $fpath); autoload -U compinit; compinit -u\n"
        "zle -C every complete-word every; every() { _main_complete; compstate[insert]=all }\n"
        "bindkey '^I' every; show() { print -r -- \"<$BUFFER>\" >~/line; zle send-break }\n"
        "zle -N show; bindkey '^X' show\n"
    )

    def complete(line: str) -> list[str]:
        there = tmp_path / "line"
        there.unlink(missing_ok=True)
        with Terminal(["zsh", "-i"], environ, tmp_path) as terminal:
            terminal.until_seen(b"ready> ")
            terminal.type(line.encode() + b"\t\x18")
            while not there.exists():
                assert terminal._read(), terminal.seen
            terminal.type(b"exit\n")
            terminal.until_over()
        *_, last = line.split(" ")
        whole = there.read_text().strip()
        return whole[1 + len(line) - len(last) : -1].split()

    return complete


CASES = {
    "podslots appr": ["approve"],
    "podslots rollout sta": ["status"],
    "podslots get ta": ["tasks"],
    "podslots get tasks -o js": ["json"],
    "podslots get tasks --wat": ["--watch"],
    "podslots approve -o na": ["name"],
    "podslots get task net-": ["net-ended", "net-queued", "net-waits"],
    "podslots get task/net-q": ["task/net-queued"],
    "podslots get tasks,po": ["tasks,pools", "tasks,pods"],
    "podslots describe task net-ended net-q": ["net-queued"],
    "podslots approve net": ["net-waits"],
    "podslots plans net": ["net-waits"],
    "podslots approve -n team net": ["net-team"],
    "podslots cancel net": ["net-queued", "net-waits"],
    "podslots retry net": ["net-ended"],
    "podslots wait net-queued --for Su": ["Succeeded"],
    "podslots wait net-queued --for Failed,Su": ["Failed,Succeeded"],
}
SOME = (
    "podslots appr",
    "podslots get tasks --wat",
    "podslots get task/net-q",
    "podslots get tasks,po",
    "podslots approve net",
    "podslots cancel net",
    "podslots wait net-queued --for Failed,Su",
)
"""Of the same program: what a shell may make something else of."""


@pytest.mark.parametrize("line", CASES)
def test_in_bash(in_bash: Complete, line: str) -> None:
    assert sorted(in_bash(line)) == sorted(CASES[line])


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not on the PATH")
@pytest.mark.parametrize("line", SOME)
def test_in_fish(in_fish: Complete, line: str) -> None:
    assert sorted(in_fish(line)) == sorted(CASES[line])


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not on the PATH")
@pytest.mark.parametrize("line", SOME)
def test_in_zsh(in_zsh: Complete, line: str) -> None:
    assert sorted(in_zsh(line)) == sorted(CASES[line])
