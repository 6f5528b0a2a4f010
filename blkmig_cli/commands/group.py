"""The group of all commands, where errors become exit statuses."""

import functools
import gc
import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, TextIO, cast

import click

from blkmig_cli import __version__
from blkmig_cli.errors import BlkmigError, FailureError, Interruption, UsageError, reason
from blkmig_cli.system.process import (
    interruptible,
    limit_numpy_threads,
    reserve_standard_descriptors,
    return_large_buffers,
)
from blkmig_cli.text import escape, quote

_COMMANDS = {
    "info": "Show what a stream contains, whether it is complete, and what to do next.",
    "validate": "Check whether streams are valid and complete.",
    "map": "Show where data, zeros and holes lie on the disks of a stream.",
    "dump": "Show every record of a stream.",
    "compare": "Compare the disks and bitmaps of two streams, or of a stream and an image.",
    "replay": "Apply a stream to disk images.",
    "extract": "Extract one disk, or one bitmap, from a stream.",
    "salvage": "Find what is intact in a damaged stream.",
    "send": "Make a stream from disk images and their bitmaps.",
    "live": "Make a stream of the disks and bitmaps of a running QEMU.",
    "build": "Make a stream from a description.",
    "convert": "Convert a stream to another dialect.",
    "fold": "Make one stream of a base and its increments.",
    "scrub": "Zero the data that leaked into the padding of last chunks.",
    "completion": "Print the completion script for a shell.",
}

STREAMS = (
    "A STREAM is a path, - for stdin, file:PATH[,offset=N], tcp:HOST:PORT, unix:PATH, "
    "exec:COMMAND, fd:N, or a URL that fsspec knows; a file whose name looks like a URI is "
    "./NAME.  gzip, xz and zstd are recognised."
)
EXIT_STATUS = (
    "Exit status: 0 done and clean, 1 findings or a difference, 2 usage error, 3 a stream that is "
    "malformed, truncated, or not a stream, 4 an image, file, tool or peer that failed, 130 "
    "interrupted, 141 closed pipe, 143 terminated."
)
TERMS = "Terms such as chunk, granule, part and padding are defined in docs/glossary.md."

# An error whose text is the help (click 8.2 and later).
_NO_ARGUMENTS: type[click.UsageError] | tuple[()] = getattr(
    click.exceptions, "NoArgsIsHelpError", ()
)


class _ClosedPipe(Exception):  # noqa: N818 (not an error: the reader needs no more)
    """The reader of stdout has closed it."""


class _Failed(Exception):  # noqa: N818 (it carries an error)
    """An error of blkmig; click would treat a TruncatedError, which is an EOFError, as Ctrl-D."""

    def __init__(self, error: BlkmigError) -> None:
        super().__init__(error)
        self.error = error


class _Group(click.Group):
    """Loads a command when it is used; turns every outcome into an exit status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"blkmig_cli.commands.{cmd_name}")
        command: click.Command = module.command
        if not gc.isenabled():  # see ``__main__.py``
            # From here on garbage is collected, without looking at what has been loaded.
            gc.freeze()
            gc.enable()
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for an unknown one, suggest similar names, as click does for options."""
        name = args[0]
        if name not in _COMMANDS and not ctx.resilient_parsing:
            import difflib  # noqa: PLC0415 (seldom needed)

            meant = " or ".join(map(quote, difflib.get_close_matches(name, _COMMANDS)))
            if meant:
                ctx.fail(f"No such command {quote(name)}: did you mean {meant}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse the arguments; --help and --version are printed here."""
        try:
            return super().make_context(*args, **extra)
        except BrokenPipeError:
            raise _ClosedPipe from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; wrap exceptions that click would handle in its own way."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _ClosedPipe from None
        except BlkmigError as error:
            raise _Failed(error) from error
        except KeyboardInterrupt as error:
            interruption = Interruption(signal.SIGINT)
            for note in getattr(error, "__notes__", []):
                interruption.add_note(note)
            raise interruption from error

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run, and exit with the status that the documentation states."""
        standalone = extra.pop("standalone_mode", True)
        run = functools.partial(cast(Any, super()).main, *args, standalone_mode=False, **extra)
        if not standalone:
            return run()
        sys.exit(_status(run))


def _status(run: Callable[[], Any]) -> int:
    """Run, show the error if there is one, and return the exit status."""
    try:
        status = run()
        sys.stdout.flush()
        return int(status or 0)
    except click.ClickException as error:
        return _misused(error)
    except click.Abort:
        return 130
    except (BrokenPipeError, _ClosedPipe):
        _discard(sys.stdout)
        return 141
    except Interruption as error:
        return _ended(error, error.exit_status)
    except _Failed as failed:
        return _ended(failed.error, failed.error.exit_status)
    except OSError as error:
        name = f"{escape(str(error.filename))}: " if error.filename else ""
        return _ended(FailureError(f"{name}{reason(error)}"), FailureError.exit_status)


def _misused(error: click.ClickException) -> int:
    """Show click's error, in one line as ours are, and return the exit status."""
    if isinstance(error, _NO_ARGUMENTS):
        try:
            error.show()
        except OSError:
            _discard(sys.stderr)
        return error.exit_code
    text = escape(" ".join(error.format_message().split())).rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = None if context is None else f"see {context.command_path} --help"
    return _ended(UsageError(text[:1].lower() + text[1:], hint=hint), error.exit_code)


def _ended(error: BaseException, status: int) -> int:
    """Write the remaining output to stdout, then the error with its notes on one line of stderr."""
    try:
        sys.stdout.flush()
    except OSError:
        _discard(sys.stdout)
    line = "; ".join([str(error), *getattr(error, "__notes__", [])])
    try:
        click.echo(f"blkmig: {line}", err=True)
    except OSError:
        _discard(sys.stderr)
    return status


def _discard(stream: TextIO) -> None:
    """Drop the remaining output for a failing ``stream``, so that Python does not try again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=f"{STREAMS}\n\n{EXIT_STATUS}\n\n{TERMS}",
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
    """Run the command line of this process: the console script."""
    reserve_standard_descriptors()
    limit_numpy_threads()
    return_large_buffers()
    try:
        with interruptible():
            cli(prog_name="blkmig")
    except Interruption as error:  # while the program was starting or ending
        sys.exit(error.exit_status)
