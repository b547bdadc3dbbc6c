"""What all verbs have in common: the options that say which cluster is meant, wherever they stand, and a session."""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import click

from controller.cli.arguments.types import Namespace
from controller.cli.cluster.called import Cluster
from controller.cli.cluster.session import LOCAL_FOLDER, Session, settings

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"]}


def _note(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        setattr(ctx.ensure_object(Cluster), str(param.name), value)


def _cluster_options() -> list[click.Option]:
    def option(*names: str, **more: Any) -> click.Option:
        return click.Option(names, expose_value=False, callback=_note, **more)

    path = click.Path(dir_okay=False)
    return [
        option("--kubeconfig", type=path, help="Path of a kubeconfig (default: KUBECONFIG)."),
        option("--context", help="Context of the kubeconfig."),
        option("-n", "--namespace", type=Namespace(), metavar="NAME", help="Namespace (default: the context's)."),
        option("--as", "stands_in_for", metavar="USER", help="On behalf of this user, if you may; as kubectl's --as."),
    ]


class _Common(click.Command):
    """A command that takes the options of the cluster too, and shows them under a heading of their own."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.common = _cluster_options()
        self.params = [*self.params, *self.common]
        self.context_settings = {**CONTEXT, **self.context_settings}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Its own first."""
        records = {True: [], False: []}  # type: dict[bool, list[tuple[str, str]]]
        for param in self.get_params(ctx):
            # Arguments stand in the line of usage, and are told in the text above.
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)) is not None:
                records[param in self.common].append(record)
        for title, common in (("Options", False), ("Which cluster", True)):
            if records[common]:
                with formatter.section(title):
                    formatter.write_dl(records[common])


class Verb(_Common):
    """A command of `podslots` that is no group."""


class VerbGroup(_Common, click.Group):
    """Verbs of one subject, as `rollout status`."""

    command_class = Verb

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Options, then the verbs."""
        _Common.format_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)


def session_of(ctx: click.Context) -> Session:
    """The session that the command line and the environment ask for."""
    given = ctx.find_object(Cluster) or Cluster()
    here = LOCAL_FOLDER / "cluster" / "kubeconfig"
    found = settings(
        os.environ,
        kubeconfig=given.kubeconfig,
        context=given.context,
        local_kubeconfig=str(here.absolute()) if here.is_file() else None,
    )
    found = replace(found, stands_in_for=given.stands_in_for)
    own = found.kubeconfig if found.kubeconfig != os.environ.get("KUBECONFIG") else None
    return Session(settings=found, now=now, cluster=replace(given, found=own))


def now() -> datetime:
    """The time, aware and in UTC."""
    return datetime.now(UTC)


def pass_session(function: Callable[..., Any]) -> Callable[..., Any]:
    """Hand a command its session."""

    @click.pass_context
    def called(ctx: click.Context, *arguments: Any, **more: Any) -> Any:
        return ctx.invoke(function, session_of(ctx), *arguments, **more)

    return _named_as(function, called)


def _named_as(function: Callable[..., Any], called: Callable[..., Any]) -> Callable[..., Any]:
    from functools import update_wrapper  # noqa: PLC0415 - click has it

    return update_wrapper(called, function)
