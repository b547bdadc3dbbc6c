"""Running a step: its commands one after the other, each in a session and process group of its own, to the end of all.

How a command starts. The worker forks; the child makes its session, asks the kernel to die with the worker, and waits.
The worker records the child's id in the step's marker, syncs it, and only then lets it go on to the command. So every
process that runs was recorded, and a later worker can find it.

How it ends: `course` says what comes when. The worker is the parent of all orphans below it (PR_SET_CHILD_SUBREAPER).
So every process that a command leaves behind is found, killed and reaped.
"""

import os
import signal
from typing import Protocol

from agent.work_messages import Step
from agent.worker.disk.files import resolve_folder
from agent.worker.errors import StepRefusedError
from agent.worker.process import processes
from agent.worker.process.memory import MemoryWatch
from agent.worker.rules.ports import Ended, Launch, Log
from agent.worker.step import marks
from agent.worker.step.course import Course, Then
from agent.worker.step.output import Echo, StepOutput

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

    def log_space(self, task_id: str, step: Step) -> str:
        """The file whose space is taken for the end of it."""

    def step_lock(self, task_id: str, step: Step) -> int:
        """The descriptor that it inherits."""

    def record_process(self, task_id: str, step: Step, pid: int) -> None:
        """Write down which process it is, durably."""


class ProcessRunner:
    """Runs one step at a time. Made in, and used from, one thread: that which the kernel takes for the parent."""

    def __init__(self, folder: StepFolder, echo: Echo, log: Log) -> None:
        self._folder = folder
        self._echo = echo
        self._log = log
        self._launch: Launch | None = None
        self._course = Course(0)
        self._pid: int | None = None
        self._status: int | None = None
        self._sink: int | None = None
        self._memory: MemoryWatch | None = None
        self.output: StepOutput | None = None
        self._adopts: bool | None = None

    @property
    def clearing(self) -> bool:
        """Whether the command has ended and others are still there: look again after CLEAR_SECONDS.

        Of a step that is being stopped the kernel tells us the last one's end, as all of it are our children by then.
        """
        return self._pid is not None and self._status is not None and not (self._course.patient and self._adopts)

    def start(self, launch: Launch) -> None:
        """Start its first command. Raises StepRefusedError if that can't be run at all."""
        self._adopt_orphans()
        problem = ""
        try:
            source, self._sink = os.pipe()
            self.output = self._open_output(launch, source)
            self._memory = MemoryWatch()
            self._pid, problem = self._spawn(launch, 0, self._sink)
        except OSError as error:
            self._close()
            raise StepRefusedError(f"the command can't be started: {error.strerror}") from error
        if problem:
            os.waitpid(self._pid, 0)
            self._close()
            raise StepRefusedError(f"command {launch.commands[0].argv[0]!r}: {problem}")
        self._launch, self._course, self._status = launch, Course(len(launch.commands)), None

    def _start_next(self, launch: Launch, sink: int) -> str | None:
        """Start the command after the one that ended. Says why it can't be run, if it can't."""
        self._course.begin_next()
        number = self._course.command
        try:
            pid, problem = self._spawn(launch, number, sink)
        except OSError as error:
            return f"the command can't be started: {error.strerror}"
        if problem:
            os.waitpid(pid, 0)
            return f"command {launch.commands[number].argv[0]!r}: {problem}"
        self._pid, self._status = pid, None
        return None

    def _close(self) -> int:
        """Let go of the step. Returns how much it wrote."""
        total = 0
        if self.output is not None:
            self.output.finish()
            total = self.output.total_bytes
        if self._sink is not None:
            os.close(self._sink)
        self._pid = self._status = self.output = self._launch = self._memory = self._sink = None
        return total

    def _open_output(self, launch: Launch, source: int) -> StepOutput:
        mark, key = marks.mark(launch.name, launch.step, launch.task_id), (launch.task_id, launch.step)
        try:
            return StepOutput(
                source,
                self._folder.log_path(*key),
                mark,
                self._echo,
                space_path=self._folder.log_space(*key),
                secrets=launch.secrets,
                notes=launch.notes,
                unmasked_path=self._folder.unmasked_path(*key),
            )
        except OSError:
            os.close(source)
            raise

    def _adopt_orphans(self) -> None:
        if self._adopts is not None:
            return
        try:
            processes.adopt_orphans()
        except (OSError, AttributeError) as error:
            self._log("the kernel does not give us our orphans; only the process group is killed", error=str(error))
            self._adopts = False
        else:
            self._adopts = True

    def _spawn(self, launch: Launch, number: int, sink: int) -> tuple[int, str]:
        """The child's id, and why it could not run the command, if it couldn't."""
        parent = os.getpid()
        lock = self._folder.step_lock(launch.task_id, launch.step)
        directory = self._folder.directory(launch.task_id)
        # All commands have the pipe in common: one before may have made it non-blocking, as node does.
        os.set_blocking(sink, True)
        go_reader, go_writer = os.pipe()
        problem_reader, problem_writer = os.pipe()
        with open(problem_reader, "rb") as problems, open(go_writer, "wb", 0) as go:
            # A signal between fork and exec must not run the worker's handlers in the child.
            old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            try:
                pid = os.fork()
                if pid == 0:
                    go.close()
                    _become(launch, number, directory, (sink, lock, go_reader, problem_writer), parent)
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

    def interrupt(self, signal_name: str) -> None:
        """Send the running command's group this signal, once. No other command starts."""
        self._course.interrupt()
        if self._pid is not None and self._status is None:
            processes.send_group(self._pid, signal.Signals[signal_name])

    def terminate(self) -> None:
        """SIGTERM to all that is left of it."""
        self._send_all(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to all that is left of it."""
        self._course.kill()
        self._send_all(signal.SIGKILL)

    def _send_all(self, number: signal.Signals) -> None:
        if self._pid is None:
            return
        left = processes.descendants(os.getpid())
        if not self._adopts:
            # What left its parent can still be in its group; the group's id is not given away while anybody is.
            processes.send_group(self._pid, number)
        for pid in left:
            processes.send(pid, number)

    def reap(self) -> Ended | None:
        """Reap the processes that have ended. Reports the end once none of the step's processes is left."""
        alone = self._collect()
        if self._pid is None or self._status is None:
            return None
        alone = alone and (self._adopts is True or not processes.group_lives(self._pid))
        problem = None
        match self._course.then(alone=alone):
            case Then.WAIT:
                return None
            case Then.CLEAR:
                self._send_all(signal.SIGKILL)
                return None
            case Then.NEXT if self._launch is not None and self._sink is not None:
                problem = self._start_next(self._launch, self._sink)
                if problem is None:
                    return None
        return self._end(self._status, problem)

    def _collect(self) -> bool:
        """Whether no child is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self._pid:
                self._status = status
                self._course.ended(well=status == 0)

    def _end(self, status: int, problem: str | None) -> Ended:
        """How the step ended. `status` is the wait status of the last command that ran."""
        memory = self._memory.ran_out() if self._memory is not None else None
        total = self._close()
        code = os.waitstatus_to_exitcode(status)
        return Ended(
            exit_code=code if code >= 0 and problem is None else None,
            signal=-code if code < 0 else None,
            output_bytes=total,
            command=self._course.command,
            problem=problem,
            memory=memory,
        )


def _become(launch: Launch, number: int, directory: str, fds: tuple[int, int, int, int], parent: int) -> None:
    """In the child: turn into a command of the step. Does not return."""
    sink, lock, go, problem = fds
    command = launch.commands[number]
    trouble = "it can't be prepared"
    try:
        os.setsid()
        processes.die_with_parent()
        # Of what the worker was started with too: a shell can't trap a signal that it was born ignoring.
        for handled in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(handled, signal.SIG_DFL)
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
        folder = resolve_folder(directory, command.working_dir)
        os.chdir(folder)
        trouble = "it can't be run"
        environment = {**launch.environment, "PWD": folder}
        os.execvpe(command.argv[0], command.argv, environment)  # noqa: S606 - the task says what runs
    except StepRefusedError as error:
        os.write(problem, str(error).encode())
    except OSError as error:
        os.write(problem, f"{trouble}: {error.strerror}".encode())
    except BaseException as error:  # noqa: BLE001 - in a forked child nothing may go further up
        os.write(problem, f"{trouble}: {type(error).__name__}".encode())
    os._exit(127)
