"""Logs of a small run, made by hand, for the checker's own tests. A test alters the run, and sees that it is found."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

Json = dict[str, Any]

BEGIN = datetime(2024, 5, 1, tzinfo=UTC)
CONTROLLER = "system:serviceaccount:podslots-system:podslots-controller"
KUBELET = "system:node:local"
DIGEST = "sha256:" + "a" * 64


@dataclass
class MadeRun:
    """Collects lines, and writes them as a run leaves them. Times are seconds since it began."""

    folder: Path
    audit: list[Json] = field(default_factory=list)
    logs: dict[tuple[str, str, int], list[str]] = field(default_factory=dict)
    version: int = 0

    def write(
        self, at: float, verb: str, ref: str, body: Any = None, *, user: str = CONTROLLER, code: int = 200
    ) -> None:
        """An answered write; `ref` is RESOURCE[/SUBRESOURCE]:NAME, and UIDs are names with a `u-` before."""
        self.begin(at, verb, ref, body, user=user)
        self.finish(at + 0.001, code)

    def begin(
        self, at: float, verb: str, ref: str, body: Any = None, *, user: str = CONTROLLER, query: str = ""
    ) -> None:
        """A write that the server decided on, with no answer yet."""
        self.version += 1
        kind, _, name = ref.partition(":")
        resource, _, subresource = kind.partition("/")
        self.audit.append(
            {
                "stage": "RequestReceived",
                "auditID": f"id-{self.version}",
                "verb": verb,
                "requestURI": f"/{resource}/{name}?{query}",
                "user": {"username": user},
                "objectRef": {
                    "resource": resource,
                    "subresource": subresource,
                    "namespace": "default",
                    "name": name,
                    "uid": f"u-{name}",
                    "resourceVersion": str(self.version),
                },
                "requestObject": body,
                "requestReceivedTimestamp": clock(at),
                "stageTimestamp": clock(at),
            }
        )

    def finish(self, at: float, code: int = 200) -> None:
        """The answer to the last write."""
        last = self.audit[-1]
        done = {"stage": "ResponseComplete", "responseStatus": {"code": code}, "stageTimestamp": clock(at)}
        self.audit.append({**last, **done})

    def agent(self, at: float, message: str, *, pod: str = "p", run: int = 0, **fields: Any) -> None:
        """A line of an agent's log; `from_` stands for `from`."""
        fields = {name.rstrip("_"): value for name, value in fields.items()}
        self._line(pod, "slot-agent", run, {"time": clock(at), "message": message, "pod": pod, **fields})

    def worker(self, at: float, event: str, *, pod: str = "p", slot: int = 0, run: int = 0, **fields: Any) -> None:
        """A line of a worker's log."""
        self._line(pod, f"worker-{slot}", run, {"time": clock(at), "event": event, **fields})

    def _line(self, pod: str, container: str, run: int, fields: Json) -> None:
        self.logs.setdefault((f"u-{pod}", container, run), []).append(json.dumps(fields))

    def save(self) -> Path:
        """Write it all down."""
        (self.folder / "audit.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in self.audit))
        for (pod, container, run), lines in self.logs.items():
            path = self.folder / "logs" / pod / container / f"{run}.log"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{line}\n" for line in lines))
        return self.folder

    # --- whole parts of a run -----------------------------------------------------------------------------------------

    def pod(self, at: float, name: str = "p") -> None:
        """A Pod that is created, started and opened."""
        self.write(at, "create", f"pods:{name}", {"metadata": {"labels": {"podslots.dev/pool": "pool"}}}, code=201)
        containers = [{"name": "slot-agent", **RUNNING}]
        workers = [{"name": "worker-0", **RUNNING}, {"name": "worker-1", **RUNNING}]
        status = {"phase": "Running", "initContainerStatuses": containers, "containerStatuses": workers}
        self.write(at + 0.1, "patch", f"pods/status:{name}", {"status": status}, user=KUBELET)
        self.agent(at + 0.1, "restored", pod=name, phase="drained", drain_id="born-x", fence=0, recovering=[])
        self.worker(at + 0.1, "registered with the agent", pod=name)
        self.worker(at + 0.1, "registered with the agent", pod=name, slot=1)
        self.agent(at + 0.2, "phase", pod=name, phase="open", drain_id="born-x")

    def task(self, at: float, name: str, **spec: Any) -> None:
        """A SlotTask with a plan and an apply is created."""
        steps = {"plan": {"command": ["p"]}, "apply": {"command": ["a"]}}
        self.write(at, "create", f"slottasks:{name}", {"spec": {"steps": steps, **spec}}, user="admin", code=201)

    def phase(self, at: float, name: str, phase: str) -> None:
        """The controller writes a task's phase."""
        self.write(at, "patch", f"slottasks/status:{name}", {"status": {"phase": phase}})

    def approve(self, at: float, name: str, *, digest: str = DIGEST, attempt: int = 1, user: str = "anna") -> None:
        """Somebody approves."""
        approval = {"attempt": attempt, "planDigest": digest}
        self.write(at, "patch", f"slottasks:{name}", {"spec": {"approval": approval}}, user=user)

    def slot(self, at: float, change: str, task: str, *, fence: int, pod: str = "p", slot: int = 0) -> None:
        """A slot's transition, as `idle>running`."""
        before, _, after = change.partition(">")
        self.agent(at, "slot", pod=pod, slot=slot, task=f"u-{task}.1", from_=before, to=after, fence=fence)

    def step(self, at: float, end: float, task: str, step: str, *, pod: str = "p", slot: int = 0) -> None:
        """A worker runs a step."""
        about: Json = {"task_id": f"u-{task}.1", "step": step}
        digest = {"digest": DIGEST}
        started = {**about, **(digest if step == "apply" else {})}
        ended = {**about, "outcome": "succeeded", **(digest if step == "plan" else {})}
        self.worker(at, "step started", pod=pod, slot=slot, **started)
        self.worker(end, "step ended", pod=pod, slot=slot, **ended)

    def planned(self, at: float, task: str, *, fence: int = 1, pod: str = "p", slot: int = 0) -> None:
        """A task's plan from its acquire to its reservation, within a second."""
        self.slot(at, "idle>running", task, fence=fence, pod=pod, slot=slot)
        self.phase(at + 0.1, task, "Running")
        self.step(at + 0.2, at + 0.8, task, "plan", pod=pod, slot=slot)
        self.slot(at + 0.9, "running>reserved", task, fence=fence + 1, pod=pod, slot=slot)
        self.agent(at + 0.9, "task planned", pod=pod, task=f"u-{task}.1", digest=DIGEST)
        self.phase(at + 1.0, task, "AwaitingApproval")

    def applied(self, at: float, task: str, *, fence: int = 3, pod: str = "p", slot: int = 0) -> None:
        """A task's apply from its approval by the controller to its acknowledged result, within a second."""
        self.slot(at, "reserved>running", task, fence=fence, pod=pod, slot=slot)
        self.step(at + 0.1, at + 0.5, task, "apply", pod=pod, slot=slot)
        self.slot(at + 0.6, "running>idle", task, fence=fence + 1, pod=pod, slot=slot)
        self.agent(at + 0.6, "task ended", pod=pod, task=f"u-{task}.1", outcome="succeeded")
        self.phase(at + 0.7, task, "Succeeded")
        self.agent(at + 0.8, "acknowledged", pod=pod, task=f"u-{task}.1")

    def gone(self, at: float, name: str = "p") -> None:
        """A Pod is drained, deleted, and ends."""
        self.agent(at, "phase", pod=name, phase="drained", drain_id="d1")
        self.delete(at + 0.1, name)

    def delete(self, at: float, name: str = "p", *, user: str = CONTROLLER) -> None:
        """A Pod is deleted, and its kubelet confirms that nothing of it is left."""
        self.write(at, "delete", f"pods:{name}", {}, user=user)
        self.write(at + 1, "delete", f"pods:{name}", {"gracePeriodSeconds": 0}, user=KUBELET)


RUNNING: Json = {"containerID": "x", "restartCount": 0, "state": {"running": {}}}


def clock(seconds: float) -> str:
    """A moment of the run, as logs have it."""
    return (BEGIN + timedelta(seconds=seconds)).isoformat(timespec="microseconds").replace("+00:00", "Z")
