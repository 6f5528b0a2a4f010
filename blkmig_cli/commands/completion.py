"""``blkmig completion``: prints the script for completion in a shell."""

import click
from click.shell_completion import get_completion_class

from blkmig_cli.commands.help import Command

_VARIABLE = "_BLKMIG_COMPLETE"


@click.command("completion", cls=Command)
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> int:
    """Print the script that completes blkmig commands in a shell.

    SHELL is bash, zsh or fish.

    \b
    Examples:
      eval "$(blkmig completion bash)"     # in ~/.bashrc
      eval "$(blkmig completion zsh)"      # in ~/.zshrc
      blkmig completion fish > ~/.config/fish/completions/blkmig.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(ctx.find_root().command, {}, "blkmig", _VARIABLE)
    click.echo(made.source())
    if shell == "bash":
        # bash splits DEVICE=FILE into three words: complete files where nothing else matches.
        click.echo(f"complete -o default -o nosort -F {made.func_name} blkmig")
    return 0
