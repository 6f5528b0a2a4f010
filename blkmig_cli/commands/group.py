"""The group of all commands, and the one place where errors become exits."""

import difflib
import functools
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, cast

import click

from blkmig_cli import __version__
from blkmig_cli.errors import BlkmigError
from blkmig_cli.text import escape, quote

_COMMANDS = {
    "info": "Show what is in a stream, whether it is whole, what to do next.",
    "validate": "Check whether streams are sound and whole.",
    "map": "Show where things lie on the disks of a stream.",
    "dump": "Show every record of a stream.",
    "compare": "Compare what streams leave behind, also with an image.",
    "replay": "Apply a stream to disk images.",
    "extract": "Take one disk, or one bitmap, out of a stream.",
    "salvage": "Find what is intact in a damaged stream.",
    "send": "Make a stream of disk images and their bitmaps.",
    "build": "Make a stream from a description.",
    "convert": "Write a stream in another dialect.",
    "scrub": "Zero what leaked into the padding of last chunks.",
    "completion": "Print the script that completes words in a shell.",
}

STREAMS = (
    "A STREAM is a path, - for stdin, file:PATH[,offset=N], tcp:HOST:PORT, unix:PATH, "
    "exec:COMMAND or fd:N; gzip, xz and zstd are recognised."
)
EXIT_STATUS = (
    "Exit status: 0 done and clean, 1 findings or a difference, 2 wrong words, 3 a damaged stream, "
    "4 a failing image, file or peer."
)


class _ClosedPipe(Exception):  # noqa: N818 (no error: the reader has had enough)
    """Whoever reads our output has gone."""


class _Failed(Exception):  # noqa: N818 (it carries an error)
    """One of our errors; click would take a TruncatedError, an EOFError, for the user's ^D."""

    def __init__(self, error: BlkmigError) -> None:
        super().__init__(error)
        self.error = error


class _Group(click.Group):
    """Loads a command when it is called; turns every outcome into an exit status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"blkmig_cli.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; of a mistyped one, say which may be meant, as click does for options."""
        name = args[0]
        close = difflib.get_close_matches(name, _COMMANDS)
        if name not in _COMMANDS and close and not ctx.resilient_parsing:
            meant = " or ".join(map(quote, close))
            ctx.fail(f"No such command {quote(name)}. Did you mean {meant}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what click would make its own of must not reach it as it is."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _ClosedPipe from None
        except BlkmigError as error:
            raise _Failed(error) from error

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run, and exit with the status of the contract."""
        standalone = extra.pop("standalone_mode", True)
        run = functools.partial(cast(Any, super()).main, *args, standalone_mode=False, **extra)
        if not standalone:
            return run()
        sys.exit(_status(run))


def _status(run: Callable[[], Any]) -> int:
    try:
        status = run()
        sys.stdout.flush()
        return int(status or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except (BrokenPipeError, _ClosedPipe):
        # Whoever read us has gone; the interpreter must not complain of it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except _Failed as failed:
        _flush()
        click.echo(f"blkmig: {failed.error}", err=True)
        return failed.error.exit_status
    except OSError as error:
        name = f"{escape(str(error.filename))}: " if error.filename else ""
        click.echo(f"blkmig: {name}{error.strerror or error}", err=True)
        return 4


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=f"{STREAMS}\n\n{EXIT_STATUS}",
)
@click.version_option(__version__, prog_name="blkmig")
def cli() -> None:
    """Inspect, check and apply QEMU block-migration streams.

    \b
    Examples:
      blkmig info stream.bin
      blkmig validate stream.bin --device-size drive0=20G
      blkmig replay stream.bin --image disk.img --create
    """


def main() -> None:
    """The console script."""
    cli(prog_name="blkmig")
