"""How far a step is in its list of commands, and what comes next. Pure: `step` starts, signals and reaps.

A command has ended when its first process has. Its other processes are then killed, and the next command starts if this
one ended with 0. A step that is being stopped starts no other command, and has ended only when none of its processes is
left. So a shell that the signal ends does not cut short the program that it ran.
"""

from enum import Enum, auto


class Then(Enum):
    """What comes next: wait, kill what is left of the command, start the next one, or the step has ended."""

    WAIT = auto()
    CLEAR = auto()
    NEXT = auto()
    END = auto()


class Course:
    """One step's way through its commands. `command` is the one that runs, or ran last."""

    def __init__(self, commands: int) -> None:
        self.command = 0
        self.patient = False
        """Whether what is left of a command is waited for."""
        self._commands = commands
        self._last = False  # no other command starts
        self._well: bool | None = None

    @property
    def first_ended(self) -> bool:
        """Whether the command's first process has ended."""
        return self._well is not None

    def ended(self, *, well: bool) -> None:
        """The command's first process has ended; `well`: with 0."""
        self._well = well

    def begin_next(self) -> None:
        """The next command is about to start."""
        self.command += 1
        self._well = None

    def interrupt(self) -> None:
        """The step is being stopped."""
        self._last = self.patient = True

    def kill(self) -> None:
        """Its grace is over."""
        self._last, self.patient = True, False

    def then(self, *, alone: bool) -> Then:
        """What comes next; `alone`: nothing is left of the command but its first process, or not even that."""
        if self._well is None:
            return Then.WAIT
        if not alone:
            return Then.WAIT if self.patient else Then.CLEAR
        if self._well and not self._last and self.command + 1 < self._commands:
            return Then.NEXT
        return Then.END
