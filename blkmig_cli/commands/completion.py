"""``blkmig completion``: prints the script for completion in a shell."""

import click
from click.shell_completion import get_completion_class

from blkmig_cli.commands.help import Command

_VARIABLE = "_BLKMIG_COMPLETE"


@click.command("completion", cls=Command)
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> int:
    """Print the script that completes blkmig commands in a shell.

    SHELL is bash, zsh or fish.

    \b
    Examples:
      eval "$(blkmig completion bash)"     # in ~/.bashrc
      eval "$(blkmig completion zsh)"      # in ~/.zshrc
      blkmig completion fish > ~/.config/fish/completions/blkmig.fish
    """
    click.echo(script(shell), nl=False)
    return 0


def script(shell: str) -> str:
    """Return the script for bash, zsh or fish."""
    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(click.Group(), {}, "blkmig", _VARIABLE)
    lines = [line.rstrip() for line in made.source().strip().splitlines()]
    if shell == "bash":
        # bash splits DEVICE=FILE into three words: complete files where nothing else matches.
        lines.append(f"complete -o default -o nosort -F {made.func_name} blkmig")
    return "\n".join(lines) + "\n"
