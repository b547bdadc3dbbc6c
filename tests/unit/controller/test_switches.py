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


def test_one_of_some_words_is_taken_and_no_other() -> None:
    assert Config.from_environ({"PODSLOTS_HTTP_GUARDED": "all"}).guarded is Guarded.ALL
    with pytest.raises(ConfigError, match="PODSLOTS_HTTP_GUARDED must be one of nothing, page, all, not 'none'"):
        Config.from_environ({"PODSLOTS_HTTP_GUARDED": "none"})
