"""`podslots`: the command line for people. Speaks to the Kubernetes API only.

Each verb's options stand beside what it does, in a module that is loaded only when the verb is used.

Exit codes: 0 done; 1 the cluster or the object says no, or (`wait`, `logs -f`) the task ended otherwise; 2 the command
line is wrong; 3 `wait` gave up; 4 (`wait`, `logs`) what was asked for can't be seen; 130 interrupted.
"""

import errno
import os
import sys
import traceback
from importlib import import_module
from pathlib import Path

import click

from controller.cli.arguments import elsewhere
from controller.cli.arguments.verb import VerbGroup
from controller.cli.start import INTERRUPTED

TRACEBACK = "PODSLOTS_TRACEBACK"
"""The variable that shows the traceback of an error that nobody expected."""
MAX_SHOWN = 200
"""Characters of such an error's own words."""

SECTIONS = {
    "Look": {
        "get": "get",
        "describe": "describe.command",
        "logs": "logs.command",
        "plans": "plans",
        "wait": "wait",
    },
    "Do": {
        "submit": "submit",
        "approve": "tasks",
        "retry": "retry",
        "cancel": "tasks",
        "drain": "pods",
        "undrain": "pods",
        "break-glass": "pods",
        "forget": "pods",
        "unlock": "tasks",
        "rotate": "pools",
        "rollout": "rollout",
    },
    "Plan ahead": {
        "simulate": "simulate.command",
    },
    "The installation": {
        "doctor": "doctor.examine",
        "uninstall": "uninstall",
        "version": "version",
    },
    "This machine": {
        "local": "local",
        "completion": "completion",
    },
}
"""Verb → the module of `verbs` that has it, as an object of its name."""
_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""A full disk and its like, where the output goes: a verb that writes files says itself which one it could not."""
_MODULES = {verb: module for verbs in SECTIONS.values() for verb, module in verbs.items()}


class Podslots(elsewhere.Guessing, VerbGroup):
    """Loads a verb as it is used."""

    others = elsewhere.VERBS

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """All verbs, in the order in which they are shown."""
        return list(_MODULES)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        """A verb; None if there is none of that name."""
        if name not in _MODULES:
            return None
        command = getattr(import_module(f"controller.cli.verbs.{_MODULES[name]}"), name.replace("-", "_"))
        assert isinstance(command, click.Command)  # noqa: S101 - the table above says so
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs by what they are for."""
        for title, verbs in SECTIONS.items():
            rows = [
                (verb, command.get_short_help_str(formatter.width - 6 - len("break-glass")))
                for verb in verbs
                if (command := self.get_command(ctx, verb)) is not None
            ]
            with formatter.section(title):
                formatter.write_dl(rows)


@click.group(cls=Podslots)
@click.version_option(package_name="podslots")
def main() -> None:
    """Pools of slots for long work, and the tasks in them."""


def _drop_the_rest() -> None:
    """What Python would still flush goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def run() -> int:
    """Run the command line of this process. Returns its exit code."""
    called = Path(sys.argv[0]).name
    try:
        code = main.main(prog_name=called.replace("kubectl-", "kubectl "), standalone_mode=False)
    except click.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has gone.
        _drop_the_rest()
        return 1
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            return _unexpected(error)
        _drop_the_rest()
        click.echo(f"Error: the output can't be written: {error.strerror}", err=True)
        return 1
    except Exception as error:  # noqa: BLE001 - the edge: nothing is above to say it
        return _unexpected(error)
    return code if isinstance(code, int) else 0


def _unexpected(error: Exception) -> int:
    if os.environ.get(TRACEBACK):
        raise error
    click.echo(f"Error: {_broken(error)}", err=True)
    return 1


def _broken(error: Exception) -> str:
    """What is said of an error that nobody expected: where it was, and how to see more."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    words = " ".join(str(error).split())[:MAX_SHOWN]
    return (
        f"podslots broke: {type(error).__name__}{place}: {words}. "
        f"That is a mistake of its own, or an answer that no API server gives. {TRACEBACK}=1 shows more"
    )
