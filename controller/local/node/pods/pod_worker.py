"""One Pod on this node: sees how it stands, asks `pod_plan` what is due, has it done, and shows it in the API.

Level-based: whatever wakes it, it looks at everything. All it must remember over a restart is in the Pod's folder:

    pod.json    the Pod as last seen, and its address
    ending      when its end was first seen, and the grace it has from then
    c/NAME/N/   run N of a container (see `shim`)       l/NAME/N.log  its output
    v/NAME/     a volume
"""

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson

from controller.local.node.client import MERGE_PATCH, ApiRefusedError, ApiUnavailableError
from controller.local.node.node_context import NodeContext
from controller.local.node.pods.container_slot import ContainerSlot
from controller.local.node.pods.launch import pod_facts
from controller.local.node.pods.pod_plan import Action, PodView, Verb, plan
from controller.local.node.pods.pod_spec import Json, parse
from controller.local.node.pods.pod_status import TERMINAL_PHASES, PodReport, status, timestamp
from controller.local.node.pods.volume_payload import VolumeError
from controller.local.node.pods.volumes import Volumes

RETRY_FIRST_SECONDS, RETRY_LAST_SECONDS = 0.1, 5.0
_REFRESHED = ("secret", "configMap", "downwardAPI", "projected")
_log = logging.getLogger(__name__)


class PodWorker:
    """One Pod, from the first sight of it until nothing of it is left."""

    def __init__(self, node: NodeContext, pod: Json, ip: str) -> None:
        self.pod = pod
        self.spec = parse(pod)
        self.ip = ip
        self.folder = node.pods_folder / self.spec.uid
        self.vanished = False  # its object is gone from the API
        self._node = node
        self._volumes = Volumes(self.folder / "v", self.spec, node.writer)
        self._slots = {c.name: ContainerSlot(node, self, c) for c in self.spec.containers}
        self._awake = asyncio.Event()
        self._publish = asyncio.Event()
        self._mounted: dict[str, Path] = {}
        self._stale = False
        self._end_by: float | None = None
        self._end_grace: float | None = None
        self._shutting_down = False
        self._over = False
        self._deleted = False
        self._sent: Json | None = None
        self._shown_after: Json = {}

    # What the kubelet tells it.

    def saw(self, pod: Json | None) -> None:
        """The Pod's object changed; None: it is gone."""
        if pod is None:
            self.vanished = True
        elif int(pod["metadata"]["resourceVersion"]) >= int(self.pod["metadata"]["resourceVersion"]):
            self.pod = pod
            self._stale = True  # labels and annotations may stand in files
        self.wake()

    def saw_objects(self) -> None:
        """A Secret or ConfigMap of its namespace changed."""
        self._stale = True
        for slot in self._slots.values():
            slot.reconsider()
        self.wake()

    def shut_down(self, grace_seconds: float) -> None:
        """End its containers, without a word to the API: the Pod goes on when the cluster comes back."""
        self._shutting_down = True
        self._end_within(grace_seconds)
        self.wake()

    def wake(self) -> None:
        """Look at everything again."""
        self._awake.set()

    def slot(self, container: str) -> ContainerSlot | None:
        """One of its containers."""
        return self._slots.get(container)

    def live_logs(self) -> Iterator[Path]:
        """The logs that may grow."""
        return (slot.log for slot in self._slots.values() if slot.alive and slot.log is not None)

    @property
    def ending(self) -> bool:
        """Whether the Pod is to end: nothing starts any more."""
        return self._end_by is not None

    # Its life.

    async def run(self) -> None:
        """Live the Pod's life. Returns when all is over and its folder removed."""
        self._save()
        shown = self.pod.get("status") or {}
        lists = (shown.get("initContainerStatuses") or ()), (shown.get("containerStatuses") or ())
        statuses = {s["name"]: s for entries in lists for s in entries}
        try:
            for name, slot in self._slots.items():
                await slot.load(statuses.get(name, {}))
            self._resume_ending()
            async with asyncio.TaskGroup() as group:  # whichever fails, the kubelet begins this Pod anew
                publisher = group.create_task(self._publish_forever(), name=f"publish {self.spec.name}")
                await self._live()
                publisher.cancel()
        finally:
            for slot in self._slots.values():
                await slot.close()
        if not self._shutting_down:
            await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def _live(self) -> None:
        """Look and act until all is over."""
        while True:
            await self._node.faults.passable()
            self._awake.clear()
            ask_again_at = self._step()
            if self._over and (self.vanished or self._shutting_down):
                return
            self._publish.set()
            await self._sleep_until(ask_again_at)

    async def _sleep_until(self, at: float | None) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if at is None else max(at - loop.time(), 0.0)):
                await self._awake.wait()

    def _step(self) -> float | None:
        """Do all that is due; when to look again."""
        self._see_end()
        if self.ending:
            for slot in self._slots.values():
                slot.withhold()
        elif self._stale and self._mounted:
            self._refresh()
        self._stale = False
        while True:
            views = tuple(slot.view() for slot in self._slots.values())
            decision = plan(PodView(self.spec.restart_policy, views, self._end_by), self._time())
            for action in decision.actions:
                self._act(action)
            if decision.actions:
                continue
            if decision.finished and not self.ending:  # its main containers are done: end its sidecars
                self._end_within(self.spec.grace_seconds)
                continue
            self._over = self.ending and decision.finished
            return decision.ask_again_at

    def _act(self, action: Action) -> None:
        slot = self._slots[action.container]
        match action.verb:
            case Verb.START:
                slot.start()
            case Verb.BEGIN_STOP:
                slot.begin_stop(action.deadline)
            case Verb.PRE_STOP:
                slot.pre_stop(action.deadline)
            case Verb.TERMINATE:
                slot.terminate()
            case Verb.KILL:
                slot.kill()

    # Its end.

    def _see_end(self) -> None:
        metadata, shown = self.pod["metadata"], self.pod.get("status") or {}
        if self.vanished:
            self._end_within(0.0)  # deleted by force: SIGTERM, and SIGKILL right after
        elif metadata.get("deletionTimestamp"):
            grace = metadata.get("deletionGracePeriodSeconds")
            self._end_within(self.spec.grace_seconds if grace is None else float(grace))
        elif shown.get("phase") in TERMINAL_PHASES:
            self._end_within(self.spec.grace_seconds)

    def _end_within(self, grace_seconds: float) -> None:
        """End by then; a longer grace than the one it has changes nothing."""
        if self._end_grace is not None and grace_seconds >= self._end_grace:
            return
        self._end_grace = grace_seconds
        end_by = self._time() + grace_seconds
        self._end_by = end_by if self._end_by is None else min(self._end_by, end_by)
        if not self._shutting_down:
            seen = self._node.now().timestamp()
            _write(self.folder / "ending", orjson.dumps({"seen": seen, "grace": grace_seconds}))

    def _resume_ending(self) -> None:
        """Take up an end that an earlier kubelet saw, with what is left of its grace."""
        try:
            ending = orjson.loads((self.folder / "ending").read_bytes())
        except FileNotFoundError:
            return
        left = ending["seen"] + ending["grace"] - self._node.now().timestamp()
        self._end_grace = ending["grace"]
        self._end_by = self._time() + min(max(left, 0.0), ending["grace"])

    # Its volumes.

    def mount(self) -> dict[str, Path]:
        """Make all volumes; their host folders. VolumeError if one can't be made."""
        if not self._mounted:
            facts = pod_facts(self._node, self.pod, self.ip)
            mounted = {}
            for volume in self.spec.volumes:
                try:
                    mounted[volume["name"]] = self._volumes.prepare(volume, facts, self._object)
                except VolumeError as error:
                    raise VolumeError(f'for volume "{volume["name"]}" : {error}') from error
            self._mounted = mounted
        return self._mounted

    def host_folders(self) -> dict[str, Path]:
        """The volumes' host folders, made or not."""
        return {volume["name"]: self._volumes.host_folder(volume) for volume in self.spec.volumes}

    def _refresh(self) -> None:
        """Bring volumes up to date. One whose object is gone keeps what it has, as on a real node."""
        facts = pod_facts(self._node, self.pod, self.ip)
        for volume in self.spec.volumes:
            if any(kind in volume for kind in _REFRESHED):
                try:
                    self._volumes.prepare(volume, facts, self._object)
                except (VolumeError, OSError) as error:
                    message = f'MountVolume.SetUp failed for volume "{volume["name"]}": {error}'
                    self._node.events.pod(self.pod, "FailedMount", message, warning=True)

    def _object(self, kind: str, name: str) -> Json | None:
        return self._node.objects(kind, self.spec.namespace, name)

    # What it shows.

    def _report(self) -> PodReport:
        reports = []
        initialising = False
        for slot in self._slots.values():
            reports.append(slot.report(initialising=initialising))
            initialising = initialising or slot.initialising
        shown = self.pod.get("status") or {}
        start_time = shown.get("startTime") or timestamp(self._node.now())
        over = self._over and not self._shutting_down
        return PodReport(self.spec, reports, self._node.node_ip, self.ip, start_time, over)

    async def _publish_forever(self) -> None:
        """Write the status whenever it differs, and delete the object at the end, whatever it takes."""
        pause = RETRY_FIRST_SECONDS
        while True:
            await self._publish.wait()
            await self._node.faults.passable()
            self._publish.clear()
            if self.vanished or self._shutting_down:
                continue
            try:
                await self._write_status()
                await self._delete_if_over()
            except ApiRefusedError as error:
                if error.status in {404, 409}:  # gone or replaced: the watch will tell
                    continue
                _log.warning("status not written: pod=%s error=%s", self.spec.name, error)
            except ApiUnavailableError as error:
                _log.warning("status not written: pod=%s error=%s", self.spec.name, error)
            else:
                pause = RETRY_FIRST_SECONDS
                continue
            self._publish.set()
            await asyncio.sleep(pause * (0.5 + self._node.rng.random()))
            pause = min(pause * 2, RETRY_LAST_SECONDS)

    async def _write_status(self) -> None:
        shown: Json = self.pod.get("status") or {}
        wanted = status(self._report(), shown, self._node.now())
        if wanted == self._sent and _agree(wanted, shown, self._shown_after):
            return
        if not self._sent and _agree(wanted, wanted, shown):  # an earlier kubelet wrote just this
            return
        body = {"metadata": {"uid": self.spec.uid}, "status": wanted}
        answer = await self._node.client.request("PATCH", f"{self._path}/status", body, content_type=MERGE_PATCH)
        self._sent, self._shown_after = wanted, answer.get("status") or {}
        self.saw(answer)

    async def _delete_if_over(self) -> None:
        """Confirm the end of a deleted Pod. What finalizers hold stays, and is not asked for again."""
        if not self._over or self._deleted or not self.pod["metadata"].get("deletionTimestamp"):
            return
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": self.spec.uid},
        }
        await self._node.client.request("DELETE", self._path, body)
        self._deleted = True

    @property
    def _path(self) -> str:
        return f"/api/v1/namespaces/{self.spec.namespace}/pods/{self.spec.name}"

    def _save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(self.folder / "pod.json", orjson.dumps({"ip": self.ip, "pod": self.pod}))

    def _time(self) -> float:
        return asyncio.get_running_loop().time()


def _agree(keys: Mapping[str, object], one: Json, other: Json) -> bool:
    return all(one.get(key) == other.get(key) for key in keys)


def _write(path: Path, content: bytes) -> None:
    """Atomically: a kubelet killed here leaves the old content."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    temporary.rename(path)
