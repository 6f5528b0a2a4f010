"""Options of the commands that take many captures."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from blkmig_cli.errors import UsageError
from blkmig_cli.operations.many.captures import Capture, find_captures, jobs_for, read_list
from blkmig_cli.system.address import parse_address
from blkmig_cli.system.file_uses import FileUses

_F = TypeVar("_F", bound=Callable[..., Any])


def many_options(function: _F) -> _F:
    """Add --files-from, --null and --jobs: which captures are read, and by how many processes."""
    for option in (
        click.option(
            "-j",
            "--jobs",
            type=click.IntRange(min=1),
            metavar="N",
            help="Number of processes that read (default: the processors, where it pays).",
        ),
        click.option(
            "-0", "--null", is_flag=True, help="Names in the list end with NUL, not with a newline."
        ),
        click.option(
            "--files-from",
            metavar="FILE",
            help="Read the names of more captures from a file, one a line; - is stdin.",
        ),
    ):
        function = option(function)
    return function


def captures_of(streams: tuple[str, ...], files_from: str | None, *, null: bool) -> list[Capture]:
    """Return the captures of the command line; raises UsageError where there are none."""
    if null and files_from is None:
        raise UsageError("--null without --files-from")
    listed = [] if files_from is None else read_list(files_from, null=null)
    if not streams and files_from is None:
        raise UsageError("no STREAM is specified")
    captures = list(find_captures(streams, listed))
    if not captures:
        raise UsageError(f"--files-from {files_from}: there are no names in it")
    return captures


def check_written(captures: list[Capture], written: dict[str, str | None]) -> None:
    """Check that the files that are ``written``, by option, are none of the ``captures``.

    Raises UsageError where one is, or two are the same.
    """
    if any(path is not None for path in written.values()):
        uses = FileUses()
        for option, path in written.items():
            if path is not None:
                uses.add(f"the file of {option}", path, writes=True)
        for capture in captures:
            if capture.failure is None:
                uses.add_address("the stream", parse_address(capture.name), writes=False)


def start_workers(captures: list[Capture], jobs: int | None, module: str) -> int:
    """Return how many processes read ``captures``; if several, start loading ``module`` for them."""
    number = jobs_for(captures, jobs)
    if number > 1:
        from blkmig_cli.operations.many.workers import prepare  # noqa: PLC0415 (as the next)

        prepare(module)
    return number
