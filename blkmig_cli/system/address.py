"""What the name of a STREAM says: a path, or a URI in QEMU's spelling.  Opens nothing."""

import os

from blkmig_cli.system.sockets import SCHEMES as SOCKETS

_SCHEMES = ("file", "exec", "fd", *SOCKETS)


def split(name: str) -> tuple[str, str]:
    """Scheme and rest of a URI; a path has no scheme, and stdin is ``fd:0``."""
    scheme, colon, rest = name.partition(":")
    if name == "-":
        return "fd", "0"
    if not colon or scheme not in _SCHEMES or os.path.exists(name):
        return "", name
    return scheme, rest


def path_of(name: str) -> str | None:
    """The path of the file that the STREAM called ``name`` is; None where it names no file."""
    scheme, rest = split(name)
    if scheme == "file":
        return rest.partition(",offset=")[0]
    return None if scheme else name
