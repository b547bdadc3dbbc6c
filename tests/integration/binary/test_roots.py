"""dist/slot-agent in roots of other systems: Alpine's C library, none at all, an old one; read-only, not as root."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent import __version__
from agent.wire import Outcome, SlotState, Steps, StepSpec, TaskState, Work
from binary.image import COMMANDS, make_root
from tests.support.binary import (
    IS_ROOT,
    NEEDS_MUSL,
    NEEDS_OLD_ROOT,
    NEEDS_ROOT,
    NOBODY,
    OLD_ROOT,
    BinaryAgent,
    BinaryWorker,
    built,
    compile_step,
    inside,
    installed,
    musl_root,
)
from tests.support.worker_process import until

pytestmark = pytest.mark.skipif(not IS_ROOT, reason=NEEDS_ROOT)

VERSION = f"slot-agent {__version__}\n"

STEP = r"""
#include <stdio.h>
#include <stdlib.h>
/* Writes a plan if told to, else shows it: with the image's own C library, from the task's directory. */
int main(int count, char **arguments) {
    const char *preload = getenv("LD_LIBRARY_PATH");
    FILE *file = fopen("tfplan", count > 1 ? "w" : "r");
    if (!file) { perror("tfplan"); return 1; }
    if (count > 1) { fputs(arguments[1], file); printf("%s LD_LIBRARY_PATH=%s\n", LIBRARY, preload); }
    else { char text[64] = ""; fgets(text, sizeof text, file); printf("%s %s\n", LIBRARY, text); }
    return 0;
}
"""


def empty(root: Path) -> Path:
    """Distroless, and further: one static program."""
    compile_step(root / "step", STEP, "gcc", "-static", '-DLIBRARY="static"')
    return root


def musl(root: Path) -> Path:
    """As Alpine: a program that is linked with musl, and finds no glibc."""
    if not shutil.which("musl-gcc"):
        pytest.skip(NEEDS_MUSL)
    compile_step(musl_root(root) / "step", STEP, "musl-gcc", '-DLIBRARY="musl"')
    return root


def old_glibc(root: Path) -> Path:
    """Debian 11: a program of its own that must be given its own C library, 2.31."""
    if not OLD_ROOT.with_name("complete").exists():
        pytest.skip(NEEDS_OLD_ROOT)
    subprocess.run(["cp", "--archive", "--link", f"{OLD_ROOT}/.", root], check=True)
    script = (
        '#!/bin/sh\n[ $# = 0 ] || { echo "$1" >tfplan; echo "2.31 LD_LIBRARY_PATH=$LD_LIBRARY_PATH"; exit; }\n'
        "getconf GNU_LIBC_VERSION | { read -r _ version; echo $version $(cat tfplan); }\n"
    )
    (root / "step").write_text(script)
    (root / "step").chmod(0o755)
    return root


@pytest.fixture
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that other users can reach, unlike tmp_path."""
    folder = tmp_path_factory.mktemp("roots")
    for path in (folder, *folder.parents[:2]):
        path.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def agent(shared: Path) -> Iterator[BinaryAgent]:
    running = BinaryAgent(shared / "agent", environ={"TMPDIR": str(shared)})
    running.command = (built(), "serve")
    try:
        running.start()
        running.open()
        yield running
    finally:
        running.stop()


@pytest.mark.parametrize(("make", "library"), [(empty, "static"), (musl, "musl"), (old_glibc, "2.31")])
def test_any_image_is_a_worker(make: Callable[[Path], Path], library: str, agent: BinaryAgent, shared: Path) -> None:
    """Its root read-only, its user not root, its own C library for its own programs, variables for them kept."""
    root = shared / "root"
    root.mkdir()
    make(root)
    volumes = {name: shared / name for name in ("work", "credential")}
    for folder in volumes.values():
        folder.mkdir()
    shutil.copy(agent.credentials_dir / "0" / "token", volumes["credential"] / "token")
    for path in (volumes["work"], volumes["credential"], volumes["credential"] / "token"):
        os.chown(path, NOBODY, NOBODY)
    installed(shared / "bin")
    mounts = {shared / "bin": "/podslots/bin", **{path: f"/podslots/{name}" for name, path in volumes.items()}}
    worker = BinaryWorker(agent.url, volumes["credential"], shared / "work")
    # The loader of `unshare` and `sh`, on the way in, must not be steered either: these folders hold nothing for it.
    worker.run(
        *inside(root, ["/podslots/bin/slot-agent", "work"], mounts=mounts),
        LD_LIBRARY_PATH="/opt/nothing",
        PODSLOTS_CREDENTIAL_DIR="/podslots/credential",
        PODSLOTS_WORK_DIR="/podslots/work",
    )
    try:
        steps = Steps(
            plan=StepSpec(command=("/step", "planned"), plan_file="tfplan"), apply=StepSpec(command=("/step",))
        )
        agent.acquire("t.1", "plan_and_apply", Work(name="team/task", attempt=1, steps=steps))
        until(lambda: agent.state().slots[0].state is SlotState.RESERVED or agent.task("t.1").state is TaskState.ENDED)
        task = agent.task("t.1")
        assert task.state is TaskState.RESERVED, (task, worker.events)
        agent.post("/tasks/t.1/approve", {"plan_digest": task.plan_digest, "attempt": 1})
        until(lambda: agent.task("t.1").state is TaskState.ENDED)
    finally:
        worker.kill()
    task = agent.task("t.1")
    assert task.outcome is Outcome.SUCCEEDED
    assert task.plan
    assert task.apply
    assert task.plan.log_tail == f"{library} LD_LIBRARY_PATH=/opt/nothing\n"
    assert task.apply.log_tail == f"{library} planned\n"


def test_the_one_file_runs_with_one_writable_folder(shared: Path) -> None:
    """Not as root, all else read-only, no C library, no /etc, no shell."""
    root, temporary = shared / "root", shared / "tmp"
    temporary.mkdir()
    os.chown(temporary, NOBODY, NOBODY)
    root.mkdir()
    shutil.copy(built(), root / "slot-agent")
    mounts = {temporary: "/scratch"}
    command = inside(root, ["/slot-agent", "--version"], mounts=mounts)
    done = subprocess.run(
        command, env={"PATH": os.environ["PATH"], "TMPDIR": "/scratch"}, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == (VERSION, "")
    (bundle,) = temporary.iterdir()
    assert (bundle.stat().st_uid, bundle.stat().st_mode & 0o777) == (NOBODY, 0o700)


def test_the_image_serves_installs_and_checks_its_health(shared: Path) -> None:
    """What Dockerfile.agent copies, as Pods run it: user 65532, read-only, commands found by PATH."""
    root = shared / "image"
    make_root(built(), root)
    folders = {name: shared / "agent" / name for name in ("state", "tokens", "credentials")}
    agent = BinaryAgent(shared / "agent")
    volume = shared / "bin"
    volume.mkdir()
    for path in (*folders.values(), volume):
        os.chown(path, NOBODY, NOBODY)
    mounts = {volume: "/podslots/bin", **{path: f"/podslots/{name}" for name, path in folders.items()}}
    agent.environ |= {f"PODSLOTS_{name.upper()}_DIR": f"/podslots/{name}" for name in folders}
    path_there = (
        f"{os.environ['PATH']}:/{COMMANDS}"  # the image sets PATH to its folder alone; `chroot` must be found too
    )
    agent.environ |= {"PATH": path_there, "TMPDIR": "/nowhere"}
    agent.command = inside(root, ["slot-agent", "serve"], mounts=mounts)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = inside(root, ["slot-agent", *words], mounts=mounts)
        return subprocess.run(command, env=agent.environ, capture_output=True, text=True, check=False, timeout=120)

    try:
        agent.start()
        assert (run("health").returncode, run("close").returncode) == (0, 0)
        assert agent.get("/slots")["closing"]
        installing = run("install", "/podslots/bin")
        assert (installing.returncode, installing.stderr) == (0, "")
        agent.terminate()
        assert agent.process
        assert agent.process.wait(20) == 0
    finally:
        agent.stop()
    assert run("health").returncode == 1
    assert (
        subprocess.run([volume / "slot-agent", "--version"], capture_output=True, text=True, check=True).stdout
        == VERSION
    )
