"""The policy over a task's files, by itself: their definition has no schema, so it sees neither names nor changes."""

import math
import random
import re
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.paths import MAX_PATH_LENGTH, PATH_RULE, folder_among, is_path
from controller import crds
from controller.local.apiserver.access.authorization import Authorizer
from controller.local.apiserver.access.rbac import Rbac
from controller.local.apiserver.admission.policies import Policies
from controller.local.apiserver.errors import ApiError
from controller.local.apiserver.store.deletion import DeleteOptions
from controller.local.apiserver.store.outcomes import WriteOptions
from controller.local.apiserver.store.patches import MERGE
from controller.local.apiserver.store.store import Store
from manifests.generate import FOLDER

Json = dict[str, Any]

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MOST_COST = 1_000_000
"""Of one expression of a policy, in CEL's units, as it runs. Kubernetes refuses the object of a dearer one."""
FILES = {"main.tf": "a", "b.tf": {"text": "b", "mode": "0644"}}


def without_rules(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: without_rules(value) for key, value in schema.items() if key != "x-kubernetes-validations"}
    return [without_rules(item) for item in schema] if isinstance(schema, list) else schema


@pytest.fixture
def store() -> Store:
    made, rng = Store(), random.Random(1)
    made.bootstrap(NOW, rng)
    made.admit = Policies(made, Authorizer(Rbac(made), frozenset(), enforce=False)).admit
    for path in (crds.folder() / "slottasks.yaml", FOLDER / "task-files.yaml"):
        for document in yaml.safe_load_all(path.read_text()):
            group, _, kind = f"{document['apiVersion'].partition('/')[0]} {document['kind']}".partition(" ")
            plural = {"ValidatingAdmissionPolicy": "validatingadmissionpolicies"}.get(kind, f"{kind.lower()}s")
            resource = made.registry.by_key(f"{plural}.{group}")
            made.create(resource, "", without_rules(document), now=NOW, rng=rng, options=WriteOptions())
    return made


def patch(store: Store, files: Json | None, **spec: Any) -> None:
    resource = store.registry.by_key("slottasks.podslots.dev")
    body = {"spec": {"files": files, **spec}}
    store.patch(resource, "default", "t", MERGE, body, subresource="", options=WriteOptions())


def make(store: Store, name: str = "t", /, **spec: Any) -> None:
    body = {
        "apiVersion": "podslots.dev/v1alpha1",
        "kind": "SlotTask",
        "metadata": {"name": name},
        "spec": {"pool": "p", "type": "plan", "steps": {"plan": {"command": ["true"]}}, **spec},
    }
    resource = store.registry.by_key("slottasks.podslots.dev")
    store.create(resource, "default", body, now=NOW, rng=random.Random(1), options=WriteOptions())


@pytest.mark.parametrize(
    "files",
    [
        {"main.tf": None, "other.tf": "a"},
        {"main.tf": "c"},
        {"more.tf": "d"},
        {"main.tf": None},
        {"b.tf": {"mode": "0755"}},
        None,
    ],
    ids=["another name", "another content", "one more", "one less", "another mode", "none any more"],
)
def test_no_change_of_files_passes(store: Store, files: Json | None) -> None:
    make(store, files=FILES)
    with pytest.raises(
        ApiError, match="only approval, cancel and priority can be changed; a changed task needs a new name"
    ):
        patch(store, files)
    patch(store, {}, priority=3)


def test_a_task_without_files_can_be_changed_and_gets_none(store: Store) -> None:
    make(store)
    patch(store, None, priority=3)
    with pytest.raises(ApiError, match="only approval"):
        patch(store, FILES)


@pytest.mark.parametrize(
    "path", ["./main.tf", "/etc/passwd", "../a", "a/../b", "a//b", "a/", "", ".", "a" * 256, "a\0b"]
)
def test_a_path_that_leads_elsewhere_or_is_spelled_in_another_way_is_refused_at_once(store: Store, path: str) -> None:
    with pytest.raises(ApiError, match=re.escape(f"spec.files: each {PATH_RULE}")):
        make(store, files={"a.tf": "", path: ""})


def test_a_path_too_long_is_refused_at_once(store: Store) -> None:
    make(store, files={"/".join(["a" * 127] * 8): ""})
    with pytest.raises(ApiError, match=re.escape(f"spec.files: each {PATH_RULE}")):
        make(store, files={"/".join(["a" * 127] * 8) + "/b": ""})


def test_a_file_that_is_the_folder_of_another_is_refused_at_once(store: Store) -> None:
    make(store, files={"a": "", "ab": "", "b/a": "", "b/c": ""})
    with pytest.raises(ApiError, match=r"spec\.files: one is the folder of another"):
        make(store, files={"b/c/d": "", "b/c": ""})


def test_the_largest_task_stays_under_the_cost_that_an_expression_may_have() -> None:
    """Each path is compared with each: CEL counts a tenth of a length to add the slash, and to look for it."""
    definition = yaml.safe_load((crds.folder() / "slottasks.yaml").read_text())
    spec = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    files = spec["properties"]["files"]["maxProperties"]
    steps_of_a_pair = 8
    assert files**2 * (2 * math.ceil(MAX_PATH_LENGTH / 10) + steps_of_a_pair) < MOST_COST


@given(st.dictionaries(st.text("a./\0\n", max_size=6), st.just(""), max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_policy_and_the_parser_agree(store: Store, files: dict[str, str]) -> None:
    try:
        make(store, "agree", files=files)
    except ApiError:
        assert not all(map(is_path, files)) or folder_among(files) is not None
    else:
        assert all(map(is_path, files))
        assert folder_among(files) is None
        store.delete(store.registry.by_key("slottasks.podslots.dev"), "default", "agree", DeleteOptions(), now=NOW)
