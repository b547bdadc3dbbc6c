"""A switch is true or false, and nothing else is taken for either."""

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
