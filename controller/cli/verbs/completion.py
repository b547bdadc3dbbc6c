"""`podslots completion`: scripts for shells."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


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
