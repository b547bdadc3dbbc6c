"""`podslots completion`: scripts for shells, and the names that they complete."""

from collections.abc import Callable

import click
from click.shell_completion import get_completion_class

from controller.cli.kinds import Kind
from controller.cli.verbs import session_of
from controller.errors import PodslotsError
from controller.kube.api import PODS, Object
from controller.kube.blocking import BlockingClient, Patience
from controller.names import POOL_LABEL

SHELLS = ("bash", "zsh", "fish")
PATIENCE = Patience(connect=1.0, answer=2.0)
"""Somebody has hit the tab key and waits."""
MOST_NAMES = 500


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    r"""Print a script with which a shell completes commands.

    It completes verbs, options and their values, and names as the cluster has them. A new shell has it.

    \b
    bash:  podslots completion bash > ~/.local/share/bash-completion/completions/podslots
    fish:  podslots completion fish > ~/.config/fish/completions/podslots.fish
    zsh:   podslots completion zsh > ~/.zsh/functions/_podslots
           and in ~/.zshrc, before compinit: fpath=(~/.zsh/functions $fpath)
    """
    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - click has these three
    root = ctx.find_root()
    source = found(root.command, {}, "podslots", "_PODSLOTS_COMPLETE").source()
    # click's script for fish cuts a completion with commas in it, as `Failed,Succeeded`, at the first.
    click.echo(source.replace('string split ","', 'string split --max 1 ","'))


def names_of(
    ctx: click.Context, kind: Kind | None, begin: str, wanted: Callable[[Object], bool] = lambda _: True
) -> list[str]:
    """Names of a kind that begin so, as the cluster of the command line has them; none if they can't be had."""
    if kind is None:
        return []
    resource = kind.resource or PODS
    session = session_of(ctx)
    try:
        api = BlockingClient(session.settings, session.now, PATIENCE)
        selector = POOL_LABEL if resource is PODS else ""
        page = api.list_page(resource, session.namespace(api), label_selector=selector, limit=MOST_NAMES)
    except PodslotsError:
        return []
    names = (str(item["metadata"]["name"]) for item in page.get("items") or () if wanted(item))
    return sorted(name for name in names if name.startswith(begin))
