"""Lists: selection, paging at one version, and their JSON."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import orjson

from controller.local.apiserver import requests
from controller.local.apiserver.errors import bad_request, expired, forbidden_field, invalid, version_too_large
from controller.local.apiserver.store import selectors
from controller.local.apiserver.store.registry import Resource
from controller.local.apiserver.store.store import Store
from controller.local.apiserver.store.versions import HistoryExpiredError, Key, Record

_CONTINUE_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)
# A continue token's version that says: go on with whatever is there now.
_INCONSISTENT = -1


@dataclass(frozen=True, slots=True)
class ListRequest:
    """The query of a list."""

    selector: selectors.Selector
    limit: int | None
    version: int | None
    exact: bool
    start_after: Key | None

    @classmethod
    def parse(cls, resource: Resource, query: Mapping[str, str]) -> ListRequest:
        """From query parameters. Raises BadRequest and Invalid."""
        selector = selectors.parse(resource, query.get("labelSelector", ""), query.get("fieldSelector", ""))
        limit = requests.integer(query, "limit")
        version_text = query.get("resourceVersion", "")
        match = query.get("resourceVersionMatch", "")
        token = query.get("continue", "")
        if match and match not in ("Exact", "NotOlderThan"):
            raise invalid(resource.target(), [forbidden_field("resourceVersionMatch", f'unknown value "{match}"')])
        if match and not version_text:
            text = "resourceVersionMatch is forbidden unless resourceVersion is provided"
            raise invalid(resource.target(), [forbidden_field("resourceVersionMatch", text)])
        if token:
            if version_text not in ("", "0"):
                raise bad_request("specifying resource version is not allowed when using continue")
            version, after = _decode_continue(token)
            return cls(selector, limit or None, version, exact=version != _INCONSISTENT, start_after=after)
        if not version_text:
            return cls(selector, limit or None, None, exact=False, start_after=None)
        version = requests.resource_version(version_text)
        exact = match == "Exact" or (bool(limit) and version > 0 and not match)
        if match == "Exact" and version == 0:
            text = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
            raise invalid(resource.target(), [forbidden_field("resourceVersionMatch", text)])
        return cls(selector, limit or None, version, exact, start_after=None)


@dataclass(frozen=True, slots=True)
class Page:
    """One answer to a list."""

    version: int
    records: list[Record]
    continue_token: str = ""
    remaining: int | None = None


def read(store: Store, resource: Resource, namespace: str, request: ListRequest) -> Page:
    """The page a request asks for."""
    current = store.versions.current
    version = request.version
    if version is not None and version > current:
        raise version_too_large(version, current)
    collection = store.versions.collection(resource.key)
    records: Iterable[Record]
    if version is not None and request.exact:
        try:
            records = collection.at(version, namespace, request.start_after)
        except HistoryExpiredError as error:
            raise _expired(version, error.floor, request) from error
        shown = version
    else:
        shown = current
        records = _current(store, resource, namespace, request)
    found: Iterator[Record] = iter(records)
    if request.selector:
        found = (record for record in found if request.selector.matches(record.body))
    if request.limit is None:
        return Page(shown, list(found))
    page = list(islice(found, request.limit))
    if next(found, None) is None:
        return Page(shown, page)
    # The real server counts what is left only where that needs no filtering.
    remaining = None if request.selector else 1 + sum(1 for _ in found)
    return Page(shown, page, _encode_continue(shown, page[-1].key), remaining)


def _current(store: Store, resource: Resource, namespace: str, request: ListRequest) -> Iterable[Record]:
    name = request.selector.name
    if name is not None and (namespace or not resource.namespaced):
        record = store.versions.get(resource.key, (namespace, name))
        skipped = record is None or (request.start_after is not None and record.key <= request.start_after)
        return [] if record is None or skipped else [record]
    return store.versions.collection(resource.key).current(namespace, request.start_after)


def _expired(version: int, floor: int, request: ListRequest) -> Exception:
    if request.start_after is None:
        return expired(f"The resourceVersion for the provided list is too old: {version} ({floor})")
    return expired(_CONTINUE_EXPIRED, {"continue": _encode_continue(_INCONSISTENT, request.start_after)})


def _encode_continue(version: int, last: Key) -> str:
    token = {"v": "meta.k8s.io/v1", "rv": version, "start": f"{last[0]}/{last[1]}\0"}
    return base64.urlsafe_b64encode(orjson.dumps(token)).rstrip(b"=").decode()


def _decode_continue(token: str) -> tuple[int, Key]:
    try:
        decoded = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, _, name = decoded["start"].rstrip("\0").partition("/")
        return int(decoded["rv"]), (namespace, name)
    except (binascii.Error, orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise bad_request(f"invalid continue token: continue key is not valid: {error}") from error


# --- JSON -------------------------------------------------------------------------------------------------


def encode_object(resource: Resource, record: Record) -> bytes:
    """An object with its kind and version in front."""
    return resource.prefix + record.encoded()[1:]


def list_metadata(page: Page) -> dict[str, str | int]:
    """The metadata of a list, in whatever form it is sent."""
    metadata: dict[str, str | int] = {"resourceVersion": str(page.version)}
    if page.continue_token:
        metadata["continue"] = page.continue_token
    if page.remaining is not None:
        metadata["remainingItemCount"] = page.remaining
    return metadata


def encode_list(resource: Resource, page: Page) -> bytes:
    """A list. Items of built-in kinds have no kind of their own, as Go encodes typed lists."""
    kind = resource.list_kind or f"{resource.kind}List"
    metadata = list_metadata(page)
    if resource.custom is not None:
        metadata.setdefault("continue", "")  # their lists are untyped, and Go leaves nothing out of those
    head = orjson.dumps({"kind": kind, "apiVersion": resource.api_version, "metadata": metadata})
    if resource.custom is not None:
        items = (encode_object(resource, record) for record in page.records)
    else:
        items = (record.encoded() for record in page.records)
    return head[:-1] + b',"items":[' + b",".join(items) + b"]}"


def encode_metadata_list(page: Page, api_version: str) -> bytes:
    """A PartialObjectMetadataList."""
    return orjson.dumps(
        {
            "kind": "PartialObjectMetadataList",
            "apiVersion": api_version,
            "metadata": list_metadata(page),
            "items": [partial_metadata(record, api_version) for record in page.records],
        }
    )


def partial_metadata(record: Record, api_version: str) -> dict[str, object]:
    """An object's metadata alone."""
    return {"kind": "PartialObjectMetadata", "apiVersion": api_version, "metadata": record.body["metadata"]}
