"""Runs yield exactly the events of the schemas, and give the same verdict."""

import atheris

with atheris.instrument_imports(include=["blkmig_cli"]):
    from tests.wire.runs.test_scanner import same

from fuzz.common import fuzz, pieces, told


def target(data: bytes) -> None:
    """Run one input; its last byte selects the hints."""
    same(pieces(data), told(data[-1] if data else 0))


if __name__ == "__main__":
    fuzz(target)
