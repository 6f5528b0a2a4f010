"""A spec gives events or a SpecError; the events are encoded, or refused with the field."""

import io

import atheris

with atheris.instrument_imports(include=["blkmig_cli"]):
    from blkmig_cli.wire.encoder import encode
    from blkmig_cli.errors import SpecError
    from blkmig_cli.spec.files import read_spec

from fuzz.common import fuzz


def target(data: bytes) -> None:
    """Run one input."""
    try:
        for event in read_spec(io.BytesIO(data)):
            try:
                for _piece in encode(event):
                    pass
            except ValueError:
                return
    except SpecError:
        return


if __name__ == "__main__":
    fuzz(target)
