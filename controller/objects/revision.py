"""A ControllerRevision: one template with its layout that a pool had, under a number that says which came later.

`data` is `{"template": …, "slots": […]}` as they stood in the pool's spec. The name has a digest of it, so that the
same template is the same object whenever it comes back, and there is one for it at most.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from controller import names

Json = dict[str, Any]

API_VERSION = "apps/v1"
KIND = "ControllerRevision"
FIELDS = ("template", "slots")
"""What of a pool's spec a Pod is made from, and what an undo brings back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """What is known of one without its data."""

    name: str
    number: int
    resource_version: str

    @staticmethod
    def of(obj: Json) -> "Revision":
        """From the object."""
        metadata = obj["metadata"]
        return Revision(
            name=metadata["name"], number=obj.get("revision") or 0, resource_version=metadata["resourceVersion"]
        )


def content(pool: Json) -> Json:
    """What of a pool's spec is kept."""
    return {field: pool["spec"][field] for field in FIELDS if pool["spec"].get(field) is not None}


def name_of(pool: Json) -> str:
    """The name of the revision that has the pool's present template and layout."""
    text = json.dumps(content(pool), sort_keys=True, separators=(",", ":"))
    return f"{pool['metadata']['name']}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def belongs_to(obj: Json, pool: Json) -> bool:
    """Whether a revision is of this pool, and not of an earlier one with the same name."""
    owners = obj["metadata"].get("ownerReferences") or ()
    return any(entry.get("controller") and entry["uid"] == pool["metadata"]["uid"] for entry in owners)


def is_orphan(obj: Json) -> bool:
    """Whether a revision is nobody's: its pool was deleted so that what it owned stays."""
    return not any(entry.get("controller") for entry in obj["metadata"].get("ownerReferences") or ())


def owner(pool: Json) -> Json:
    """The reference by which a revision is the pool's."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "SlotPool",
        "name": pool["metadata"]["name"],
        "uid": pool["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }


def document(pool: Json, number: int) -> Json:
    """The object for the pool's present template."""
    metadata = pool["metadata"]
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": name_of(pool),
            "namespace": metadata["namespace"],
            "labels": {names.POOL_LABEL: metadata["name"]},
            "ownerReferences": [owner(pool)],
        },
        "data": content(pool),
        "revision": number,
    }
