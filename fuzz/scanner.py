"""Runs stand for exactly the events that the schemas give, and leave the same verdict."""

import atheris

with atheris.instrument_imports(include=["blkmig_cli"]):
    from tests.wire.test_scanner import same

from fuzz.common import fuzz, pieces, told


def target(data: bytes) -> None:
    """One input; its last byte says what is told."""
    same(pieces(data), told(data[-1] if data else 0))


if __name__ == "__main__":
    fuzz(target)
