"""What comes before a command: its files, its environment, and the proof that the plan is the one that was approved."""

import os
from binascii import b2a_base64
from collections.abc import Mapping

from agent.work_messages import MAX_OUTPUTS_BYTES, Assignment, Step, StepSpec
from agent.worker import environment, files, masking, processes
from agent.worker.directories import Directories
from agent.worker.errors import StepRefusedError
from agent.worker.ports import Launch, Log

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
        secrets: environment.Mounts,
        config_maps: environment.Mounts,
    ) -> None:
        super().__init__(root, log)
        self._slot = slot
        self._container = container
        self._secrets = secrets
        self._config_maps = config_maps

    def prepare(self, assignment: Assignment, run_id: str) -> Launch:
        """Files, environment and digest checked. Nothing runs yet. Raises StepRefusedError."""
        work, step = assignment.work, assignment.step
        spec = work.steps.get(step)
        if spec is None or not spec.command:
            raise StepRefusedError(f"the task has no command for its {step} step")
        if step is Step.APPLY and work.steps.plan is not None:
            self._check_approval(assignment)
        else:
            files.write_files(self.directory(assignment.task_id), work.files)
        recorded = masking.Recorded(self._secrets)
        resolved = environment.resolve(
            assignment,
            container=self._container,
            secrets=recorded,
            config_maps=self._config_maps,
            directory=self.directory(assignment.task_id),
            temporary=self.temporary(assignment.task_id),
            slot=self._slot,
        )
        values = recorded.values | environment.secret_variables(self._container)
        masks = work.mask_secrets is not False
        return Launch(
            task_id=assignment.task_id,
            step=step,
            name=work.name,
            run_id=run_id,
            command=spec.command,
            environment={**resolved, environment.RUN_ID: run_id},
            secrets=masking.patterns(values.values()) if masks else (),
            notes=tuple(TOO_SHORT.format(name=name) for name in masking.too_short(values)) if masks else (),
        )

    def plan_digest(self, assignment: Assignment) -> str:
        """The digest that an approval of this plan has to name. Raises StepRefusedError."""
        work, task_id = assignment.work, assignment.task_id
        apply = work.steps.apply or StepSpec(command=())
        named = work.steps.plan.plan_file if work.steps.plan else None
        fd = files.open_plain(self.directory(task_id), named or DEFAULT_PLAN_FILE)
        if fd is None and named is not None:
            raise StepRefusedError(f"there is no file {named!r}, which the task names as its planFile")
        is_file = fd is not None
        with open(self._plan_output(task_id) if fd is None else fd, "rb", 0) as content:

            def digest() -> str:
                from agent.worker.digest import Source, hash_content, plan_digest  # noqa: PLC0415 - see in_child

                source = Source.FILE if is_file else Source.OUTPUT
                return plan_digest(source, hash_content(content.read), apply, work)

            # In a process of its own: hashlib brings in OpenSSL, 4 MiB that the worker would keep for good.
            return processes.in_child(digest)

    def outputs(self, assignment: Assignment) -> str:
        """The file that the task hands over, in base64. Raises StepRefusedError if it can't be handed over."""
        path = assignment.work.outputs_path or ""
        fd = files.open_plain(self.directory(assignment.task_id), path)
        if fd is None:
            raise StepRefusedError(f"there is no file {path!r}, which the task names as its outputs")
        with open(fd, "rb") as file:
            content = file.read(MAX_OUTPUTS_BYTES + 1)
        if len(content) > MAX_OUTPUTS_BYTES:
            raise StepRefusedError(f"{path!r}, the task's outputs, has more than {MAX_OUTPUTS_BYTES} bytes")
        return b2a_base64(content, newline=False).decode()

    def _plan_output(self, task_id: str) -> int:
        """The plan's output as its command wrote it: two plans that differ in a value of a Secret are two plans."""
        try:
            return os.open(self.unmasked_path(task_id, Step.PLAN), os.O_RDONLY)
        except FileNotFoundError:
            return os.open(self.log_path(task_id, Step.PLAN), os.O_RDONLY)

    def _check_approval(self, assignment: Assignment) -> None:
        """Raises StepRefusedError unless the plan, the command, its environment and the attempt are as approved."""
        if assignment.plan_digest is None:
            raise StepRefusedError("the apply step was not approved")
        try:
            found = self.plan_digest(assignment)
        except OSError as error:
            raise StepRefusedError(f"the plan that was approved can't be read: {error.strerror}") from error
        if found != assignment.plan_digest:
            raise StepRefusedError("plan changed since it was approved")
