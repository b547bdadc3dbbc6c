"""As the first process of its container, the controller is stopped by the first SIGTERM, whenever it comes (N2)."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.agent_process import wait_for
from tests.support.first_process import first_process
from tests.support.repository import ROOT

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: none
contexts: [{name: none, context: {cluster: none, user: none}}]
clusters: [{name: none, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: none, user: {}}]
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("serving", [False, True], ids=["at once", "once it serves"])
def test_a_controller_that_starts_is_stopped(number: int, serving: bool, tmp_path: Path) -> None:
    kubeconfig, log = tmp_path / "kubeconfig", tmp_path / "log"
    kubeconfig.write_text(KUBECONFIG)
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PODSLOTS_KUBECONFIG": str(kubeconfig),
        "PODSLOTS_AGENT_IMAGE": "podslots/agent:test",
        "PODSLOTS_HTTP_HOST": "127.0.0.1",
        "PODSLOTS_HTTP_PORT": "0",
    }
    with first_process((sys.executable, "-m", "controller"), environ, log) as process:
        wait_for(lambda: process.takes_signals, "it keeps or takes signals")
        if serving:
            wait_for(lambda: b'"serving"' in log.read_bytes(), "it serves")
        process.send(number)
        assert process.wait() == 0, log.read_text()
