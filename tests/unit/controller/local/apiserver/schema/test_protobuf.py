"""Protobuf bodies: what kubectl sent to a real API server is read as the JSON that it stands for."""

from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.local.apiserver.schema.protobuf import ProtobufError, decode
from tests.support.transcripts import Scenario


def _recorded(index: int) -> bytes:
    return base64.b64decode(Scenario("v1.36", "protobuf").steps()[index]["request"]["body"]["base64"])


def test_a_recorded_config_map_is_read() -> None:
    metadata = {"name": "x", "namespace": "conformance"}
    assert decode(_recorded(0)) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {"a": "b"},
    }


@pytest.mark.parametrize("body", [b"{}", b"k8s\0garbage", b"k8s\0", b"k8s\0\x0a\x05"])
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(ProtobufError):
        decode(body)


@given(st.integers(min_value=4, max_value=60), st.binary(max_size=6))
def test_a_damaged_message_is_refused_or_read_but_never_fails_otherwise(place: int, damage: bytes) -> None:
    body = _recorded(0)
    with contextlib.suppress(ProtobufError):
        decode(body[:place] + damage + body[place + len(damage) :])
