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


WITHOUT_IPV6 = """
import errno, socket

class Socket(socket.socket):
    def __init__(self, family=-1, *arguments, **more):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        super().__init__(family, *arguments, **more)

socket.socket = Socket
from controller.__main__ import main
main()
"""
"""As on a node whose kernel has none, but that its resolver still names addresses of it."""


def environment(folder: Path, **more: str) -> dict[str, str]:
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(KUBECONFIG)
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PODSLOTS_KUBECONFIG": str(kubeconfig),
        "PODSLOTS_AGENT_IMAGE": "podslots/agent:test",
        "PODSLOTS_HTTP_PORT": "0",
        **more,
    }


def test_where_there_is_no_ipv6_every_address_of_ipv4_is_served(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with first_process((sys.executable, "-c", WITHOUT_IPV6), environment(tmp_path), log) as process:
        wait_for(lambda: b'"serving"' in log.read_bytes(), "it serves")
        assert b'"url":"http://0.0.0.0:' in log.read_bytes()
        process.send(signal.SIGTERM)
        assert process.wait() == 0, log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("serving", [False, True], ids=["at once", "once it serves"])
def test_a_controller_that_starts_is_stopped(number: int, serving: bool, tmp_path: Path) -> None:
    log, environ = tmp_path / "log", environment(tmp_path, PODSLOTS_HTTP_HOST="127.0.0.1")
    with first_process((sys.executable, "-m", "controller"), environ, log) as process:
        wait_for(lambda: process.takes_signals, "it keeps or takes signals")
        if serving:
            wait_for(lambda: b'"serving"' in log.read_bytes(), "it serves")
        process.send(number)
        assert process.wait() == 0, log.read_text()
