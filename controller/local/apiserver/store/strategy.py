"""What a kind decides about its own objects: decoding, defaults, validation, what an update may change.

`Strategy` is the behaviour all kinds share, after k8s.io/apiserver's `rest.RESTCreateStrategy` and its siblings; each
kind overrides where it differs. Strategies are pure: they get a document and give a document or causes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from controller.local.apiserver.errors import (
    ApiError,
    Cause,
    bad_request,
    forbidden_field,
    invalid_value,
    required,
    undecodable_patch,
)
from controller.local.apiserver.schema.typed import DecodeError, Decoder
from controller.local.apiserver.store.registry import Resource

Json = dict[str, Any]

_DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_DNS_LABEL}(\.{_DNS_LABEL})*")
_LABEL = re.compile(_DNS_LABEL)
_QUALIFIED_PART = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
# k8s.io/apimachinery/pkg/api/validation: TotalAnnotationSizeLimitB.
_ANNOTATIONS_BYTES = 256 * 1024
_NAME_LENGTH = 253
_LABEL_LENGTH = 63


@dataclass(frozen=True, slots=True)
class Decoded:
    """A request's document as its kind, and the fields it had that the kind hasn't."""

    body: Json
    unknown: tuple[str, ...] = ()


class Strategy:
    """The behaviour of a plain built-in kind."""

    def __init__(self, resource: Resource) -> None:
        self.resource = resource

    # --- decoding -----------------------------------------------------------------------------------------

    def check_type(self, document: Any) -> Json:
        """The document, if it claims to be of this kind."""
        kind, api_version = self.resource.kind, self.resource.api_version
        if not isinstance(document, dict):
            raise bad_request(f"couldn't get version/kind; json parse error: not an object (must be of type {kind})")
        claimed = document.get("kind") or kind
        version = document.get("apiVersion") or api_version
        if version != api_version:
            raise bad_request(
                f"the API version in the data ({version}) does not match the expected API version ({api_version})"
            )
        if claimed != kind:
            raise bad_request(f'{claimed} in version "{self.resource.version}" cannot be handled as a {kind}')
        if not isinstance(document.get("metadata") or {}, dict):
            raise bad_request(f'{kind} in version "{self.resource.version}" cannot be handled as a {kind}: metadata')
        return document

    def decode(self, document: Json, original: Json | None = None) -> Decoded:
        """The document with its kind's fields only. Raises DecodeError."""
        decoder = Decoder(self.resource.kind)
        body = decoder.decode(document, original)
        body.setdefault("metadata", {})
        return Decoded(body, tuple(decoder.unknown))

    def decode_request(self, document: Any, *, patched: bool = False, original: Json | None = None) -> Decoded:
        """As `decode`, its errors worded for a request body or for the outcome of a patch."""
        document = self.check_type(document)
        try:
            return self.decode(document, original)
        except DecodeError as error:
            if patched:
                raise undecodable_patch(document, str(error)) from error
            raise self.undecodable(str(error)) from error

    def undecodable(self, why: str) -> ApiError:
        """400 for a body that is no such object."""
        kind = self.resource.kind
        return bad_request(f'{kind} in version "{self.resource.version}" cannot be handled as a {kind}: {why}')

    # --- create -------------------------------------------------------------------------------------------

    def prepare_create(self, body: Json, now: datetime) -> Json:
        """The object with its defaults."""
        del now
        return body

    def validate(self, body: Json) -> list[Cause]:
        """What is wrong with the object by itself."""
        del body
        return []

    def validate_name(self, name: str, *, prefix: bool = False) -> str | None:
        """Why a name is refused; a generateName prefix may end with a dash."""
        checked = name.rstrip("-") + "a" if prefix and name.endswith("-") else name
        if len(checked) > _NAME_LENGTH:
            return f"must be no more than {_NAME_LENGTH} bytes"
        return None if _SUBDOMAIN.fullmatch(checked) else SUBDOMAIN_RULE

    # --- update -------------------------------------------------------------------------------------------

    def prepare_update(self, new: Json, old: Json, subresource: str) -> Json:
        """The object an update asks for: parts the (sub)resource doesn't own are taken from the old one."""
        if subresource == "status":
            return {**old, "metadata": new["metadata"], "status": new.get("status", {})}
        if "status" in self.resource.subresources:
            merged = {key: value for key, value in new.items() if key != "status"}
            if "status" in old:
                merged["status"] = old["status"]
            return merged
        return new

    def validate_update(self, new: Json, old: Json, subresource: str) -> list[Cause]:
        """What is wrong with the change."""
        del old, subresource
        return self.validate(new)

    def spec_changed(self, new: Json, old: Json) -> bool:
        """True if metadata.generation must rise."""
        return any(new.get(part) != old.get(part) for part in {*new, *old} if part not in ("metadata", "status"))

    # --- delete -------------------------------------------------------------------------------------------

    def grace_seconds(self, body: Json, asked: int | None) -> int | None:
        """How long the object may take to go; None where the kind knows no graceful deletion."""
        del body, asked
        return None

    # --- presentation -------------------------------------------------------------------------------------

    def bookmark(self) -> Json:
        """The fields that a watch bookmark has besides metadata."""
        return {}


# --- metadata ---------------------------------------------------------------------------------------------


def validate_metadata(metadata: Json) -> list[Cause]:
    """Labels, annotations, finalizers and owners, as ValidateObjectMeta."""
    causes: list[Cause] = []
    for key, value in metadata.get("labels", {}).items():
        causes.extend(_label_causes(key, value))
    size = 0
    for key, value in metadata.get("annotations", {}).items():
        why = _qualified_name_error(key.lower())
        if why:
            causes.append(invalid_value("metadata.annotations", _quote(key), why))
        size += len(key) + len(value)
    if size > _ANNOTATIONS_BYTES:
        causes.append(
            Cause(
                "FieldValueTooLong",
                f"Too long: may not be more than {_ANNOTATIONS_BYTES} bytes",
                "metadata.annotations",
            )
        )
    for finalizer in metadata.get("finalizers", ()):
        why = _qualified_name_error(finalizer)
        if why:
            causes.append(invalid_value("metadata.finalizers", _quote(finalizer), why))
    causes.extend(_owner_causes(metadata.get("ownerReferences", ())))
    return causes


def _label_causes(key: str, value: str) -> list[Cause]:
    why = _qualified_name_error(key)
    if why:
        return [invalid_value("metadata.labels", _quote(key), why)]
    if len(value) > _LABEL_LENGTH:
        return [invalid_value("metadata.labels", _quote(value), f"must be no more than {_LABEL_LENGTH} bytes")]
    if value and not _QUALIFIED_PART.fullmatch(value):
        text = (
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
            "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used "
            "for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        )
        return [invalid_value("metadata.labels", _quote(value), text)]
    return []


def _qualified_name_error(text: str) -> str | None:
    prefix, slash, name = text.rpartition("/")
    if slash and not (_SUBDOMAIN.fullmatch(prefix) and len(prefix) <= _NAME_LENGTH):
        return f"prefix part {SUBDOMAIN_RULE}"
    if not name or len(name) > _LABEL_LENGTH or not _QUALIFIED_PART.fullmatch(name):
        return (
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
            "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
            "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        )
    return None


def _owner_causes(references: Any) -> list[Cause]:
    causes: list[Cause] = []
    controllers = 0
    for index, reference in enumerate(references):
        path = f"metadata.ownerReferences[{index}]"
        causes.extend(
            required(f"{path}.{part}", "must not be empty")
            for part in ("apiVersion", "kind", "name", "uid")
            if not reference.get(part)
        )
        controllers += bool(reference.get("controller"))
    if controllers > 1:
        causes.append(
            invalid_value("metadata.ownerReferences", "[]", "Only one reference can have Controller set to true")
        )
    return causes


def validate_metadata_update(new: Json, old: Json) -> list[Cause]:
    """What an update may not do to metadata, as ValidateObjectMetaUpdate."""
    causes = [
        invalid_value(f"metadata.{name}", _quote(new[name]), "field is immutable")
        for name in ("name", "namespace", "uid", "creationTimestamp")
        if new.get(name, old.get(name)) != old.get(name)
    ]
    if "deletionTimestamp" in old:
        added = [f for f in new.get("finalizers", ()) if f not in old.get("finalizers", ())]
        if added:
            shown = ", ".join(_quote(finalizer) for finalizer in added)
            causes.append(
                forbidden_field(
                    "metadata.finalizers",
                    "no new finalizers can be added if the object is being deleted, "
                    f"found new finalizers []string{{{shown}}}",
                )
            )
    return causes


def is_dns_label(text: str) -> bool:
    """True for an RFC 1123 label of at most 63 characters."""
    return len(text) <= _LABEL_LENGTH and _LABEL.fullmatch(text) is not None


def _quote(text: str) -> str:
    return orjson.dumps(text).decode()
