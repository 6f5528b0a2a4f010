"""Options of the commands that take many captures."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from blkmig_cli.dataclass import dataclass
from blkmig_cli.errors import UsageError
from blkmig_cli.operations.many.captures import Capture, find_captures, jobs_for, read_list
from blkmig_cli.system.address import parse_address
from blkmig_cli.system.file_uses import FileUses

_F = TypeVar("_F", bound=Callable[..., Any])


def many_options(function: _F) -> _F:
    """Add --files-from, --null, --jobs and --cluster: which captures are read, and by what."""
    for option in (
        click.option(
            "--cluster",
            metavar="ADDRESS",
            help="Read with the workers of a Dask scheduler, e.g. tcp://HOST:8786.",
        ),
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


@dataclass(frozen=True, slots=True)
class Readers:
    """What reads files and objects: ``jobs`` processes, 1 for this one alone, or the ``cluster``."""

    jobs: int
    cluster: str | None

    @property
    def are_others(self) -> bool:
        """Whether it is not this process alone."""
        return self.jobs > 1 or self.cluster is not None


def readers_of(
    captures: list[Capture], jobs: int | None, cluster: str | None, module: str
) -> Readers:
    """Return what reads ``captures``; if it is several processes, start loading ``module`` for them.

    Raises UsageError for --jobs with --cluster.
    """
    if cluster is not None:
        if jobs is not None:
            raise UsageError("--jobs and --cluster are mutually exclusive")
        return Readers(1, cluster)
    number = jobs_for(captures, jobs)
    if number > 1:
        from blkmig_cli.operations.many.workers import prepare  # noqa: PLC0415 (only with several)

        prepare(module)
    return Readers(number, None)
