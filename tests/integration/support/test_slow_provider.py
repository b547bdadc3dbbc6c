"""Our own provider, under real Terraform without podslots: signals do to it what they do to the providers of clouds."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.clouds import Folder
from tests.support.terraform import make_mirror, mirror_only

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not on the PATH"),
]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_makes_its_things_to_the_end_at_sigint_and_dies_of_sigterm(tmp_path: Path, number: signal.Signals) -> None:
    """The signal goes to the whole group, as at a terminal. Of SIGTERM all three things are lost."""
    folder = Folder(tmp_path, make_mirror(tmp_path / "mirror"))
    (tmp_path / "main.tf").write_text(folder.configuration("t", seconds=4))
    (tmp_path / "mirror.tfrc").write_text(mirror_only(folder.mirror))
    more = {"HOME": str(tmp_path), "CHECKPOINT_DISABLE": "1", "TF_CLI_CONFIG_FILE": "mirror.tfrc"}
    environ = {**os.environ, **more}
    subprocess.run(["terraform", "init", "-input=false"], cwd=tmp_path, env=environ, check=True, capture_output=True)
    with subprocess.Popen(
        ["terraform", "apply", "-auto-approve", "-input=false", "-no-color"],
        cwd=tmp_path,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as running:
        try:
            _until_all_are_begun(folder)
            os.killpg(running.pid, number)
            said, _ = running.communicate(timeout=60)
        except BaseException:
            os.killpg(running.pid, signal.SIGKILL)
            raise
    assert "Gracefully shutting down" in said
    things = {"t-0", "t-1", "t-2"}
    assert folder.made("t") == things
    if number is signal.SIGINT:
        assert folder.in_state("t") == things, said
    else:
        assert "Plugin did not respond" in said
        assert folder.in_state("t") == set()
    assert not folder.locked("t")


def _until_all_are_begun(folder: Folder) -> None:
    until = time.monotonic() + 60
    while len(folder.made("t")) < 3:
        assert time.monotonic() < until, "nothing is being made"
        time.sleep(0.05)
