"""The exceptions that blkmig raises on purpose; any other is a bug.

BlkmigError                 exit status
├── IncompleteError         1   the requested data is not complete in the stream
├── UsageError              2   usage error
│   └── SeveralStreamsError     a file holds several streams
├── SpecError               3   a spec for ``build`` has an error
├── StreamError             3   the stream cannot be read to its end
│   ├── NotAStreamError         not a stream
│   ├── TruncatedError          the stream ends too early (an EOFError, too)
│   ├── MalformedError          the stream breaks a rule of the format
│   ├── LimitError              the stream needs more memory or work than allowed (limits.py)
│   └── UndecidableError        the stream can be read in more than one way
└── FailureError            4   an image, file, tool or peer failed or is missing

Interruption (a BaseException, as KeyboardInterrupt)
                            130 or 143   SIGINT or SIGTERM ended the program

An operation adds notes on incomplete files, and on how to continue, to any exception that ends it,
including KeyboardInterrupt (``error.add_note("a.img.partial is incomplete; continue with --resume")``).
The command line prints the notes after the message, on the same line.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from blkmig_cli.text import escape, quote

#: The check of errors whose messages state the offset themselves.
TRUNCATED = "truncated"


class BlkmigError(Exception):
    """An error with its place and a hint; ``str`` makes one line of them.

    ``offset`` is in bytes of the (uncompressed) stream, ``sector`` in sectors of 512 bytes.
    ``check`` is the stable id under which ``validate`` reports it.  ``stream`` is the name of the stream
    where the error is raised by what reads it, None elsewhere.
    """

    exit_status = 1

    def __init__(
        self,
        message: str,
        *,
        offset: int | None = None,
        section: str | None = None,
        device: str | None = None,
        sector: int | None = None,
        hint: str | None = None,
        check: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.stream: str | None = None
        self.offset = offset
        self.section = section
        self.device = device
        self.sector = sector
        self.hint = hint
        self.check = check or self.default_check

    default_check = ""

    def __str__(self) -> str:
        stated = self.offset is None or self.check == TRUNCATED
        where = [
            "" if stated else f"at byte {self.offset}",
            f"section {quote(self.section)}" if self.section is not None else "",
            f"device {quote(self.device)}" if self.device is not None else "",
            f"sector {self.sector}" if self.sector is not None else "",
        ]
        place = ", ".join(part for part in where if part)
        text = f"{self.message} ({place})" if place else self.message
        if self.stream is not None:
            text = f"{escape(self.stream)}: {text}"
        return f"{text}; {self.hint}" if self.hint else text


class IncompleteError(BlkmigError):
    """The requested data is not complete in the stream."""

    exit_status = 1
    default_check = "missing-chunks"


class UsageError(BlkmigError):
    """A usage error: a device without image, contradictory or missing options."""

    exit_status = 2
    default_check = "usage"


class SeveralStreamsError(UsageError):
    """An input has several streams, and the one to read was not specified.

    ``starts``: their offsets; for a pipe (not ``counted``), only the first two.
    """

    def __init__(self, starts: list[int], *, counted: bool) -> None:
        if counted:
            shown = ", ".join(map(str, starts[:8])) + (", ..." if len(starts) > 8 else "")
            message = f"there are {len(starts)} streams, which begin at bytes {shown}"
        else:
            message = f"there are several streams: the second begins at byte {starts[1]}"
        super().__init__(message, hint="choose one with --stream N")
        self.starts = starts


class SpecError(BlkmigError):
    """A spec for ``build`` has an error; the message states the line and the field."""

    exit_status = 3
    default_check = "spec"


class StreamError(BlkmigError):
    """The stream cannot be read to its end."""

    exit_status = 3
    default_check = "malformed"


class NotAStreamError(StreamError):
    """The input is neither a QEMU stream nor block records."""

    default_check = "not-a-stream"


class TruncatedError(StreamError, EOFError):
    """The stream is truncated; ``offset`` is where the input ends, which the message states."""

    default_check = TRUNCATED


class MalformedError(StreamError):
    """The stream breaks a rule of the format."""


class LimitError(StreamError):
    """The stream needs more memory or work than ``limits.py`` allows."""

    default_check = "limit"


class UndecidableError(StreamError):
    """The stream can be read in more than one way; the hint lists the options that decide."""

    default_check = "undecidable"


class FailureError(BlkmigError):
    """An image, a file, a tool or a peer failed or is missing."""

    exit_status = 4
    default_check = "input-failed"


class Interruption(BaseException):
    """The signal ``number`` ends the program."""

    def __init__(self, number: int) -> None:
        super().__init__("interrupted" if number == signal.SIGINT else "terminated")
        self.exit_status = 128 + number


def reason(error: OSError) -> str:
    """Return the system's message for an error, without the name of the file."""
    return error.strerror or str(error)


@contextmanager
def failing(what: str, *, offset: int | None = None, hint: str | None = None) -> Iterator[None]:
    """Turn an OSError into a FailureError whose message is ``what`` and the system's message.

    ``what`` is the name of a file, which is escaped, or what failed, such as "reading the stream
    failed"; ``offset`` is in bytes of the stream.
    """
    try:
        yield
    except OSError as error:
        message = f"{escape(what)}: {reason(error)}"
        raise FailureError(message, offset=offset, hint=hint) from error
