"""The command line: one module per command, loaded when it is called."""

from blkmig_cli.commands.group import cli, main

__all__ = ["cli", "main"]
