"""A file of bitmaps is read, or a FailureError; what was read is written and read again the same."""

import os
import tempfile

import atheris

with atheris.instrument_imports(include=["blkmig_cli"]):
    from blkmig_cli.disks.bitmap_file import read_bitmaps, write_bitmaps
    from blkmig_cli.errors import FailureError

from fuzz.common import fuzz

FOLDER = tempfile.mkdtemp(prefix="blkmig-fuzz-")
PATH = os.path.join(FOLDER, "b.json")


def target(data: bytes) -> None:
    """Run one input."""
    with open(PATH, "wb") as file:
        file.write(data)
    try:
        found = read_bitmaps(PATH)
    except FailureError:
        return
    write_bitmaps(PATH, found)
    again = read_bitmaps(PATH)
    assert again.size == found.size
    for name, bitmap in found.bitmaps.items():
        assert again.bitmaps[name].ranges(found.size) == bitmap.ranges(found.size)


if __name__ == "__main__":
    fuzz(target)
