"""Parsing the addresses of a STREAM or a TARGET; nothing is opened here.

An argument that begins with a known scheme and a colon is a URI, regardless of existing files; any
other is a path.  So it has the same meaning for reading and writing.  A file whose name has the form
of a URI is specified with a folder, as ``./exec:cat``, or as ``file:exec:cat``.
"""

import re
from typing import Literal, get_args

from blkmig_cli.dataclass import dataclass
from blkmig_cli.errors import UsageError
from blkmig_cli.text import escape, parse_size

Scheme = Literal["-", "file", "fd", "exec", "tcp", "unix", "url"]

_SCHEMES: dict[str, Scheme] = {
    scheme: scheme for scheme in get_args(Scheme) if scheme not in ("-", "url")
}
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.I)
#: The largest file offset and the largest descriptor of the system.
_OFFSET_MAX = (1 << 63) - 1
_DESCRIPTOR_MAX = (1 << 31) - 1
_PORT_MAX = (1 << 16) - 1


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed address.  ``scheme`` determines which fields are set; ``text`` is the argument itself.

    ``-``: stdin or stdout.  ``file``: ``path``, and ``offset`` in bytes (None: not stated).  ``fd``:
    ``descriptor``.  ``exec``: ``command``.  ``tcp``: ``host`` and ``port``.  ``unix``: ``path``.  ``url``:
    any other URL.
    """

    text: str
    scheme: Scheme
    path: str = ""
    offset: int | None = None
    descriptor: int = -1
    command: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        """Return the argument, escaped, for a message."""
        return escape(shown_address(self.text))

    @property
    def is_socket(self) -> bool:
        """Whether it is the address of a socket."""
        return self.scheme in ("tcp", "unix")

    def file(self, *, writes: bool) -> str | int | None:
        """Return the path or the descriptor that is read or written; None for a command or a socket."""
        match self.scheme:
            case "-":
                return int(writes)
            case "file":
                return self.path
            case "fd":
                return self.descriptor
            case _:
                return None


def parse_address(text: str) -> Address:
    """Return the address that ``text`` names as a STREAM: a path, ``-`` or a URI.

    The syntax of URIs is QEMU's (QEMU 10.0, migration/migration.c: migrate_uri_parse).  Raises UsageError
    for a malformed one.
    """
    if "\0" in text:
        raise _invalid(text, "it contains a null character")
    if not text:
        raise _invalid(text, "expected a path, - or a URI")
    if text == "-":
        return Address(text, "-")
    prefix, colon, rest = text.partition(":")
    scheme = _SCHEMES.get(prefix) if colon else None
    match scheme:
        case "exec":
            if not rest.strip():
                raise _invalid(text, "expected exec:COMMAND")
            return Address(text, scheme, command=rest)
        case "fd":
            number = _number(rest, _DESCRIPTOR_MAX)
            if number is None:
                raise _invalid(text, "expected fd:N, the number of an open descriptor")
            return Address(text, scheme, descriptor=number)
        case "tcp":
            return _tcp(text, rest)
        case "unix":
            if not rest:
                raise _invalid(text, "expected unix:PATH")
            return Address(text, scheme, path=rest)
        case "file":
            return _file(text, rest)
        case _ if _URL.match(text):
            return Address(text, "url")
        case _:
            return Address(text, "file", path=text)


def shown_address(text: str) -> str:
    """Return the address ``text`` for messages and reports: of a URL, no credentials.

    These may be before the host, or in the query (as of a signed URL).
    """
    found = _URL.match(text)
    if found is None or text.startswith(tuple(f"{scheme}:" for scheme in _SCHEMES)):
        return text
    host, slash, path = text[found.end() :].partition("/")
    path = path.partition("?")[0].partition("#")[0]
    return found[0] + host.rpartition("@")[2].partition("?")[0] + slash + path


def is_url(text: str) -> bool:
    """Return whether ``text`` is a URL, at which a store has objects."""
    try:
        return parse_address(text).scheme == "url"
    except UsageError:
        return False


def has_query(text: str) -> bool:
    """Return whether the address ``text`` is a URL with more than the name of an object."""
    return is_url(text) and ("?" in text or "#" in text)


def parse_target(text: str | None) -> Address:
    """Return the address that ``text`` names as a TARGET; None is stdout.

    Raises UsageError as :func:`parse_address`, and for an offset, as a target is replaced as a unit.
    """
    address = parse_address("-" if text is None else text)
    if address.offset is not None:
        raise _invalid(address.text, "a target cannot have an offset")
    return address


def _file(text: str, rest: str) -> Address:
    # The first ",offset=" ends the path (QEMU 10.0, migration/file.c: file_parse_offset).
    path, stated, size = rest.partition(",offset=")
    if not path:
        raise _invalid(text, "expected file:PATH[,offset=N]")
    offset = None
    if stated:
        try:
            offset = parse_size(size)
        except ValueError as error:
            raise _invalid(text, str(error)) from None
        if offset > _OFFSET_MAX:
            raise _invalid(text, f"the offset is over {_OFFSET_MAX}")
    return Address(text, "file", path=path, offset=offset)


def _tcp(text: str, rest: str) -> Address:
    host, colon, digits = rest.rpartition(":")
    port = _number(digits, _PORT_MAX) if colon else None
    if port is None:
        raise _invalid(text, f"expected tcp:HOST:PORT, with a port up to {_PORT_MAX}")
    host = host.removeprefix("[").removesuffix("]")
    try:
        host.encode("idna")
    except UnicodeError:
        raise _invalid(text, "not a host name") from None
    return Address(text, "tcp", host=host, port=port)


def _number(digits: str, most: int) -> int | None:
    """Return the number in ``digits``; None if it is not one, or over ``most``."""
    if not (digits.isascii() and digits.isdigit()) or len(digits) > len(str(most)):
        return None
    number = int(digits)
    return number if number <= most else None


def _invalid(text: str, reason: str) -> UsageError:
    return UsageError(f"invalid address '{escape(text)}': {reason}")
