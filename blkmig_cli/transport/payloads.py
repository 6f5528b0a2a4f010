"""Payloads of events that were not read from a stream: other sources of their bytes."""

from dataclasses import field

from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.image import Readable
from blkmig_cli.wire.events import Payload


@dataclass(frozen=True, slots=True)
class Literal(Payload):
    """The bytes themselves."""

    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Fill(Payload):
    """``length`` bytes of one value."""

    byte: int = 0


@dataclass(frozen=True, slots=True)
class FileRange(Payload):
    """``length`` bytes of the file at ``path``, from ``offset``."""

    path: str = ""


@dataclass(frozen=True, slots=True)
class ImageRange(Payload):
    """Bytes of an image from ``offset``, then ``padding`` zeros; ``length`` counts both."""

    padding: int = 0
    image: Readable = field(kw_only=True)


def literal(data: bytes, stated: int | None = None) -> Literal:
    """Return ``data`` as a payload; ``stated``: the length to state in the stream, if different."""
    return Literal(0, len(data), stated, data)
