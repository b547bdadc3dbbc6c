"""What may never happen, watched as it happens: at every change of the API, of an agent, and at every message."""

import json
from binascii import b2a_base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agent.errors import JournalDamagedError
from agent.rules.state import Event, PhaseChanged, Record, SlotChanged, State, TaskAcked
from agent.wire import NO_CHANGES, Origin, Phase, SlotState, TaskState
from controller import names
from controller.kube.api import PODS, SECRETS, SLOTTASKOUTPUTS, Object
from controller.local.apiserver.store.versions import Change, ChangeType
from controller.objects.task import FINAL_PHASES
from tests.simulation.deployment_rules import DeploymentRules
from tests.simulation.pace_rules import PaceRules
from tests.simulation.rollout_rules import RolloutRules
from tests.simulation.signal_rules import SignalRules
from tests.simulation.size_rules import SizeRules
from tests.simulation.step_rules import StepRules
from tests.simulation.stop_rules import StopRules
from tests.simulation.trace import Trace

if TYPE_CHECKING:
    from tests.simulation.agent import SimAgent
    from tests.simulation.node import SimPod
    from tests.simulation.replica import Replica
    from tests.simulation.world import World

RESERVATION_ENDS = {Event.APPROVE, Event.CANCEL, Event.EXPIRE, Event.LOSE}
OWN_RESERVATION_ENDS = {Event.RESUME, Event.RELEASE, Event.EXPIRE}
"""Of a program that made it itself."""
FINAL = {phase.value for phase in FINAL_PHASES}
DECIDED_SECONDS = 5.0
"""A message that comes so soon after its decision was written down was not held up."""
SEEN_SECONDS = 20.0
"""By then whoever decides knows what an agent holds."""
MOST_OPERATIONS = 200
"""More than this in flight at once, with a dozen tasks and four Pods, is a queue without a bound."""


class Rules:
    """`broken` says what happened that may not."""

    def __init__(self, world: "World", trace: Trace) -> None:
        self.broken: list[str] = []
        self.trace = trace
        self._world = world
        self.steps = StepRules(world, self)
        self.stops = StopRules(world, self)
        self.sizes = SizeRules(world, self)
        self.rollouts = RolloutRules(world, self)
        self.pace = PaceRules(self)
        self.signals = SignalRules(world, self)
        self.deployments = DeploymentRules(world, self)
        self._phases: dict[str, str] = {}
        self._intents: dict[tuple[str, str], float] = {}
        """When each assignment was written, by (task id, Pod UID)."""
        self._stamps: dict[str, tuple[int, int]] = {}
        """The highest that each incarnation of an agent accepted."""
        self._drain_ids: dict[str, str | None] = {}
        """What a Pod's annotation said when its agent last was opened or drained."""
        self._acked: dict[str, set[str]] = {}
        self._held_since: dict[tuple[str, int], float] = {}
        """By Pod UID and slot."""
        self._limits: dict[tuple[str, int], tuple[float, float]] = {}
        """Of reservations, by Pod UID and slot: when they began, and after how many seconds they end."""
        self.minds_leases = True
        """Whether it matters that two lead at once, and that each makes Pods of its own."""
        self.reserved: dict[str, set[int]] = {}
        self.released: set[tuple[str, str]] = set()
        """(Pod UID, task id) of what programs beside the work held and wanted to give back."""
        self._local: dict[tuple[str, int], str] = {}
        """What such a program holds, by Pod UID and slot."""

    @property
    def history(self) -> list[str]:
        """The last events."""
        return list(self.trace.events)

    def note(self, text: str) -> None:
        self.trace.note(self._world.elapsed, text)

    def breach(self, text: str) -> None:
        self.note(f"BROKEN: {text}")
        self.broken.append(f"{self._world.elapsed:.3f} s: {text}")

    # --- the API --------------------------------------------------------------------------------------------------

    def object_changed(self, change: Change) -> None:
        body, metadata = change.record.body, change.record.body["metadata"]
        kind, version = change.record.resource, metadata.get("resourceVersion", "")
        if kind == "slottasks.podslots.dev":
            self._task_changed(change.type, body)
        elif kind == "pods":
            state = (metadata.get("labels") or {}).get(names.STATE_LABEL)
            phase = (body.get("status") or {}).get("phase")
            going = " deleting" if "deletionTimestamp" in metadata else ""
            self.note(f"pod {metadata['name']} v{version} {change.type} {state} {phase}{going}")
        elif kind == "leases.coordination.k8s.io":
            self.note(f"lease {metadata['name']} v{version} {change.type} {body['spec'].get('holderIdentity')}")
        elif kind == "slotpools.podslots.dev":
            status = body.get("status") or {}
            name = metadata["name"]
            sizes = f"{status.get('replicas')} → {status.get('desiredReplicas')} Pods"
            self.note(f"pool {name} v{version} {change.type} {sizes}")
            self.sizes.pool_changed(name, body["spec"])
            self.rollouts.pool_changed(name, body["spec"])
            self.pace.pool_changed(body)
            self.signals.pool_changed(body)
            desired, most = status.get("desiredReplicas"), self.sizes.bound(name)
            if desired is not None and desired > most:
                self.breach(f"{desired} Pods are wanted, and {most} is the most")

    def _task_changed(self, kind: ChangeType, body: Object) -> None:
        metadata, status = body["metadata"], body.get("status") or {}
        uid, phase = metadata["uid"], status.get("phase", "Queued")
        before = self._phases.get(uid)
        if before in FINAL and phase != before:
            self.breach(f"task {metadata['name']} went from {before} to {phase}")
        if kind is ChangeType.DELETED and phase not in FINAL and phase != "Queued":
            self.breach(f"task {metadata['name']} is gone while it is {phase}")
        self._phases[uid] = phase
        self.steps.specs[uid] = body["spec"]
        approval = (body.get("spec") or {}).get("approval")
        if approval:
            self.steps.approvals.add((uid, approval["attempt"], approval["planDigest"]))
        if status.get("podUID"):
            intent = f"{uid}{names.TASK_ID_SEPARATOR}{status.get('attempt')}", status["podUID"]
            self._intents.setdefault(intent, self._world.elapsed)
        if phase == "AwaitingApproval" and self._world.finds_nothing(uid, status.get("attempt", 1)):
            self.breach(f"task {metadata['name']} waits for an approval, and its plan found nothing to change")
        if phase in FINAL and phase != before:
            self._check_end(metadata["name"], status)
            self.stops.task_ended(body)
        self.note(
            f"task {metadata['name']} v{metadata.get('resourceVersion', '')} {kind} {phase} {status.get('step')}"
            f" attempt {status.get('attempt')} on {status.get('pod')} {status.get('reason', '')}"
        )

    def _check_end(self, task: str, status: Object) -> None:
        """No task is given up for its Pod's object, which is gone, if that had told that all of the Pod ended."""
        pod = self._world.node.pods.get(status.get("podUID", ""))
        if pod is None or pod.stripped or "nothing proves" not in str(status.get("message")):
            return
        if pod.said is not None and pod.said[1] == "terminated":
            self.breach(f"task {task} is {status.get('phase')} without proof, and all of its Pod had been seen to end")

    def controller_writes(self, replica: "Replica", verb: str, creates: str = "") -> None:
        """A write of a controller is about to take effect; `creates` names the Pod that it makes."""
        world = self._world
        leading = [other.name for other in world.replicas if other.leading]
        if len(leading) > 1 and self.minds_leases:
            self.breach(f"{leading} lead at once")
        if replica.controller is not None and len(replica.controller.operations) > MOST_OPERATIONS:
            self.breach(f"{len(replica.controller.operations)} operations are in flight in {replica.name}")
        if creates:
            self.sizes.makers[replica.name, replica.starts] = world.elapsed
        if creates and verb == "create" and not replica.was_paused and self.minds_leases:
            self.sizes.check_room(creates.rpartition("-")[0])
            self.rollouts.made(creates.rpartition("-")[0])

    def pod_deleted(self, pod: "SimPod") -> None:
        """Somebody asked for its deletion just now."""
        why = pod.busy()
        if why is not None and pod.uid not in self._world.taken_by_force:
            self.breach(f"Pod {pod.name} was deleted although {why}")

    def output_removed(self, pod: "SimPod", task_id: str) -> None:
        """An agent removes what it has of a task's output: not before it was told to forget the task."""
        kept = any(key[0] == task_id and entry.started for disk in pod.disks for key, entry in disk.entries.items())
        state = pod.state()
        if kept and task_id not in {*state.ended, *state.acked}:
            self.breach(f"{pod.name} removed the output of {task_id}, which its worker still keeps")

    # --- agents ---------------------------------------------------------------------------------------------------

    def agent_published(self, pod: "SimPod", state: State, records: Sequence[Record]) -> None:
        forgetful = self._world.excused(pod)
        for record in records:
            match record:
                case SlotChanged(entry=entry, event=event):
                    self.note(f"agent {pod.name} slot {entry.id} {event} {entry.task_id}")
                    self._check_event(pod, record)
                case PhaseChanged(phase=phase, drain_id=drain_id):
                    self.note(f"agent {pod.name} {phase} {drain_id or record.opened_id}")
                    self._check_phase(pod, record, state)
                    (self.rollouts.opened if phase is Phase.OPEN else self.rollouts.drained)(pod)
                    if phase is Phase.OPEN:
                        self.deployments.opened(pod)
                case TaskAcked(task_id=task_id):
                    self.note(f"agent {pod.name} acked {task_id}")
                    self._acked.setdefault(pod.uid, set()).add(task_id)
                    self._check_ack(pod, task_id)
                case _:
                    self.note(f"agent {pod.name} {type(record).__name__}")
        busy = [slot.task_id for slot in state.slots if slot.state is not SlotState.IDLE]
        forced = pod.uid in self._world.taken_by_force
        if pod.doomed and not forced and not forgetful and (busy or state.phase is Phase.OPEN):
            self.breach(f"Pod {pod.name} took {busy} or was opened after it was deleted")
        if state.phase is Phase.DRAINED and (busy or state.ended) and not forgetful:
            self.breach(f"the agent of {pod.name} is drained, and has {busy} and the results of {list(state.ended)}")
        self._check_consistent(pod, state)
        self.stops.published(pod, state)
        self._check_places()

    def _check_consistent(self, pod: "SimPod", state: State) -> None:
        """A task that has not ended holds its slot, in the state that goes with its own."""
        for task in state.tasks.values():
            slot = state.slots[task.slot]
            reserved = task.state is TaskState.RESERVED
            if task.state is TaskState.ENDED:
                if slot.task_id == task.task_id:
                    self.breach(f"task {task.task_id} ended and holds slot {task.slot} of {pod.name}")
            elif slot.task_id != task.task_id or reserved != (slot.state is SlotState.RESERVED):
                self.breach(f"task {task.task_id} is {task.state}, and its slot on {pod.name} is {slot.state}")

    def _check_event(self, pod: "SimPod", record: SlotChanged) -> None:
        """A reservation ends by approval, cancel, its limit, or proof that it is gone; a running step, by itself."""
        entry = record.entry
        held = self.reserved.setdefault(pod.uid, set())
        if record.event is Event.ACQUIRE and entry.origin is Origin.CONTROLLER:
            if (entry.task_id, pod.uid) not in self._intents:
                self.breach(f"{pod.name} was given {entry.task_id} before anybody had written that")
            if entry.task_id in self._acked.get(pod.uid, set()) and not self._world.excused(pod):
                self.breach(f"{pod.name} took {entry.task_id} again, which had ended there and was acknowledged")
        held_by = self._local.pop((pod.uid, entry.id), None)
        if entry.origin is Origin.LOCAL and entry.task_id is not None:
            self._local[pod.uid, entry.id] = entry.task_id
        elif (
            held_by is not None
            and record.event is not Event.EXPIRE
            and (pod.uid, held_by) not in self.released
            and not self._world.excused(pod)
        ):
            self.breach(f"{pod.name} took {held_by} away by {record.event} from the program that held it")
        self._check_limit(pod, record)
        self._check_surplus(pod, record)
        if entry.state is SlotState.RESERVED:
            held.add(entry.id)
        elif entry.id in held:
            held.discard(entry.id)
            if record.event not in (RESERVATION_ENDS if held_by is None else OWN_RESERVATION_ENDS):
                self.breach(f"a reservation on Pod {pod.name} ended by {record.event}")
        if entry.state is SlotState.IDLE and pod.disks[entry.id].running is not None:
            self.breach(f"slot {entry.id} of {pod.name} fell idle by {record.event} while its step runs")

    def _check_limit(self, pod: "SimPod", record: SlotChanged) -> None:
        """A reservation's limit counts the time that passes, whatever clocks say."""
        entry, now = record.entry, self._world.elapsed
        began, limit = self._limits.pop((pod.uid, entry.id), (now, 0.0))
        if entry.state is SlotState.RESERVED and entry.expires_at is not None:
            self._limits[pod.uid, entry.id] = now, (entry.expires_at - entry.since).total_seconds()
        elif record.event is Event.EXPIRE and now - began < limit - 1.0:
            self.breach(
                f"a reservation on Pod {pod.name} expired after {now - began:.0f} s, its limit is {limit:.0f} s"
            )

    def _check_surplus(self, pod: "SimPod", record: SlotChanged) -> None:
        """A Pod that is more than there should be gets nothing new: those that hold something are enough."""
        entry, now = record.entry, self._world.elapsed
        if entry.task_id is None:
            self._held_since.pop((pod.uid, entry.id), None)
            return
        self._held_since.setdefault((pod.uid, entry.id), now)
        written = self._intents.get((entry.task_id, pod.uid))
        if record.event is not Event.ACQUIRE or written is None or written < now - DECIDED_SECONDS:
            return
        if not self.minds_leases or any(uid == pod.uid and slot != entry.id for uid, slot in self._held_since):
            return
        enough = {
            other.uid
            for other in self._world.node.alive
            if other is not pod and other.pool == pod.pool and not other.doomed and other.is_open
            for slot in other.state().slots
            if self._held_since.get((other.uid, slot.id), now) < now - SEEN_SECONDS
        }
        if len(enough) >= self.sizes.most(pod.pool):
            self.breach(f"{pod.name} was given {entry.task_id}, and {len(enough)} others hold something, which is all")

    def _check_phase(self, pod: "SimPod", record: PhaseChanged, state: State) -> None:
        """Who opens an agent has moved its Pod's version before, by an annotation that was never there."""
        found = self._world.cluster.find(PODS, pod.namespace, pod.name)
        said = (found["metadata"].get("annotations") or {}).get(names.DRAIN_ID) if found else None
        before = self._drain_ids.get(pod.uid)
        if record.phase is Phase.OPEN and said == before and pod.uid not in self._world.taken_by_force:
            self.breach(f"the agent of {pod.name} was opened, and its Pod still says drain {said}")
        if record.phase is Phase.DRAINED and state.recovering:
            self.breach(f"the agent of {pod.name} granted a drain before its workers said what they hold")
        self._drain_ids[pod.uid] = said

    def _check_ack(self, pod: "SimPod", task_id: str) -> None:
        """A result is forgotten only once it stands in the task's status, and its steps' output in objects."""
        uid, _, attempt = task_id.partition(names.TASK_ID_SEPARATOR)
        task = self._world.task_by_uid(uid)
        status: Object = (task or {}).get("status") or {}
        here = status.get("podUID") == pod.uid and str(status.get("attempt")) == attempt
        if task is not None and here and status.get("phase") not in FINAL:
            self.breach(f"the result of {task_id} was forgotten while its status says {status.get('phase')}")
        if task is not None and here:
            self._check_handed_over(task, task_id)
            name = task["metadata"]["name"]
            for step, result in (status.get("steps") or {}).items():
                kept = self._world.cluster.find(
                    SLOTTASKOUTPUTS, task["metadata"]["namespace"], f"{name}-{attempt}-{step}"
                )
                ran = result.get("startTime") and result.get("endTime")
                if ran and (kept is None or kept["spec"]["taskUID"] != uid):
                    self.breach(f"the output of the {step} of {task_id} was forgotten, and is kept nowhere")

    def _check_handed_over(self, task: Object, task_id: str) -> None:
        """What a task that has succeeded hands over is in its Secret, or the task says why it is not."""
        asked, status = task["spec"].get("outputs"), task["status"]
        if asked is None or status.get("phase") != "Succeeded" or status.get("reason") == NO_CHANGES:
            return
        secret = self._world.cluster.find(SECRETS, task["metadata"]["namespace"], asked["secretName"])
        stored = secret["data"].get("outputs.json") if secret is not None else None
        if stored != b2a_base64(task_id.encode(), newline=False).decode() and not status.get("message"):
            self.breach(f"the file that {task_id} handed over was forgotten, and is in no Secret")

    def agent_answered(self, agent: "SimAgent", target: str, body: bytes | None, status: int) -> None:
        """An agent answered a write that arrived over the network."""
        sent: dict[str, Any] = json.loads(body) if body else {}
        stamp = sent.get("stamp")
        self.note(f"agent {agent.home.pod} ← {target} {_brief(sent)}: {status}")
        if status == 500:
            self.breach(f"the agent of {agent.home.pod} failed at {target}")
        if target == "/drain" and status == 200:
            self._check_granted(agent)
        if status != 200 or stamp is None:
            return
        incarnation = agent.service.facts.incarnation
        pair = (stamp["term"], stamp["counter"])
        if pair <= self._stamps.get(incarnation, (-1, -1)):
            self.breach(f"{agent.home.pod} did {target} with stamp {pair} after {self._stamps[incarnation]}")
        self._stamps[incarnation] = max(pair, self._stamps.get(incarnation, (-1, -1)))
        if sent.get("pod_uid") != agent.home.uid:
            self.breach(f"{agent.home.pod} did {target}, which was meant for another Pod")
        if sent.get("incarnation") != incarnation:
            self.breach(f"{agent.home.pod} did {target}, which was meant for an earlier start of its agent")
        if target == "/slots/acquire":
            agent.promised.append(sent["task_id"])

    def _check_granted(self, agent: "SimAgent") -> None:
        """What confirms a drain is all that stands between a Pod and its deletion."""
        state = agent.service.state
        held = [slot.task_id for slot in state.slots if slot.state is not SlotState.IDLE]
        if held or state.ended:
            self.breach(f"the agent of {agent.home.pod} confirmed a drain, and has {held} and {list(state.ended)}")

    def agent_started(self, pod: "SimPod", agent: "SimAgent") -> None:
        """What it read from its journal may be one transition further than what was ever said."""
        slots = agent.service.state.slots
        self.reserved[pod.uid] = {slot.id for slot in slots if slot.state is SlotState.RESERVED}
        for slot in slots:
            self._local.pop((pod.uid, slot.id), None)
            if slot.origin is Origin.LOCAL and slot.task_id is not None:
                self._local[pod.uid, slot.id] = slot.task_id

    def agent_died(self, pod: "SimPod", agent: "SimAgent") -> None:
        """What was published or answered is on the disk, whatever the instant."""
        if not pod.home.disk.exists("journal") and not agent.promised:
            return  # it never could write one, and so never did anything: the next one knows that it is lost
        try:
            kept = pod.home.journaled()
        except JournalDamagedError as damage:
            self.breach(f"the journal of {pod.name} was left damaged: {damage}")
            return
        said = agent.service.state
        if kept.fence < said.fence:
            self.breach(
                f"the agent of {pod.name} had given out fence {said.fence}, and its journal ends at {kept.fence}"
            )
        for slot in said.slots:
            after = kept.slots[slot.id]
            if after.fence == slot.fence and (after.state, after.task_id) != (slot.state, slot.task_id):
                self.breach(f"slot {slot.id} of {pod.name} was {slot.state}, and its journal says {after.state}")
        if kept.fence == said.fence and len(kept.acked) == len(said.acked) and kept.phase != said.phase:
            pending = agent.service._pending.records or agent.service._in_flight
            if not pending and not agent.disk_trouble:
                self.breach(f"the agent of {pod.name} was {said.phase}, and its journal says {kept.phase}")
        known = {slot.task_id for slot in kept.slots} | set(kept.tasks) | set(kept.acked)
        for task_id in agent.promised:
            if task_id not in known:
                self.breach(f"{pod.name} had taken {task_id}, and its journal does not know it")

    def was_acked(self, pod_uid: str, task_id: str) -> bool:
        """Whether a task ended on a Pod, and its result was acknowledged there."""
        return task_id in self._acked.get(pod_uid, set())

    def _check_places(self) -> None:
        """A task is in at most one slot of all Pods whose processes run."""
        places: dict[str, list[str]] = {}
        for pod in self._world.node.alive:
            if pod.agent is None or not pod.agent.alive:
                continue
            for slot in pod.agent.service.state.slots:
                if slot.task_id is not None:
                    uid = slot.task_id.partition(names.TASK_ID_SEPARATOR)[0]
                    places.setdefault(uid, []).append(f"{pod.name}/{slot.id}")
        for uid, found in places.items():
            if len(found) > 1:
                self.breach(f"task {uid} is in slots {found}")


def _brief(sent: dict[str, Any]) -> str:
    stamp = sent.get("stamp") or {}
    said = {name: sent[name] for name in ("task_id", "drain_id", "plan_digest", "attempt") if name in sent}
    return f"stamp {stamp.get('term')}.{stamp.get('counter')} {said}"
