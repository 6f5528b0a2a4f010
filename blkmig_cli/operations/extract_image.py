"""Writing the disk of a stream as a new image of any format, or onto an NBD export."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

from blkmig_cli.contents.stream_disk import StreamDisk
from blkmig_cli.disks.formats import RAW, new_format, suffix_format
from blkmig_cli.disks.image import Image
from blkmig_cli.disks.neighbours import neighbours_of
from blkmig_cli.disks.new_image import create_partial, finish
from blkmig_cli.disks.open import open_image
from blkmig_cli.disks.record import discard_record
from blkmig_cli.disks.zeros import is_zero
from blkmig_cli.errors import FailureError, UsageError
from blkmig_cli.progress import Tick
from blkmig_cli.system.address import parse_target, shown_address
from blkmig_cli.system.nbd_uri import is_nbd
from blkmig_cli.text import escape

_PIECE = 1 << 20


def image_format(target: str | None, stated: str | None) -> str | None:
    """Return the format in which TARGET is written as an image; None: its bytes are those of the disk.

    ``stated``: that of -f.  Raises UsageError where TARGET cannot be an image of this format, or has no
    place for bitmaps; FailureError where such an image cannot be created.
    """
    if target is not None and is_nbd(target):
        if stated not in (None, RAW):
            raise UsageError(f"-f {stated}: {escape(target)} is an NBD export, which is raw")
        return RAW
    address = parse_target(target)
    if address.scheme != "file":
        if stated not in (None, RAW):
            raise UsageError(f"-f {stated}: {address} is not a file", hint="specify --to FILE")
        suffix = suffix_format(shown_address(address.text)) if address.scheme == "url" else None
        if stated is None and suffix not in (None, RAW):
            raise UsageError(
                f"{address}: images of format {suffix} cannot be written to a URL",
                hint="use -f raw, or specify --to FILE",
            )
        return None
    found = new_format(address.path, stated)
    return None if found == RAW else found


def write_image(disk: StreamDisk, target: str, kind: str, tick: Tick) -> int:
    """Write ``disk`` to a new image of format ``kind`` at ``target``, or to the NBD export ``target``.

    Returns the bytes of data written; ``tick`` gets the bytes of the disk done.  Raises FailureError
    where the image exists, or cannot be written; a new one is removed then.
    """
    with _opened(disk, target, kind) as image:
        image.begin_writing()
        written = 0
        for piece in disk.pieces():
            length = piece.end - piece.start
            if piece.kind != "data":
                image.zero(piece.start, length)
            for at in range(piece.start, piece.end if piece.kind == "data" else 0, _PIECE):
                data = memoryview(disk.read(at, min(_PIECE, piece.end - at)))
                if is_zero(data):
                    image.zero(at, len(data))
                else:
                    image.write(at, data)
                    written += len(data)
            tick(piece.end)
        image.flush()
    return written


@contextmanager
def _opened(disk: StreamDisk, target: str, kind: str) -> Iterator[Image]:
    if is_nbd(target):
        with closing(open_image(target, writable=True)) as image:
            if image.size < disk.size:
                raise FailureError(f"{escape(target)} has {image.size} bytes, the disk {disk.size}")
            yield image
        return
    path = parse_target(target).path
    neighbours = neighbours_of(path)
    partial = neighbours.partial
    if partial is None or os.path.lexists(path):
        raise FailureError(f"{escape(path)}: File exists", hint="remove it, or choose another name")
    with ExitStack() as stack:
        made = stack.enter_context(closing(create_partial(partial, None, kind, disk.size)))
        try:
            yield made
            discard_record(neighbours)
            finish(made, path, replace=False)
        except BaseException:
            with suppress(FileNotFoundError):  # it has its name, but that could not be synced
                os.unlink(made.path)
            raise
