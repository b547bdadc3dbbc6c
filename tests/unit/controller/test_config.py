"""The controller's settings: each is taken as it is meant, or refused by its name in one short line."""

import os
import subprocess
import sys

import pytest

from controller.config import Config, ConfigError, Guarded


@pytest.mark.parametrize(("text", "expected"), [("true", True), ("false", False)])
def test_a_switch_is_read(text: str, expected: bool) -> None:
    assert Config.from_environ({"PODSLOTS_EVICTION_RESPONDER": text}).eviction_responder is expected


@pytest.mark.parametrize("text", ["", "no", "0", "False"])
def test_anything_else_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(ConfigError, match="PODSLOTS_EVICTION_RESPONDER must be true or false"):
        Config.from_environ({"PODSLOTS_EVICTION_RESPONDER": text})


def test_the_api_servers_address_tells_what_addresses_pods_have() -> None:
    """Kubernetes gives it to every Pod; it is of the cluster's first family, as the Pods' own are."""
    assert Config.from_environ({"KUBERNETES_SERVICE_HOST": "fd00:10:96::1"}).ipv6
    assert not Config.from_environ({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}).ipv6
    assert not Config.from_environ({}).ipv6


def test_the_controller_serves_every_address_unless_it_is_given_one() -> None:
    """On a cluster with IPv6 alone its kubelet probes it there."""
    assert Config.from_environ({}).http_host is None
    assert Config.from_environ({"PODSLOTS_HTTP_HOST": "127.0.0.1"}).http_host == "127.0.0.1"


def test_one_of_some_words_is_taken_and_no_other() -> None:
    assert Config.from_environ({"PODSLOTS_HTTP_GUARDED": "all"}).guarded is Guarded.ALL
    with pytest.raises(ConfigError, match="PODSLOTS_HTTP_GUARDED must be one of nothing, page, all, not 'none'"):
        Config.from_environ({"PODSLOTS_HTTP_GUARDED": "none"})


@pytest.mark.parametrize("text", ["", "-1", "8080.7", "1e3", "65536", "1_0", " 5", "\u0665", "x", "9" * 5000])
@pytest.mark.parametrize("name", ["PODSLOTS_HTTP_PORT", "PODSLOTS_KUBE_BURST"])
def test_a_whole_number_is_digits_within_its_bounds(name: str, text: str) -> None:
    if (name, text) == ("PODSLOTS_KUBE_BURST", "65536"):
        assert Config.from_environ({name: text}).kube_burst == 65536
        return
    with pytest.raises(ConfigError, match=f"{name} must be a whole number from ") as refused:
        Config.from_environ({name: text})
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "1e300", "x", "9" * 5000])
@pytest.mark.parametrize("name", ["PODSLOTS_LEASE_SECONDS", "PODSLOTS_RESYNC_SECONDS", "PODSLOTS_KUBE_QPS"])
def test_a_number_is_within_its_bounds(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be ") as refused:
        Config.from_environ({name: text})
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("name", ["PODSLOTS_NAMESPACE", "PODSLOTS_WATCH_NAMESPACE"])
def test_a_namespace_is_the_name_of_one(name: str) -> None:
    assert Config.from_environ({name: ""}) == Config.from_environ({})
    assert "team-a" in {
        Config.from_environ({name: "team-a"}).namespace,
        Config.from_environ({name: "team-a"}).watch_namespace,
    }
    for text in ("a/b", "../x", "Team", "a b", "a\n", "x" * 64):
        with pytest.raises(ConfigError, match=f"{name} must be the name of a namespace"):
            Config.from_environ({name: text})


@pytest.mark.parametrize("name", ["PODSLOTS_AGENT_IMAGE", "PODSLOTS_IDENTITY", "PODSLOTS_CONTEXT", "PODSLOTS_TOKEN"])
def test_what_is_no_text_is_refused(name: str) -> None:
    """Found as it was written into an object, or into the log, it would be a traceback there."""
    with pytest.raises(ConfigError, match=f"{name} must be text in UTF-8"):
        Config.from_environ({name: os.fsdecode(b"\xff")})


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
def test_a_proxy_of_the_environment_is_one(name: str) -> None:
    """It may have a password, which is not said."""
    for text in ("", "proxy:3128", "http://me:pw@proxy:3128", "https://[::1]:3128/", "HTTP://proxy:3128"):
        Config.from_environ({name: text})
    for text in ("http://me:pw@[::1", "http://me:pw@proxy:x", "me:pw@proxy:99999", "socks5://me:pw@proxy", "http://"):
        with pytest.raises(ConfigError, match=f"{name} must be http://HOST:PORT") as refused:
            Config.from_environ({name: text})
        assert "pw" not in str(refused.value)


@pytest.mark.parametrize(
    "environ", [{"NO_PROXY": "*"}, {"no_proxy": "10.96.0.1,.svc", "KUBERNETES_SERVICE_HOST": "10.96.0.1"}]
)
def test_a_proxy_that_is_not_used_may_be_anything(environ: dict[str, str]) -> None:
    Config.from_environ({"HTTPS_PROXY": "socks5://proxy", "HTTP_PROXY": "socks5://proxy", **environ})


def test_settings_that_can_not_be_used_end_the_process_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "controller"],
        env={**os.environ, "PODSLOTS_HTTP_PORT": "99999"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "slot-controller: PODSLOTS_HTTP_PORT must be a whole number from 0 to 65535, not '99999'\n"
