"""Verbs that other programs have, and what stands for them here."""

from collections.abc import Mapping

import click

_SUBMIT = "podslots submit -f FILE"
_DELETE = "kubectl delete slottask NAME"
VERBS: Mapping[str, str] = {
    "apply": f"{_SUBMIT}; a plan is applied by podslots approve TASK",
    "create": _SUBMIT,
    "run": _SUBMIT,
    "delete": _DELETE,
    "rm": _DELETE,
    "list": "podslots get tasks",
    "ls": "podslots get tasks",
    "status": "podslots get tasks",
    "show": "podslots describe task NAME",
    "explain": "podslots describe task NAME",
    "reject": "podslots cancel TASK",
    "deny": "podslots cancel TASK",
    "stop": "podslots cancel TASK",
    "up": "podslots local up",
    "down": "podslots local down",
    "help": "podslots --help",
}
LOCAL: Mapping[str, str] = {
    "start": "podslots local up",
    "run": "podslots local up",
    "stop": "podslots local down",
    "logs": "podslots local status",
}


class Guessing(click.Group):
    """Answers a verb that there is not with what stands for it here, else with the nearest one."""

    others: Mapping[str, str] = {}

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb that comes first. Raises NoSuchCommand, but not while a shell completes the line."""
        known = self.list_commands(ctx)
        if not ctx.resilient_parsing and args and args[0] not in known and not args[0].startswith("-"):
            here = self.others.get(args[0])
            if here is not None:
                raise click.NoSuchCommand(args[0], f"No such command {args[0]!r}. Use: {here}", ctx=ctx)
            raise click.NoSuchCommand(args[0], possibilities=known, ctx=ctx)
        return super().resolve_command(ctx, args)
