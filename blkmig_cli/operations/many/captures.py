"""Which captures are specified: files, directories, globs, and lists of names.

A STREAM that is named must be a stream.  What is found in a directory or by a glob need not be one: it
is passed over then.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from glob import has_magic, iglob
from typing import TYPE_CHECKING

from blkmig_cli import limits
from blkmig_cli.dataclass import dataclass
from blkmig_cli.errors import BlkmigError, FailureError, UsageError, reason
from blkmig_cli.system.address import is_url, parse_address, shown_address
from blkmig_cli.text import escape, quote

if TYPE_CHECKING:
    from blkmig_cli.transport.store import ObjectVersion

#: Captures that are read by several processes unless --jobs is specified: this many, or this many bytes.
_MANY, _LARGE = 32, 256 << 20


@dataclass(frozen=True, slots=True)
class Capture:
    """A STREAM to read: its name as an argument.

    ``found``: it was found in a directory or by a glob.  ``failure``: why there is nothing to read.
    ``version``: what a store that listed it says of it; ``below``: the URL below which it was found.
    """

    name: str
    found: bool = False
    failure: BlkmigError | None = None
    version: "ObjectVersion | None" = None
    below: str | None = None

    @property
    def is_shared(self) -> bool:
        """Whether it is a file or at a URL, so that any process can read it."""
        return parse_address(self.name).scheme in ("file", "url")


def find_captures(names: Iterable[str], listed: Iterable[str] = ()) -> Iterator[Capture]:
    """Yield the captures that the STREAMs ``names`` stand for, in their order, then those of ``listed``.

    Those in a directory, at any depth, and those that match a glob are sorted by name.  ``listed`` are paths
    and URLs, taken as they are: no other URIs, no globs.  Raises UsageError for an invalid address.
    """
    for name in names:
        address = parse_address(name)
        path = address.path
        if address.scheme == "url":
            yield from _at_url(name)
        elif address.scheme != "file" or address.offset is not None:
            yield Capture(name)
        elif has_magic(path) and not os.path.lexists(path):
            yield from _matching(path)
        else:
            yield from _at(path, name)
    for name in listed:
        if is_url(name):
            yield Capture(name)
        else:
            yield from _at(name, _argument(name))


def read_list(path: str, *, null: bool) -> list[str]:
    """Return the names in the file at ``path``, ``-`` for stdin: one a line, or ended by NUL (``null``).

    Empty lines are ignored.  Raises FailureError where it fails, UsageError for a name with NUL.
    """
    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            data = file.read(limits.NAMES_MAX + 1)
    except OSError as error:
        raise FailureError(f"{escape(path)}: {reason(error)}") from error
    if len(data) > limits.NAMES_MAX:
        raise FailureError(f"{escape(path)}: a list of names over {limits.NAMES_MAX >> 20} MiB")
    names = [os.fsdecode(name) for name in data.split(b"\0" if null else b"\n") if name]
    if any("\0" in name for name in names):
        raise UsageError(f"{escape(path)}: a name with a null character", hint="use --null")
    return names


def jobs_for(captures: list[Capture], jobs: int | None) -> int:
    """Return the number of processes that read ``captures``; 1 stands for this process alone.

    ``jobs``: that of --jobs.  The default is one for each processor that may be used, where there is
    so much to read that starting them is worth it.
    """
    files = [capture for capture in captures if capture.failure is None and capture.is_shared]
    if jobs is None:
        jobs = 1
        if len(files) >= _MANY or sum(map(_size, files)) >= _LARGE:
            jobs = len(os.sched_getaffinity(0))
    return max(min(jobs, len(files)), 1)


def _size(capture: Capture) -> int:
    """Return the bytes of a file, 0 where it is none."""
    try:
        return os.stat(parse_address(capture.name).path).st_size
    except OSError:
        return 0


def _at(path: str, argument: str) -> Iterator[Capture]:
    """Yield the file at ``path``, or what is in that directory."""
    if not os.path.isdir(path):
        yield Capture(argument)
        return
    some = False
    for capture in _within(path):
        some = True
        yield capture
    if not some:
        yield Capture(
            argument, failure=FailureError(f"{escape(path)}: there are no files in this directory")
        )


def _within(folder: str) -> Iterator[Capture]:
    """Yield the files in a directory at any depth; links to directories are not followed."""
    failures: list[OSError] = []
    for place, folders, files in os.walk(folder, onerror=failures.append):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(place, name)
            if _is_regular(path):
                yield Capture(_argument(path), found=True)
        yield from _failed(failures)
    yield from _failed(failures)


def _failed(failures: list[OSError]) -> Iterator[Capture]:
    """Yield the directories that could not be read, and forget them."""
    for error in failures:
        path = str(error.filename)
        yield Capture(_argument(path), failure=FailureError(f"{escape(path)}: {reason(error)}"))
    failures.clear()


def _matching(pattern: str) -> Iterator[Capture]:
    """Yield the files that match a glob; raises UsageError for ``**``, which would follow links."""
    if "**" in pattern.split(os.sep):
        raise UsageError(
            f"{quote(pattern)}: ** is not supported",
            hint="specify the directory, in which all files are examined, or use --files-from",
        )
    some = False
    for path in sorted(iglob(pattern)):
        if not os.path.isdir(path) and _is_regular(path):
            some = True
            yield Capture(_argument(path), found=True)
    if not some:
        failure = FailureError(f"no file matches {quote(pattern)}")
        yield Capture(_argument(pattern), failure=failure)


def _at_url(url: str) -> Iterator[Capture]:
    """Yield the object at ``url``, those that match a glob, or those below it if it ends with a slash.

    In the URL of an HTTP server only ``*`` makes a glob, as ``?`` begins a query.
    """
    web = url.startswith(("http://", "https://"))
    if not (url.endswith("/") or "*" in url or (has_magic(url) and not web)):
        yield Capture(url)
        return
    from blkmig_cli.transport.store import Store  # noqa: PLC0415 (only with a URL)

    try:
        found = Store(parse_address(url)).find()
    except FailureError as error:
        yield Capture(url, failure=error)
        return
    below = url if url.endswith("/") else None
    for name, version in found.items():
        yield Capture(name, found=True, version=version, below=below)
    if not found:
        yield Capture(url, failure=FailureError(f"no object matches {quote(shown_address(url))}"))


def _is_regular(path: str) -> bool:
    """Return whether ``path`` is a file, or a link to one, or cannot be examined."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError as error:
        # A link that leads nowhere is no file; others fail again when they are opened.
        return not isinstance(error, FileNotFoundError)


def _argument(path: str) -> str:
    """Return the STREAM that stands for the file at ``path``, also where that has the form of a URI."""
    try:
        address = parse_address(path)
    except UsageError:
        return os.path.join(".", path)
    is_path = address.scheme == "file" and address.path == path and address.offset is None
    return path if is_path else os.path.join(".", path)
