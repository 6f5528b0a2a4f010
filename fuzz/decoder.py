"""Any input gives events or one of blkmig's errors; the events are contiguous, the same from a pipe."""

import atheris

with atheris.instrument_imports(include=["blkmig_cli"]):
    from blkmig_cli.wire.decoder import Decoder
    from blkmig_cli.wire.vm_description import find_description
    from blkmig_cli.errors import StreamError
    from blkmig_cli.wire.schema_io import Input

from fuzz.common import fuzz, pieces, told, whole
from tests.support.feed import NarrowPipe, in_file, piped

DIALECTS = ("auto", "auto", "v1", "v2")


def outcome(source: Input, way: int) -> tuple[list[object], str]:
    """Return all events, and how they ended; ``way`` selects the hints."""
    found: list[object] = []
    end = 0
    try:
        for event in Decoder(source, dialect=DIALECTS[way % 4], hints=told(way >> 2)):
            assert event.offset == end
            assert event.length >= 0
            end += event.length
            found.append(event)
    except StreamError as error:
        return found, f"{type(error).__name__}: {error}"
    return found, ""


def target(data: bytes) -> None:
    """Run one input; its last byte selects the hints."""
    stream, way = pieces(data), data[-1] if data else 0
    found, content = outcome(in_file(stream), way), whole(stream)
    if content is None:
        return
    sizes = [1 + byte % 32 for byte in data[:64]]  # bytes per read
    from_pipe = outcome(piped(content, sizes, NarrowPipe), way)
    if find_description(in_file(stream)) is None:
        assert from_pipe == found
    else:  # at the end, which a pipe has not reached when the description is needed
        assert from_pipe == outcome(piped(content), way)


if __name__ == "__main__":
    fuzz(target)
