"""Everything that blkmig raises on purpose; anything else is a bug.

BlkmigError                 exit status
├── IncompleteError         1   what is asked for never came whole
├── UsageError              2   the command's words are off
│   └── SeveralStreamsError     a file holds several streams
├── SpecError               3   a spec for ``build`` has a mistake
├── StreamError             3   the stream cannot be read to its end
│   ├── NotAStreamError         no stream at all
│   ├── TruncatedError          it ends too early (an EOFError, too)
│   ├── MalformedError          it breaks a rule of the format
│   ├── LimitError              it asks for more memory than this program takes (limits.py)
│   └── UndecidableError        it can be read in more than one way
└── FailureError            4   an image, file, tool or peer failed or is missing
"""

from blkmig_cli.text import quote


class BlkmigError(Exception):
    """What went wrong, where, and what to do; ``str`` makes one line of it.

    ``offset`` is in bytes of the (uncompressed) stream, ``sector`` in sectors of 512 bytes.
    ``check`` is the stable id under which ``validate`` reports it.
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
        self.offset = offset
        self.section = section
        self.device = device
        self.sector = sector
        self.hint = hint
        self.check = check or self.default_check

    default_check = ""

    def __str__(self) -> str:
        where = [
            f"at byte {self.offset}" if self.offset is not None else "",
            f"section {quote(self.section)}" if self.section is not None else "",
            f"device {quote(self.device)}" if self.device is not None else "",
            f"sector {self.sector}" if self.sector is not None else "",
        ]
        place = ", ".join(part for part in where if part)
        text = f"{self.message} ({place})" if place else self.message
        return f"{text}; {self.hint}" if self.hint else text


class IncompleteError(BlkmigError):
    """What is asked for never came whole."""

    exit_status = 1
    default_check = "missing-chunks"


class UsageError(BlkmigError):
    """Device without image, contradictory or missing options."""

    exit_status = 2
    default_check = "usage"


class SeveralStreamsError(UsageError):
    """An input holds several streams, and nothing says which one to read.

    ``starts``: the bytes at which they begin; of a pipe (not ``counted``), only the first two.
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
    """A spec for ``build`` has a mistake; the message says which line and field."""

    exit_status = 3
    default_check = "spec"


class StreamError(BlkmigError):
    """The stream cannot be read to its end."""

    exit_status = 3
    default_check = "malformed"


class NotAStreamError(StreamError):
    """Neither a QEMU stream nor block records."""

    default_check = "not-a-stream"


class TruncatedError(StreamError, EOFError):
    """The stream ends before its end; ``offset`` is where the input ends."""

    default_check = "truncated"


class MalformedError(StreamError):
    """The stream breaks a rule of the format."""


class LimitError(StreamError):
    """What the stream holds would take more memory than ``limits.py`` grants."""

    default_check = "limit"


class UndecidableError(StreamError):
    """More than one reading of the stream survives; the options that decide are in the hint."""

    default_check = "undecidable"


class FailureError(BlkmigError):
    """An image, a file, a tool or a peer failed or is missing."""

    exit_status = 4
    default_check = "input-failed"
