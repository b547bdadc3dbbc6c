"""What is read from the files: the API server's writes, agents' transitions, workers' starts and ends.

All files come from one machine, so their times come from one clock. Nothing here knows the product's code: formats are
read as they stand in the files, and what can't be read is said.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

Json = dict[str, Any]

AGENT = "slot-agent"
SUCCESSES = range(200, 300)
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """A request that changed an object, or may have: `answered` is False if the server was killed meanwhile.

    `at` is when the server decided on it, and `order` its place among all decisions.
    """

    verb: str
    resource: str
    subresource: str
    user: str
    namespace: str
    name: str
    uid: str
    version: str
    at: datetime
    order: int
    body: Any
    answered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One JSON line of a container's log."""

    pod_uid: str
    container: str
    run: int
    at: datetime
    message: str
    fields: Json


@dataclass(slots=True)
class Records:
    """All that was read. `logs` has each Pod's containers' runs; `missing` says what is not as it should be."""

    writes: list[Write] = field(default_factory=list)
    logs: dict[str, dict[str, dict[int, list[Line]]]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def lines(self, pod_uid: str, container: str) -> Iterator[Line]:
        """What a container said in all of its runs, in order."""
        for _, lines in sorted(self.logs.get(pod_uid, {}).get(container, {}).items()):
            yield from lines


def read(audit: Path, logs: Path) -> Records:
    """Read everything below two places: the audit log, and POD-UID/CONTAINER/RUN.log."""
    records = Records()
    _read_audit(audit, records)
    if not logs.is_dir():
        records.missing.append(f"there is no folder of container logs at {logs}")
        return records
    for path in sorted(logs.glob("*/*/*.log")):
        pod_uid, container, run = path.parts[-3], path.parts[-2], path.stem
        if not run.isdigit():
            records.missing.append(f"{path} is no log of a container's run")
            continue
        lines = list(_read_log(path, pod_uid, container, int(run), records))
        records.logs.setdefault(pod_uid, {}).setdefault(container, {})[int(run)] = lines
    return records


def _read_audit(path: Path, records: Records) -> None:
    begun: dict[str, tuple[int, Json]] = {}
    versions: set[str] = set()
    for order, entry in _entries(path, records):
        if entry.get("stage") == "RequestReceived":
            begun[entry["auditID"]] = (order, entry)
            continue
        first = begun.pop(entry["auditID"], None)
        if entry["responseStatus"]["code"] in SUCCESSES:
            place, decided = first or (order, entry)
            write = _write(entry, place, _decided(decided), answered=True)
            records.writes.append(write)
            if first is not None:  # else it changed nothing, and shows the version of the write before it
                versions.add(write.version)
    for order, entry in begun.values():
        write = _write(entry, order, _decided(entry), answered=False)
        # The version of a write that was lost with the server is given to another one after the restart.
        if write.version not in versions:
            records.writes.append(write)
    records.writes.sort(key=lambda write: write.order)


def _entries(path: Path, records: Records) -> Iterator[tuple[int, Json]]:
    """The lines of the audit log that are about writes."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError as error:
        records.missing.append(f"the audit log can't be read: {error}")
        return
    if not lines:
        records.missing.append(f"the audit log {path} is empty")
    for order, line in enumerate(lines):
        try:
            entry: Json = json.loads(line)
        except ValueError:
            records.missing.append(f"line {order + 1} of the audit log can't be read")
            continue
        if entry.get("verb") in WRITES and "objectRef" in entry and not _is_dry(entry):
            yield order, entry


def _is_dry(entry: Json) -> bool:
    """Whether nothing was to be stored."""
    return "dryRun=" in entry.get("requestURI", "").partition("?")[2]


def _decided(entry: Json) -> datetime:
    stage = "stageTimestamp" if entry.get("stage") == "RequestReceived" else "requestReceivedTimestamp"
    return datetime.fromisoformat(entry[stage])


def _write(entry: Json, order: int, at: datetime, *, answered: bool) -> Write:
    reference = entry["objectRef"]
    return Write(
        verb=entry["verb"],
        resource=reference.get("resource", ""),
        subresource=reference.get("subresource", ""),
        user=entry.get("user", {}).get("username", ""),
        namespace=reference.get("namespace", ""),
        name=reference.get("name", ""),
        uid=reference.get("uid", ""),
        version=reference.get("resourceVersion", ""),
        at=at,
        order=order,
        body=entry.get("requestObject"),
        answered=answered,
    )


def _read_log(path: Path, pod_uid: str, container: str, run: int, records: Records) -> Iterator[Line]:
    for number, text in enumerate(path.read_text(errors="replace").splitlines(), 1):
        if not text.startswith("{"):  # a step's output stands behind its task's name
            continue
        try:
            fields = json.loads(text)
            message = fields.get("message") or fields.get("event")
            at = datetime.fromisoformat(fields["time"])
        except (ValueError, KeyError, AttributeError):
            # What was dropped is said without a time of its own.
            records.missing.append(f"line {number} of {path} can't be used: {text[:80]}")
            continue
        yield Line(pod_uid=pod_uid, container=container, run=run, at=at, message=str(message), fields=fields)
