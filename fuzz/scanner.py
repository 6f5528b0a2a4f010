"""Runs stand for exactly the events that the schemas give, and leave the same verdict."""

import atheris

with atheris.instrument_imports(include=["blkmig_cli"]):
    from blkmig_cli.hints import Hints
    from tests.test_scan import same

from fuzz.common import fuzz

#: What is told of the seeds' devices and bitmaps.
TOLD = Hints({"d": 64 << 20}, {(None, "b"): 65536, (None, "c"): 8192})


def target(data: bytes) -> None:
    """One input; its first byte says what is told, and how often the rest comes."""
    if data:
        hints = TOLD if data[0] & 1 else Hints()
        same(data[1:], hints)


if __name__ == "__main__":
    fuzz(target)
