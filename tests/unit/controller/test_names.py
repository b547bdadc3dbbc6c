"""Names are legal for Kubernetes whatever they are made of, and don't collide."""

import random
import re

from hypothesis import given
from hypothesis import strategies as st

from controller import names

DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
pool_names = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", fullmatch=True)


@given(pool_names, st.integers())
def test_a_pods_name_is_a_host_name(pool: str, seed: int) -> None:
    assert DNS_LABEL.fullmatch(names.pod_name(pool, random.Random(seed).choice))


def test_1000_pods_at_once_have_1000_names() -> None:
    """T18."""
    choice = random.Random(1).choice
    assert len({names.pod_name("pool", choice) for _ in range(1000)}) == 1000


@given(st.text(min_size=1))
def test_a_lock_key_of_any_characters_makes_a_legal_name(key: str) -> None:
    assert DNS_LABEL.fullmatch(names.lock_lease(key))


@given(st.uuids().map(str), st.integers(0, 10**6))
def test_a_task_id_leads_back_to_the_task(uid: str, attempt: int) -> None:
    assert names.split_task_id(names.task_id(uid, attempt)) == (uid, attempt)


def test_what_the_controller_did_not_make_is_no_task_id() -> None:
    for text in ("", "job", "a.", ".1", "a.b", "a.-1", "a.1e3", "a.²"):
        assert names.split_task_id(text) is None
