"""Running one command: its own session and process group, its end, and the end of everything that descends from it.

How a command starts. The worker forks; the child makes its session, asks the kernel to die with the worker, and waits.
The worker records the child's id in the step's marker, syncs it, and only then lets it go on to the command. So
whatever runs was recorded, and a later worker can find it.

How it ends. The worker is the parent of all orphans below it (PR_SET_CHILD_SUBREAPER). Once the command's own process
has ended, the others, wherever they hid, are killed and reaped until none is left.
"""

import os
import signal
from typing import Protocol

from agent.work_messages import Step
from agent.worker import marks, processes
from agent.worker.errors import StepRefusedError
from agent.worker.output import Echo, StepOutput
from agent.worker.ports import Ended, Launch, Log

CLEAR_SECONDS = 0.01
"""Between two looks for processes that are left."""


class StepFolder(Protocol):
    """What a command needs of the slot's folder."""

    def directory(self, task_id: str) -> str:
        """Where it runs."""

    def log_path(self, task_id: str, step: Step) -> str:
        """Where its output goes."""

    def unmasked_path(self, task_id: str, step: Step) -> str:
        """Where its output goes with the values of Secrets in it, if there are any."""

    def step_lock(self, task_id: str, step: Step) -> int:
        """The descriptor that it inherits."""

    def record_process(self, task_id: str, step: Step, pid: int) -> None:
        """Write down which process it is, durably."""


class ProcessRunner:
    """Runs one command at a time. Made in, and used from, one thread: that which the kernel takes for the parent."""

    def __init__(self, folder: StepFolder, echo: Echo, log: Log) -> None:
        self._folder = folder
        self._echo = echo
        self._log = log
        self._pid: int | None = None
        self._status: int | None = None
        self.output: StepOutput | None = None
        self._adopting = False

    @property
    def clearing(self) -> bool:
        """Whether the command has ended and others are still to be killed: look again after CLEAR_SECONDS."""
        return self._pid is not None and self._status is not None

    def start(self, launch: Launch) -> None:
        """Start it. Raises StepRefusedError if the command can't be run at all."""
        self._adopt_orphans()
        try:
            source, sink = os.pipe()
            output = self._open_output(launch, source, sink)
            try:
                pid, problem = self._spawn(launch, sink)
            except OSError:
                output.finish()
                raise
            finally:
                os.close(sink)
        except OSError as error:
            raise StepRefusedError(f"the command can't be started: {error.strerror}") from error
        if problem:
            os.waitpid(pid, 0)
            output.finish()
            raise StepRefusedError(f"command {launch.command[0]!r}: {problem}")
        self._pid, self._status, self.output = pid, None, output

    def _open_output(self, launch: Launch, source: int, sink: int) -> StepOutput:
        mark = marks.mark(launch.name, launch.step, launch.task_id)
        try:
            return StepOutput(
                source,
                self._folder.log_path(launch.task_id, launch.step),
                mark,
                self._echo,
                secrets=launch.secrets,
                notes=launch.notes,
                unmasked_path=self._folder.unmasked_path(launch.task_id, launch.step),
            )
        except OSError:
            os.close(source)
            os.close(sink)
            raise

    def _adopt_orphans(self) -> None:
        if self._adopting:
            return
        try:
            processes.adopt_orphans()
        except (OSError, AttributeError) as error:
            self._log("the kernel does not give us our orphans; only the process group is killed", error=str(error))
        self._adopting = True

    def _spawn(self, launch: Launch, sink: int) -> tuple[int, str]:
        """The child's id, and why it could not run the command, if it couldn't."""
        parent = os.getpid()
        lock = self._folder.step_lock(launch.task_id, launch.step)
        directory = self._folder.directory(launch.task_id)
        go_reader, go_writer = os.pipe()
        problem_reader, problem_writer = os.pipe()
        with open(problem_reader, "rb") as problems, open(go_writer, "wb", 0) as go:
            # A signal between fork and exec must not run the worker's handlers in the child.
            old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            try:
                pid = os.fork()
                if pid == 0:
                    go.close()
                    _become(launch, directory, (sink, lock, go_reader, problem_writer), parent)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
                os.close(go_reader)
                os.close(problem_writer)
            try:
                self._folder.record_process(launch.task_id, launch.step, pid)
                go.write(b"g")
                return pid, problems.read().decode()
            except OSError as error:
                processes.send(pid, signal.SIGKILL)
                return pid, f"its process can't be recorded: {error.strerror}"

    def terminate(self) -> None:
        """SIGTERM to its process group."""
        if self._pid is not None and self._status is None:
            processes.send_group(self._pid, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to all that descends from it."""
        if self._pid is None:
            return
        if self._status is None:
            processes.send_group(self._pid, signal.SIGKILL)
        for pid in processes.descendants(os.getpid()):
            processes.send(pid, signal.SIGKILL)

    def reap(self) -> Ended | None:
        """Collect what has ended; says so once the command and all below it are gone."""
        alone = False
        while not alone:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                alone = True
                break
            if pid == 0:
                break
            if pid == self._pid:
                self._status = status
        if self._pid is None or self._status is None:
            return None
        if not alone:
            self.kill()
            return None
        return self._end(self._status)

    def _end(self, status: int) -> Ended:
        total = 0
        if self.output is not None:
            self.output.finish()
            total = self.output.total_bytes
        self._pid = self._status = self.output = None
        code = os.waitstatus_to_exitcode(status)
        return Ended(exit_code=code if code >= 0 else None, signal=-code if code < 0 else None, output_bytes=total)


def _become(launch: Launch, directory: str, fds: tuple[int, int, int, int], parent: int) -> None:
    """In the child: turn into the command. Does not return."""
    sink, lock, go, problem = fds
    trouble = "it can't be prepared"
    try:
        os.setsid()
        processes.die_with_parent()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if os.getppid() != parent:
            os._exit(1)
        # os.read ends without a byte if the worker is gone.
        if os.read(go, 1) != b"g":
            os._exit(1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        os.set_inheritable(lock, True)
        trouble = "its directory can't be entered"
        os.chdir(directory)
        trouble = "it can't be run"
        os.execvpe(launch.command[0], launch.command, launch.environment)  # noqa: S606 - the task says what runs
    except OSError as error:
        os.write(problem, f"{trouble}: {error.strerror}".encode())
    except BaseException as error:  # noqa: BLE001 - in a forked child nothing may go further up
        os.write(problem, f"{trouble}: {type(error).__name__}".encode())
    os._exit(127)
