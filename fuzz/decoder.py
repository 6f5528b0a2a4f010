"""Events or one of our own errors, nothing else; they tile the input, from a file as from a pipe."""

import atheris

with atheris.instrument_imports(include=["blkmig_cli"]):
    from blkmig_cli.decode import Decoder
    from blkmig_cli.errors import StreamError
    from blkmig_cli.parse import Input

from fuzz.common import fuzz
from tests.feed import in_file, piped


def outcome(source: Input) -> tuple[list[object], str]:
    """All events, and how they ended."""
    found: list[object] = []
    end = 0
    try:
        for event in Decoder(source):
            assert event.offset == end
            assert event.length >= 0
            end += event.length
            found.append(event)
    except StreamError as error:
        return found, f"{type(error).__name__}: {error}"
    return found, ""


def target(data: bytes) -> None:
    """One input."""
    found = outcome(in_file(data))
    # A pipe has a large buffer, which takes longer to make than all the rest.
    if data and data[-1] % 16 == 0:
        sizes = [1 + byte % 32 for byte in data[:64]]  # bytes that each read gives
        assert outcome(piped(data, sizes)) == found


if __name__ == "__main__":
    fuzz(target)
