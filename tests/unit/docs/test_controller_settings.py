"""docs/api.md names every variable that the controller reads, with its default."""

import re

from controller.config import Config
from tests.support.asked import Asked
from tests.support.repository import ROOT

OF_ALL_PROGRAMS = {"HOSTNAME", "KUBERNETES_SERVICE_HOST", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"}
TEXT = (ROOT / "docs" / "api.md").read_text()


def told() -> dict[str, str]:
    section = TEXT.split("\n## Settings of the controller\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in section.splitlines() if line.startswith("| `")]
    pairs = ((re.findall("`([^`]+)`", names), defaults.split(", ")) for names, defaults in rows)
    return {name: default.strip("`") for names, given in pairs for name, default in zip(names, given, strict=True)}


def test_every_variable_is_told() -> None:
    asked = Asked()
    Config.from_environ(asked)
    assert told().keys() == asked.names - OF_ALL_PROGRAMS


def test_with_the_default_that_it_has() -> None:
    config = Config.from_environ({})
    values = told()
    numbers = {
        "PODSLOTS_HTTP_PORT": config.http_port,
        "PODSLOTS_LEASE_SECONDS": config.lease_seconds,
        "PODSLOTS_RESYNC_SECONDS": config.resync_seconds,
        "PODSLOTS_KUBE_QPS": config.kube_qps,
        "PODSLOTS_KUBE_BURST": config.kube_burst,
    }
    assert {name: float(values[name]) for name in numbers} == numbers
    assert values["PODSLOTS_EVICTION_RESPONDER"] == str(config.eviction_responder).lower()
    assert values["PODSLOTS_AGENT_IMAGE"] == config.agent_image
    assert values["PODSLOTS_NAMESPACE"] == config.namespace
    assert values["PODSLOTS_HTTP_HOST"] == "every address"
    assert config.http_host is None
    assert values["PODSLOTS_HTTP_GUARDED"] == config.guarded
    assert values["PODSLOTS_HTTP_TRUST_LOOPBACK"] == str(config.trust_loopback).lower()
