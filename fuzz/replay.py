"""Replay writes within the disk or fails: no input changes or extends another file."""

import contextlib
import os
import tempfile

import atheris

with atheris.instrument_imports(include=["blkmig_cli"]):
    from blkmig_cli.errors import BlkmigError
    from blkmig_cli.operations.replay.replay import replay
    from blkmig_cli.operations.replay.request import ReplayRequest
    from blkmig_cli.transport.source import open_stream

from fuzz.common import fuzz, pieces

SIZE = 8 << 20
FOLDER = tempfile.mkdtemp(
    prefix="blkmig-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None
)
STREAM, IMAGE = os.path.join(FOLDER, "s.bin"), os.path.join(FOLDER, "disk")
MADE = {"s.bin", "disk", "disk.bitmaps.json", "disk.replay.json"}


def write(path: str, data: bytes) -> None:
    """Write the stream that ``data`` represents to a file."""
    with open(path, "wb") as file:
        for piece in pieces(data):
            if isinstance(piece, int):
                file.seek(piece, os.SEEK_CUR)
            else:
                file.write(piece)
        file.truncate()


def target(data: bytes) -> None:
    """Run one input."""
    write(STREAM, data)
    with open(IMAGE, "wb") as file:
        file.truncate(SIZE)
    request = ReplayRequest(
        images={None: IMAGE}, formats={None: "raw"}, restart=True, allow_incomplete=True
    )
    with contextlib.suppress(BlkmigError), open_stream(STREAM) as stream:
        replay(stream, request)
    assert os.path.getsize(IMAGE) == SIZE
    assert set(os.listdir(FOLDER)) <= MADE
    if os.path.exists(f"{IMAGE}.bitmaps.json"):
        os.unlink(f"{IMAGE}.bitmaps.json")


if __name__ == "__main__":
    fuzz(target)
