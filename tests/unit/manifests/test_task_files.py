"""The policy over a task's files, by itself: as a server does it whose definition overlooks that a file was renamed."""

import random
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from controller import crds
from controller.local.apiserver.access.authorization import Authorizer
from controller.local.apiserver.access.rbac import Rbac
from controller.local.apiserver.admission.policies import Policies
from controller.local.apiserver.errors import ApiError
from controller.local.apiserver.store.outcomes import WriteOptions
from controller.local.apiserver.store.patches import MERGE
from controller.local.apiserver.store.store import Store
from manifests.generate import FOLDER

Json = dict[str, Any]

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
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


def make(store: Store, **spec: Any) -> None:
    body = {
        "apiVersion": "podslots.dev/v1alpha1",
        "kind": "SlotTask",
        "metadata": {"name": "t"},
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
