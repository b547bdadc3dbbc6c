"""What comes before a command: its files, its environment, and the proof that the plan is the one that was approved."""

import os
from binascii import b2a_base64
from collections.abc import Mapping

from agent.work_messages import MAX_OUTPUTS_BYTES, Assignment, Step, StepSpec, Work
from agent.worker.disk import files
from agent.worker.disk.directories import Directories
from agent.worker.errors import StepRefusedError
from agent.worker.process import environment
from agent.worker.process.hashing import Child
from agent.worker.process.temporary import temporary_folder
from agent.worker.rules.ports import Launch, LaunchedCommand, Log
from agent.worker.step import masking

DEFAULT_PLAN_FILE = "tfplan"
TOO_SHORT = f"the value of {{name}} has fewer than {masking.LEAST_BYTES} bytes: it is not masked in the output"


class SlotDisk(Directories):
    """The slot's folder, and what of it a command is given."""

    def __init__(
        self,
        root: str,
        log: Log,
        *,
        slot: int,
        container: Mapping[str, str],
        secret_variables: Mapping[str, str],
        secrets: environment.Mounts,
        config_maps: environment.Mounts,
    ) -> None:
        super().__init__(root, log)
        self._slot = slot
        self._container = container
        self._secret_variables = secret_variables
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
        recorded = masking.Recorded(self._secrets)
        resolved = environment.resolve(
            assignment,
            container=self._container,
            secrets=recorded,
            config_maps=self._config_maps,
            directory=self.directory(assignment.task_id),
            temporary=self._temporary(assignment.task_id),
            slot=self._slot,
        )
        values = {**recorded.values, **self._secret_variables}
        masks = work.mask_secrets is not False
        folder = work.steps.working_dir(step)
        before = (LaunchedCommand(argv=each.command, working_dir=each.working_dir or folder) for each in spec.before)
        return Launch(
            task_id=assignment.task_id,
            step=step,
            name=work.name,
            run_id=run_id,
            commands=(*before, LaunchedCommand(argv=spec.command, working_dir=folder)),
            environment={**resolved, environment.RUN_ID: run_id},
            secrets=masking.patterns(values.values()) if masks else (),
            notes=tuple(TOO_SHORT.format(name=name) for name in masking.too_short(values)) if masks else (),
        )

    def _temporary(self, task_id: str) -> str:
        """The task's TMPDIR. It gets no short name if the container's own stands, and hides it.

        Such a name in /tmp goes with the task; in a /tmp that outlives the container nobody else would remove it.
        """
        path = self.temporary(task_id)
        return path if "TMPDIR" in self._container else temporary_folder(path)

    def check_plan_file(self, assignment: Assignment) -> None:
        """Raises StepRefusedError if a plan step names a file that it has not written."""
        work = assignment.work
        named = work.steps.plan.plan_file if work.steps.plan else None
        if named is not None and (fd := self._open_plan_file(assignment.task_id, work, named)) is not None:
            os.close(fd)

    def _open_plan_file(self, task_id: str, work: Work, named: str | None) -> int | None:
        folder = files.resolve_folder(self.directory(task_id), work.steps.working_dir(Step.PLAN))
        fd = files.open_plain(folder, named or DEFAULT_PLAN_FILE)
        if fd is None and named is not None:
            raise StepRefusedError(f"there is no file {named!r}, which the task names as its planFile")
        return fd

    def begin_digest(self, assignment: Assignment) -> None:
        """Begin to compute the digest that an approval of this plan has to name. Raises StepRefusedError."""
        work, task_id = assignment.work, assignment.task_id
        apply = work.steps.apply or StepSpec(command=())
        named = work.steps.plan.plan_file if work.steps.plan else None
        config = environment.of_config_maps(work, self._config_maps)
        fd = self._open_plan_file(task_id, work, named)
        source = fd if fd is not None else self._unmasked(task_id)
        at = 0

        def read_output(size: int) -> bytes:
            nonlocal at
            data = self.read_log(task_id, Step.PLAN, at, size)
            at += len(data)
            return data

        def digest() -> str:
            from agent.worker.step.digest import Source, hash_content, plan_digest  # noqa: PLC0415 - see `hashing`

            read = read_output if source is None else lambda size: os.read(source, size)
            return plan_digest(Source.OUTPUT if fd is None else Source.FILE, hash_content(read), apply, work, config)

        self.end_digest()
        try:
            self._hashing = Child(digest)
        finally:
            if source is not None:
                os.close(source)

    def _unmasked(self, task_id: str) -> int | None:
        """The file with the plan's unmasked output. Plans that differ in a Secret's value must have different digests.

        None if nothing had to be masked: then the log itself is unmasked.
        """
        try:
            fd = os.open(self.unmasked_path(task_id, Step.PLAN), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        return fd

    def outputs(self, assignment: Assignment) -> str:
        """The file that the task hands over, in base64. Raises StepRefusedError if it can't be handed over."""
        work, path = assignment.work, assignment.work.outputs_path or ""
        folder = files.resolve_folder(self.directory(assignment.task_id), work.steps.working_dir(assignment.step))
        fd = files.open_plain(folder, path)
        if fd is None:
            raise StepRefusedError(f"there is no file {path!r}, which the task names as its outputs")
        with open(fd, "rb") as file:
            content = file.read(MAX_OUTPUTS_BYTES + 1)
        if len(content) > MAX_OUTPUTS_BYTES:
            raise StepRefusedError(f"{path!r}, the task's outputs, has more than {MAX_OUTPUTS_BYTES} bytes")
        return b2a_base64(content, newline=False).decode()

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
