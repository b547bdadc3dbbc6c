"""The slot's folder on the disk: what is kept of each task, and the writes that must be whole or not at all.

    worker.lock                  held for the life of the worker: one instance a folder
    tasks/ID/dir                 the commands' directory; it outlives the steps
    tasks/ID/tmp                 their TMPDIR, unless the container has one
    tasks/ID/STEP.assignment.json
    tasks/ID/STEP.lock           held by the worker and by every process of the command, through an inherited descriptor
    tasks/ID/STEP.started        made once, before the command runs; its existence alone says that it may have run
    tasks/ID/STEP.log            the output, values of Secrets masked; STEP.log.tail is its end, if the disk had no room
    tasks/ID/STEP.unmasked       the output as the command wrote it, if there are values to mask: it stays here
    tasks/ID/STEP.exit.json      how it ended
    tasks/ID/STEP.told           the agent has taken that
    trash/                       forgotten tasks, removed bit by bit

A file is written beside its place, synced and renamed, then its folder is synced. The space for an exit and for the
output's end is taken when the step is claimed: the command may fill the disk, and its last words must still find room.

A task's code runs as the same user and can write all of this. So the files are opened as `owned` does, and a marker and
an end count only with the nonce of the assignment (see docs/security.md).
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from agent.codec import WireError, decode, encode, format_time, parse_time
from agent.work_messages import TASK_ID_PATTERN, Assignment, ExitReport, Step
from agent.worker.disk import trash
from agent.worker.disk.kept_log import SPACE_BYTES, kept_bytes, read_kept
from agent.worker.disk.owned import (
    NotOursError,
    is_folder,
    lock_file,
    move_aside,
    open_owned,
    read_owned,
    sync_folder,
    take_space,
    write_owned,
)
from agent.worker.process import processes, recovery
from agent.worker.process.temporary import forget_temporary
from agent.worker.rules.ports import Log, StoredStep

EXIT_BYTES = 8192
"""More than an exit report can need: its reason is cut at 1 024 characters, 6 bytes each at worst in JSON."""
_ENTRIES_A_SWEEP = 200


class Directories:
    """Everything of a slot's folder but the tasks' own files."""

    def __init__(self, root: str, log: Log) -> None:
        self.root = root
        self._log = log
        self.unread: tuple[str, ...] = ()
        self.damaged: tuple[str, ...] = ()
        self._known: set[str] = set()
        self._tasks = os.path.join(root, "tasks")
        self._trash = os.path.join(root, "trash")
        self._instance_lock: int | None = None
        self._step_locks: dict[tuple[str, Step], int] = {}
        self._sweeping: Iterator[None] | None = None
        self.has_trash = True

    def lock_instance(self) -> bool:
        """Take the folder for this process. False while another worker has it. May be called again after an error."""
        if self._instance_lock is not None:
            return True
        os.makedirs(self.root, exist_ok=True)
        path = os.path.join(self.root, "worker.lock")
        try:
            fd = open_owned(path, os.O_RDWR | os.O_CREAT)
        except NotOursError:
            move_aside(path, None)
            fd = open_owned(path, os.O_RDWR | os.O_CREAT)
        if not lock_file(fd):
            os.close(fd)
            return False
        try:
            for folder in (self._tasks, self._trash):
                if not is_folder(folder):
                    move_aside(folder, None)
                os.makedirs(folder, exist_ok=True)
        except OSError:
            os.close(fd)
            raise
        self._instance_lock = fd
        return True

    def directory(self, task_id: str) -> str:
        """Where a task's commands run."""
        return os.path.join(self._task(task_id), "dir")

    def temporary(self, task_id: str) -> str:
        """Where they may put what need not last."""
        return os.path.join(self._task(task_id), "tmp")

    def log_path(self, task_id: str, step: Step) -> str:
        """A step's output, as it may leave the worker."""
        return self._path(task_id, step, "log")

    def unmasked_path(self, task_id: str, step: Step) -> str:
        """A step's output as its command wrote it. The file exists only if there were values to mask."""
        return self._path(task_id, step, "unmasked")

    def log_space(self, task_id: str, step: Step) -> str:
        """The file whose space is taken for the end of it."""
        return self._path(task_id, step, "log.space")

    def step_lock(self, task_id: str, step: Step) -> int:
        """The descriptor of a claimed step's lock, for its command to inherit."""
        return self._step_locks[task_id, step]

    # --- tasks ------------------------------------------------------------------------------------------------------

    def load(self) -> list[StoredStep]:
        """The last step of every task that can be read; `unread` and `damaged` name the others, and are left alone."""
        stored: list[StoredStep] = []
        unread: list[str] = []
        damaged: list[str] = []
        for task_id in sorted(os.listdir(self._tasks)):
            if not re.fullmatch(TASK_ID_PATTERN, task_id):
                continue
            try:
                kept = self._last_step(task_id)
            except (NotOursError, ValueError, WireError) as error:
                over = self._nothing_runs(task_id)
                (damaged if over else unread).append(task_id)
                self._log("the record of a kept step is damaged", task_id=task_id, error=str(error))
            except OSError as error:
                unread.append(task_id)
                self._log("a kept step can't be read", task_id=task_id, error=str(error))
            else:
                if kept is None:
                    continue
                stored.append(kept)
            self._known.add(task_id)
        self.unread, self.damaged = tuple(unread), tuple(damaged)
        return stored

    def _last_step(self, task_id: str) -> StoredStep | None:
        return self._stored(task_id, Step.APPLY) or self._stored(task_id, Step.PLAN)

    def _nothing_runs(self, task_id: str) -> bool:
        try:
            over = [self.reclaim(task_id, step) for step in Step]
            return all(over)
        except OSError:
            return False

    def _stored(self, task_id: str, step: Step) -> StoredStep | None:
        text = read_owned(self._path(task_id, step, "assignment.json"))
        if text is None:
            return None
        assignment = decode(Assignment, json.loads(text))
        if (assignment.task_id, assignment.step) != (task_id, step):
            raise NotOursError(f"the assignment of {task_id} is another's")
        marker = self._marker(task_id, step)
        started = marker.get("start_time") if marker else None
        exit_report = self.stored_exit(task_id, step)
        return StoredStep(
            assignment=assignment,
            # The marker exists, so the step counts as started, whatever the marker contains. The opposite mistake would
            # be worse.
            started=marker is not None,
            start_time=parse_time(started) if isinstance(started, str) else None,
            exit=exit_report if exit_report and exit_report.nonce == assignment.nonce else None,
            exit_told=os.path.lexists(self._path(task_id, step, "told")),
        )

    def assign(self, assignment: Assignment) -> None:
        """Keep the assignment, and make the task's directory. What others put in its place is moved out of the way."""
        task_id, step = assignment.task_id, assignment.step
        if not re.fullmatch(TASK_ID_PATTERN, task_id):
            raise OSError(f"{task_id!r} is no task id")
        task = self._task(task_id)
        if task_id not in self._known or not is_folder(task):
            self._throw_away(task)
        for folder in (task, self.directory(task_id), self.temporary(task_id)):
            if not is_folder(folder):
                self._throw_away(folder)
            os.makedirs(folder, exist_ok=True)
        self._known.add(task_id)
        if not self._is_begun(assignment):
            for name in os.listdir(task):
                if name.startswith(f"{step.value}."):
                    self._throw_away(os.path.join(task, name))
        write_owned(self._path(task_id, step, "assignment.json"), json.dumps(encode(assignment)).encode())
        sync_folder(self._tasks)
        sync_folder(self.root)

    def _is_begun(self, assignment: Assignment) -> bool:
        """Whether the step has a marker of this assignment, or a process holds its lock. Raises OSError."""
        task_id, step = assignment.task_id, assignment.step
        try:
            with open(open_owned(self._path(task_id, step, "lock"), os.O_RDWR), "rb") as lock:
                if not lock_file(lock.fileno()):
                    return True
        except (FileNotFoundError, NotOursError):
            pass  # never claimed, or not by us
        try:
            marker = self._marker(task_id, step)
        except NotOursError:
            return False
        return marker is not None and (assignment.nonce is None or marker.get("nonce") == assignment.nonce)

    def _throw_away(self, path: str) -> None:
        if os.path.lexists(path):
            move_aside(path, self._trash)
            self._sweeping = None
            self.has_trash = True

    def claim(self, assignment: Assignment, *, instance: str, run_id: str, start_time: datetime) -> bool:
        """Make the marker, durably, under the step's lock. False if it was there: the step must not start again."""
        task_id, step = assignment.task_id, assignment.step
        lock = open_owned(self._path(task_id, step, "lock"), os.O_RDWR | os.O_CREAT)
        if not lock_file(lock):
            os.close(lock)
            return False
        self._step_locks[task_id, step] = lock
        path = self._path(task_id, step, "started")
        try:
            take_space(self._path(task_id, step, "exit.json.space"), EXIT_BYTES)
            take_space(self.log_space(task_id, step), SPACE_BYTES)
            marker = open_owned(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            self._unlock(task_id, step)
            return False
        except OSError:
            self._unlock(task_id, step)
            raise
        try:
            with open(marker, "wb") as file:
                content = {"instance": instance, "run_id": run_id, "start_time": format_time(start_time)}
                if assignment.nonce is not None:
                    content["nonce"] = assignment.nonce
                file.write(json.dumps(content).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            sync_folder(self._task(task_id))
        except OSError:
            # Nothing has run: without its marker the step is as if never begun.
            with contextlib.suppress(OSError):
                os.unlink(path)
            self._unlock(task_id, step)
            raise
        return True

    def record_process(self, task_id: str, step: Step, pid: int) -> None:
        """Add to the marker which process leads the command's group."""
        with open(open_owned(self._path(task_id, step, "started"), os.O_WRONLY | os.O_APPEND), "ab") as file:
            file.write(json.dumps({"pid": pid, "start_ticks": processes.start_ticks(pid)}).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def reclaim(self, task_id: str, step: Step) -> bool:
        """Kill the processes that an earlier worker left of the step. True once none of them can run any more."""
        marker: dict[str, Any] = {}
        with contextlib.suppress(NotOursError):
            marker = self._marker(task_id, step) or {}
        path = self._path(task_id, step, "lock")
        run_id, pid, ticks = marker.get("run_id"), marker.get("pid"), marker.get("start_ticks")
        gone = recovery.kill_remains(
            run_id if isinstance(run_id, str) else None,
            pid if isinstance(pid, int) else None,
            ticks if isinstance(ticks, int) else None,
            path,
        )
        try:
            lock = open_owned(path, os.O_RDWR)
        except (FileNotFoundError, NotOursError):
            return gone  # what the task did away with can't be held
        free = lock_file(lock)
        os.close(lock)
        return gone and free

    def stored_exit(self, task_id: str, step: Step) -> ExitReport | None:
        """How the step ended, if that is on disk. Raises OSError if it can't be read."""
        try:
            text = read_owned(self._path(task_id, step, "exit.json"))
            return None if text is None else decode(ExitReport, json.loads(text))
        except (NotOursError, ValueError) as error:  # WireError too
            self._log("the record of a step's end is damaged", task_id=task_id, step=step.value, error=str(error))
            return None

    def store_exit(self, exit_report: ExitReport) -> None:
        """Keep how the step ended, and let go of its lock."""
        task_id, step = exit_report.task_id, exit_report.step
        path = self._path(task_id, step, "exit.json")
        for place in (path, path + ".space"):
            if is_folder(place):
                self._throw_away(place)
        try:
            fd = open_owned(path + ".space", os.O_WRONLY | os.O_CREAT)
        except NotOursError:
            self._throw_away(path + ".space")
            fd = open_owned(path + ".space", os.O_WRONLY | os.O_CREAT)
        with open(fd, "wb") as file:
            file.write(json.dumps(encode(exit_report)).encode())
            file.flush()
            file.truncate()
            os.fsync(file.fileno())
        os.replace(path + ".space", path)
        sync_folder(self._task(task_id))
        # The rest of the space that was reserved for the end of the log.
        with contextlib.suppress(OSError):
            os.unlink(self.log_space(task_id, step))
        self._unlock(task_id, step)

    def exit_told(self, task_id: str, step: Step) -> None:
        """Keep that the agent took the end. May be forgotten: it is then told again."""
        with contextlib.suppress(OSError):
            os.close(open_owned(self._path(task_id, step, "told"), os.O_WRONLY | os.O_CREAT))

    def _unlock(self, task_id: str, step: Step) -> None:
        lock = self._step_locks.pop((task_id, step), None)
        if lock is not None:
            os.close(lock)

    def _marker(self, task_id: str, step: Step) -> dict[str, Any] | None:
        """What the marker says; empty if it was cut short; None if there is none."""
        text = read_owned(self._path(task_id, step, "started"))
        if text is None:
            return None
        marker: dict[str, Any] = {}
        for line in text.splitlines():
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                marker |= found if isinstance(found, dict) else {}
        return marker

    # --- output -----------------------------------------------------------------------------------------------------

    def log_bytes(self, task_id: str, step: Step) -> int:
        """How much of the step's output is on disk."""
        try:
            return kept_bytes(self.log_path(task_id, step))
        except OSError:
            return 0  # what can't be seen now is handed over once it can

    def read_log(self, task_id: str, step: Step, offset: int, size: int) -> bytes:
        """At most `size` bytes of it from `offset` on; nothing if it can't be read."""
        try:
            return read_kept(self.log_path(task_id, step), offset, size)
        except OSError as error:
            self._log("output can't be read", task_id=task_id, error=str(error))
            return b""

    # --- removal ----------------------------------------------------------------------------------------------------

    def forget(self, task_id: str) -> None:
        """Move the task's directory out of the way, to be removed by `sweep`."""
        for step in Step:
            self._unlock(task_id, step)
        forget_temporary(self.temporary(task_id))
        self._known.discard(task_id)
        self._throw_away(self._task(task_id))
        sync_folder(self._tasks)

    def sweep(self) -> bool:
        """Remove a few hundred of the forgotten files, so that polls go on beside it. True while there are more."""
        self._sweeping = self._sweeping or trash.remove_all(self._trash, self._log)
        for _ in range(_ENTRIES_A_SWEEP):
            if next(self._sweeping, self) is self:
                self._sweeping = None
                self.has_trash = False
                return False
        return True

    def _task(self, task_id: str) -> str:
        return os.path.join(self._tasks, task_id)

    def _path(self, task_id: str, step: Step, suffix: str) -> str:
        return os.path.join(self._tasks, task_id, f"{step.value}.{suffix}")
