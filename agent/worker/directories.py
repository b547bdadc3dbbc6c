"""The slot's folder on the disk: what is kept of each task, and the writes that must be whole or not at all.

    worker.lock                  held for the life of the worker: one instance a folder
    tasks/ID/dir                 the commands' directory; it outlives the steps
    tasks/ID/tmp                 their TMPDIR, unless the container has one
    tasks/ID/STEP.assignment.json
    tasks/ID/STEP.lock           held by the worker and by every process of the command, through an inherited descriptor
    tasks/ID/STEP.started        made once, before the command runs; its existence alone says that it may have run
    tasks/ID/STEP.log            the output, the values of Secrets masked: it is uploaded
    tasks/ID/STEP.unmasked       the output as the command wrote it, if there are values to mask: it stays here
    tasks/ID/STEP.exit.json      how it ended
    tasks/ID/STEP.told           the agent has taken that
    trash/                       forgotten tasks, removed bit by bit

A file is written beside its place, synced and renamed, then its folder is synced. The space for an exit is taken when
the step is claimed: the command may fill the disk, and its end must still find room.
"""

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from agent.codec import WireError, decode, encode, format_time, parse_time
from agent.work_messages import TASK_ID_PATTERN, Assignment, ExitReport, Step
from agent.worker import processes, recovery
from agent.worker.ports import Log, StoredStep

EXIT_BYTES = 8192
"""More than an exit report can need: its reason is cut at 1 024 characters, 6 bytes each at worst in JSON."""
_ENTRIES_A_SWEEP = 200


class Directories:
    """Everything of a slot's folder but the tasks' own files."""

    def __init__(self, root: str, log: Log) -> None:
        self.root = root
        self._log = log
        self._tasks = os.path.join(root, "tasks")
        self._trash = os.path.join(root, "trash")
        self._instance_lock: int | None = None
        self._step_locks: dict[tuple[str, Step], int] = {}
        self._sweeping: Iterator[None] | None = None
        self.has_trash = True

    def lock_instance(self) -> bool:
        """Take the folder for this process. False while another worker has it."""
        os.makedirs(self.root, exist_ok=True)
        fd = os.open(os.path.join(self.root, "worker.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        if not _lock(fd):
            os.close(fd)
            return False
        self._instance_lock = fd
        for folder in (self._tasks, self._trash):
            os.makedirs(folder, exist_ok=True)
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
        """A step's output as its command wrote it; there is none if nothing had to be masked."""
        return self._path(task_id, step, "unmasked")

    def step_lock(self, task_id: str, step: Step) -> int:
        """The descriptor of a claimed step's lock, for its command to inherit."""
        return self._step_locks[task_id, step]

    # --- tasks ------------------------------------------------------------------------------------------------------

    def load(self) -> list[StoredStep]:
        """The last step of every task. What can't be read is left alone, and said."""
        stored = []
        for task_id in sorted(os.listdir(self._tasks)):
            for step in (Step.APPLY, Step.PLAN):
                try:
                    kept = self._stored(task_id, step)
                except (OSError, ValueError, WireError) as error:
                    self._log("a kept step can't be read", task_id=task_id, step=step.value, error=str(error))
                    break
                if kept:
                    stored.append(kept)
                    break
        return stored

    def _stored(self, task_id: str, step: Step) -> StoredStep | None:
        text = _read(self._path(task_id, step, "assignment.json"))
        if text is None:
            return None
        marker = self._marker(task_id, step)
        started = marker.get("start_time") if marker else None
        return StoredStep(
            assignment=decode(Assignment, json.loads(text)),
            started=marker is not None,
            start_time=parse_time(started) if started else None,
            exit=self.stored_exit(task_id, step),
            exit_told=os.path.exists(self._path(task_id, step, "told")),
        )

    def assign(self, assignment: Assignment) -> None:
        """Keep the assignment, and make the task's directory."""
        task_id, step = assignment.task_id, assignment.step
        if not re.fullmatch(TASK_ID_PATTERN, task_id):
            raise OSError(f"{task_id!r} is no task id")
        for folder in (self._task(task_id), self.directory(task_id), self.temporary(task_id)):
            os.makedirs(folder, exist_ok=True)
        _write(self._path(task_id, step, "assignment.json"), json.dumps(encode(assignment)).encode())
        _sync_folder(self._tasks)
        _sync_folder(self.root)

    def claim(self, task_id: str, step: Step, *, instance: str, run_id: str, start_time: datetime) -> bool:
        """Make the marker, durably, under the step's lock. False if it was there: the step must not start again."""
        lock = os.open(self._path(task_id, step, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
        if not _lock(lock):
            os.close(lock)
            return False
        self._step_locks[task_id, step] = lock
        path = self._path(task_id, step, "started")
        try:
            self._take_exit_space(task_id, step)
            marker = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            self._unlock(task_id, step)
            return False
        except OSError:
            self._unlock(task_id, step)
            raise
        try:
            with open(marker, "wb") as file:
                content = {"instance": instance, "run_id": run_id, "start_time": format_time(start_time)}
                file.write(json.dumps(content).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            _sync_folder(self._task(task_id))
        except OSError:
            # Nothing has run: without its marker the step is as if never begun.
            with contextlib.suppress(OSError):
                os.unlink(path)
            self._unlock(task_id, step)
            raise
        return True

    def record_process(self, task_id: str, step: Step, pid: int) -> None:
        """Add to the marker which process leads the command's group."""
        with open(self._path(task_id, step, "started"), "ab") as file:
            file.write(json.dumps({"pid": pid, "start_ticks": processes.start_ticks(pid)}).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def reclaim(self, task_id: str, step: Step) -> bool:
        """Kill what an earlier worker left of the step. True once nothing of it can run any more."""
        marker = self._marker(task_id, step) or {}
        gone = recovery.kill_remains(marker.get("run_id"), marker.get("pid"), marker.get("start_ticks"))
        lock = os.open(self._path(task_id, step, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
        free = _lock(lock)
        os.close(lock)
        return gone and free

    def stored_exit(self, task_id: str, step: Step) -> ExitReport | None:
        """How the step ended, if that is on disk."""
        text = _read(self._path(task_id, step, "exit.json"))
        return None if text is None else decode(ExitReport, json.loads(text))

    def store_exit(self, exit_report: ExitReport) -> None:
        """Keep how the step ended, and let go of its lock."""
        task_id, step = exit_report.task_id, exit_report.step
        path = self._path(task_id, step, "exit.json")
        with open(os.open(path + ".space", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(json.dumps(encode(exit_report)).encode())
            file.flush()
            file.truncate()
            os.fsync(file.fileno())
        os.replace(path + ".space", path)
        _sync_folder(self._task(task_id))
        self._unlock(task_id, step)

    def exit_told(self, task_id: str, step: Step) -> None:
        """Keep that the agent took the end. May be forgotten: it is then told again."""
        with contextlib.suppress(OSError):
            os.close(os.open(self._path(task_id, step, "told"), os.O_WRONLY | os.O_CREAT, 0o600))

    def _take_exit_space(self, task_id: str, step: Step) -> None:
        fd = os.open(self._path(task_id, step, "exit.json.space"), os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(fd, 0, EXIT_BYTES)
        finally:
            os.close(fd)

    def _unlock(self, task_id: str, step: Step) -> None:
        lock = self._step_locks.pop((task_id, step), None)
        if lock is not None:
            os.close(lock)

    def _marker(self, task_id: str, step: Step) -> dict[str, Any] | None:
        """What the marker says; empty if it was cut short; None if there is none."""
        text = _read(self._path(task_id, step, "started"))
        if text is None:
            return None
        marker: dict[str, Any] = {}
        for line in text.splitlines():
            with contextlib.suppress(ValueError):
                marker |= json.loads(line)
        return marker

    # --- output -----------------------------------------------------------------------------------------------------

    def log_bytes(self, task_id: str, step: Step) -> int:
        """How much of the step's output is on disk."""
        try:
            return os.stat(self.log_path(task_id, step)).st_size
        except OSError:
            return 0

    def read_log(self, task_id: str, step: Step, offset: int, size: int) -> bytes:
        """A part of it; nothing if it can't be read."""
        try:
            with open(self.log_path(task_id, step), "rb") as file:
                return os.pread(file.fileno(), size, offset)
        except OSError as error:
            self._log("output can't be read", task_id=task_id, error=str(error))
            return b""

    # --- removal ----------------------------------------------------------------------------------------------------

    def forget(self, task_id: str) -> None:
        """Move the task's directory out of the way, to be removed by `sweep`."""
        for step in Step:
            self._unlock(task_id, step)
        number = 0
        while os.path.lexists(target := os.path.join(self._trash, f"{task_id}.{number}")):
            number += 1
        os.rename(self._task(task_id), target)
        _sync_folder(self._tasks)
        self._sweeping = None
        self.has_trash = True

    def sweep(self) -> bool:
        """Remove a few hundred of the forgotten files, so that polls go on beside it. True while there are more."""
        self._sweeping = self._sweeping or self._remove_all()
        for _ in range(_ENTRIES_A_SWEEP):
            if next(self._sweeping, self) is self:
                self._sweeping = None
                self.has_trash = False
                return False
        return True

    def _remove_all(self) -> Iterator[None]:
        for name in os.listdir(self._trash):
            yield from _remove(os.path.join(self._trash, name), self._log)

    def _task(self, task_id: str) -> str:
        return os.path.join(self._tasks, task_id)

    def _path(self, task_id: str, step: Step, suffix: str) -> str:
        return os.path.join(self._tasks, task_id, f"{step.value}.{suffix}")


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _write(path: str, content: bytes) -> None:
    with open(path + ".new", "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)
    _sync_folder(os.path.dirname(path))


def _sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove(root: str, log: Log) -> Iterator[None]:
    """Remove a tree, one entry a step. Links are removed, not followed. What can't be removed is said and left.

    A stack of its own: a task may nest folders deeper than Python nests calls.
    """
    stack = [(root, False)]
    while stack:
        path, emptied = stack.pop()
        try:
            if emptied:
                os.rmdir(path)
            elif os.path.isdir(path) and not os.path.islink(path):
                os.chmod(path, 0o700)
                stack.append((path, True))
                stack += [(os.path.join(path, name), False) for name in os.listdir(path)]
            else:
                os.unlink(path)
        except OSError as error:
            log("a forgotten file can't be removed", error=str(error))
        yield
