"""Parsing the URI of an NBD export; nothing is opened here.

The syntax is the NBD project's (NBD, doc/uri.md): ``nbd://HOST[:PORT]/EXPORT``, ``nbds://`` for TLS,
``nbd+unix:///EXPORT?socket=PATH``, ``nbds+unix://``.
"""

import re
from urllib.parse import unquote_to_bytes

from blkmig_cli.dataclass import dataclass
from blkmig_cli.errors import UsageError
from blkmig_cli.schemas.nbd import NAME_MAX, PORT
from blkmig_cli.text import decode_name, escape, quote

_FORMS = {
    "nbd": "nbd://HOST[:PORT]/EXPORT",
    "nbds": "nbds://HOST[:PORT]/EXPORT",
    "nbd+unix": "nbd+unix:///EXPORT?socket=PATH",
    "nbds+unix": "nbds+unix:///EXPORT?socket=PATH",
}
_TEXT_MAX = 1 << 15
_PORT_MAX = (1 << 16) - 1
_BAD_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")
_PORT = re.compile("[0-9]{1,5}", re.A)


@dataclass(frozen=True, slots=True)
class NbdUri:
    """A parsed URI; ``text`` is the argument itself.

    Either ``host`` and ``port`` are set, or ``socket``, the path of a Unix socket.  ``certificates`` is
    the folder of ``ca-cert.pem`` and of the client's certificate (empty: the system's authorities),
    ``tls_hostname`` the name that the server's certificate must have.
    """

    text: str
    export: str
    tls: bool = False
    host: str = ""
    port: int = PORT
    socket: str = ""
    certificates: str = ""
    tls_hostname: str = ""

    @property
    def identity(self) -> str:
        """What identifies the export: its server and its name, without options."""
        place = f"unix {self.socket}" if self.socket else f"{self.host}:{self.port}"
        return f"nbd {place} {self.export}"

    def __str__(self) -> str:
        """Return the argument, escaped, for a message."""
        return escape(self.text)


def is_nbd(text: str) -> bool:
    """Return whether ``text`` begins with a scheme of NBD and a colon."""
    scheme, colon, _ = text.partition(":")
    return bool(colon) and scheme in _FORMS


def parse_nbd_uri(text: str) -> NbdUri:
    """Return the export that ``text``, for which :func:`is_nbd` holds, names.

    Raises UsageError where it is malformed, or has a query parameter that is not known.
    """
    scheme, _, rest = text.partition(":")
    if len(text) > _TEXT_MAX:
        raise UsageError(f"invalid NBD URI of {len(text)} characters: over {_TEXT_MAX}")
    if not rest.startswith("//"):
        raise _invalid(text, f"expected {_FORMS[scheme]}")
    if "#" in rest:
        raise _invalid(text, "a # in a name is written %23")
    tls, unix = scheme.startswith("nbds"), scheme.endswith("+unix")
    before, _, query = rest.removeprefix("//").partition("?")
    authority, _, name = before.partition("/")
    export = _decoded(text, name)
    if len(export) > NAME_MAX:
        raise _invalid(text, f"the name of the export has over {NAME_MAX} bytes")
    known = ("socket",) * unix + ("tls-certificates", "tls-hostname") * tls
    values = _query(text, query, known)
    host, port = "", PORT
    if unix:
        if authority or not values.get("socket"):
            raise _invalid(text, f"expected {_FORMS[scheme]}")
    else:
        host, port = _authority(text, authority, _FORMS[scheme])
    return NbdUri(
        text,
        decode_name(export),
        tls=tls,
        host=host,
        port=port,
        socket=values.get("socket", ""),
        certificates=values.get("tls-certificates", ""),
        tls_hostname=values.get("tls-hostname", ""),
    )


def _authority(text: str, authority: str, form: str) -> tuple[str, int]:
    """Return the host, without the brackets of an IPv6 address, and the port."""
    host, colon, digits = authority.rpartition(":")
    if not colon or "]" in digits:
        host, digits = authority, str(PORT)
    digits = digits or str(PORT)
    if not _PORT.fullmatch(digits) or not 0 < int(digits) <= _PORT_MAX:
        raise _invalid(text, f"expected a port from 1 to {_PORT_MAX}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise _invalid(text, "an IPv6 address is written in brackets")
    host = decode_name(_decoded(text, host))
    if not host:
        raise _invalid(text, f"expected {form}")
    try:
        host.encode("idna")
    except UnicodeError:
        raise _invalid(text, "not a host name") from None
    if any(char in "@[]/ " for char in host):
        raise _invalid(text, "not a host name")
    return host, int(digits)


def _query(text: str, query: str, known: tuple[str, ...]) -> dict[str, str]:
    values: dict[str, str] = {}
    for part in query.split("&") if query else ():
        key, equals, value = part.partition("=")
        if key not in known:
            allowed = f", expected {' or '.join(known)}" if known else ""
            raise _invalid(text, f"unknown parameter {quote(key)}{allowed}")
        if not equals or not value or key in values:
            raise _invalid(text, f"expected one {key}=VALUE")
        values[key] = decode_name(_decoded(text, value))
    return values


def _decoded(text: str, part: str) -> bytes:
    """Return the bytes that a percent-encoded part stands for."""
    if _BAD_PERCENT.search(part):
        raise _invalid(text, "a % is followed by two hexadecimal digits")
    try:
        found = unquote_to_bytes(part.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        raise _invalid(text, "it is not valid Unicode") from None
    if b"\0" in found:
        raise _invalid(text, "it contains a null character")
    return found


def _invalid(text: str, reason: str) -> UsageError:
    return UsageError(f"invalid NBD URI {quote(text)}: {reason}")
