"""What comes before a command: its files, its environment, and the proof that the plan is the one that was approved."""

import os
from collections.abc import Mapping

from agent.work_messages import Assignment, Step, StepSpec
from agent.worker import environment, files
from agent.worker.directories import Directories
from agent.worker.errors import StepRefusedError
from agent.worker.hashing import Child
from agent.worker.ports import Launch, LaunchedCommand, Log
from agent.worker.temporary import temporary_folder

DEFAULT_PLAN_FILE = "tfplan"


class SlotDisk(Directories):
    """The slot's folder, and what of it a command is given."""

    def __init__(
        self,
        root: str,
        log: Log,
        *,
        slot: int,
        container: Mapping[str, str],
        secrets: environment.Mounts,
        config_maps: environment.Mounts,
    ) -> None:
        super().__init__(root, log)
        self._slot = slot
        self._container = container
        self._secrets = secrets
        self._config_maps = config_maps
        self._hashing: Child | None = None

    def prepare(self, assignment: Assignment, run_id: str) -> Launch:
        """Files written and environment resolved. Nothing runs yet. Raises StepRefusedError."""
        work, step = assignment.work, assignment.step
        spec = work.steps.get(step)
        if spec is None or not spec.command:
            raise StepRefusedError(f"the task has no command for its {step} step")
        if not (step is Step.APPLY and work.steps.plan is not None):
            files.write_files(self.directory(assignment.task_id), work.files)
        resolved = environment.resolve(
            assignment,
            container=self._container,
            secrets=self._secrets,
            config_maps=self._config_maps,
            directory=self.directory(assignment.task_id),
            temporary=temporary_folder(self.temporary(assignment.task_id)),
            slot=self._slot,
        )
        folder = work.steps.working_dir(step)
        before = (LaunchedCommand(argv=each.command, working_dir=each.working_dir or folder) for each in spec.before)
        return Launch(
            task_id=assignment.task_id,
            step=step,
            name=work.name,
            run_id=run_id,
            commands=(*before, LaunchedCommand(argv=spec.command, working_dir=folder)),
            environment={**resolved, environment.RUN_ID: run_id},
        )

    def begin_digest(self, assignment: Assignment) -> None:
        """Begin to compute the digest that an approval of this plan has to name. Raises StepRefusedError."""
        work, task_id = assignment.work, assignment.task_id
        apply = work.steps.apply or StepSpec(command=())
        named = work.steps.plan.plan_file if work.steps.plan else None
        folder = files.resolve_folder(self.directory(task_id), work.steps.working_dir(Step.PLAN))
        fd = files.open_plain(folder, named or DEFAULT_PLAN_FILE)
        if fd is None and named is not None:
            raise StepRefusedError(f"there is no file {named!r}, which the task names as its planFile")
        at = 0

        def read_output(size: int) -> bytes:
            nonlocal at
            data = self.read_log(task_id, Step.PLAN, at, size)
            at += len(data)
            return data

        def digest() -> str:
            from agent.worker.digest import Source, hash_content, plan_digest  # noqa: PLC0415 - see `hashing`

            if fd is None:
                return plan_digest(Source.OUTPUT, hash_content(read_output), apply, work)
            return plan_digest(Source.FILE, hash_content(lambda size: os.read(fd, size)), apply, work)

        self.end_digest()
        try:
            self._hashing = Child(digest)
        finally:
            if fd is not None:
                os.close(fd)

    @property
    def hashing(self) -> int | None:
        """What to poll for the digest that was begun."""
        return self._hashing.fd if self._hashing is not None else None

    def digest(self) -> str | None:
        """The digest that was begun; None while it is not ready. Raises StepRefusedError if there can be none."""
        if self._hashing is None:
            raise StepRefusedError("it was not begun")
        try:
            found = self._hashing.result()
        except StepRefusedError:
            self._hashing = None
            raise
        if found is not None:
            self._hashing = None
        return found

    def end_digest(self) -> None:
        """It is not wanted any more."""
        if self._hashing is not None:
            self._hashing.end()
            self._hashing = None
