"""A manifest is read, or a FailureError; what was read is written and read again the same."""

import os
import tempfile

import atheris

with atheris.instrument_imports(include=["blkmig_cli"]):
    from blkmig_cli.errors import FailureError
    from blkmig_cli.checks.manifest import read_manifest, write_manifest

from fuzz.common import fuzz

FOLDER = tempfile.mkdtemp(prefix="blkmig-fuzz-")
PATH = os.path.join(FOLDER, "m.json")


def target(data: bytes) -> None:
    """Run one input."""
    with open(PATH, "wb") as file:
        file.write(data)
    try:
        found = read_manifest(PATH)
    except FailureError:
        return
    write_manifest(PATH, found)
    assert read_manifest(PATH) == found


if __name__ == "__main__":
    fuzz(target)
