"""Opening a disk image, whatever it is: a raw file, a block device, an NBD export, another format."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from blkmig_cli.disks.formats import HEAD, RAW, format_of
from blkmig_cli.disks.raw import open_raw
from blkmig_cli.errors import UsageError
from blkmig_cli.system.nbd_uri import is_nbd, parse_nbd_uri
from blkmig_cli.text import escape

if TYPE_CHECKING:
    from blkmig_cli.disks.image import Image

#: Takes a file, and whether it is written.
Register = Callable[[str, bool], None]


def open_image(
    name: str,
    *,
    writable: bool = False,
    image_format: str | None = None,
    shared: bool = False,
    claimed: bool = False,
    own_layer: bool = False,
    bitmaps: bool = False,
    register: Register = lambda _path, _writes: None,
) -> "Image":
    """Open the image ``name``, a path or an NBD URI, and lock it.

    ``image_format``: that of -f; None: by suffix and content (``formats.format_of``).  ``shared``: read
    an image that another program is writing.  ``claimed``: write a block device even if it is mounted.
    ``own_layer``: the extents are those of the image without its backing file.  ``bitmaps``: those of an
    NBD export will be read.  ``register`` is called with the other files of the image (backing files,
    an external data file), before any is opened for writing.

    Raises FailureError where the image is missing, in use, of an unknown format, damaged, or cannot be
    written; UsageError for a malformed URI, or a format that does not fit.
    """
    if is_nbd(name):
        if image_format not in (None, RAW):
            raise UsageError(f"-f {image_format}: {escape(name)} is an NBD export, which is raw")
        from blkmig_cli.disks.nbd.image import open_nbd  # noqa: PLC0415 (only for these images)

        uri = parse_nbd_uri(name)
        names: Literal["all"] | tuple[()] = "all" if bitmaps else ()
        return open_nbd(uri, writable=writable, own_layer=own_layer, bitmaps=names)
    raw = open_raw(name, writable=writable, shared=shared, claimed=claimed)
    try:
        found = format_of(name, raw.read(0, min(raw.size, HEAD)), image_format)
        if found == RAW:
            return raw
    except BaseException:
        raw.close()
        raise
    raw.close()
    from blkmig_cli.disks.qemu.daemon import StorageDaemon  # noqa: PLC0415 (only for these images)

    daemon = StorageDaemon(name)
    try:
        # It starts while this is loaded.
        from blkmig_cli.disks.qemu.image import open_qemu  # noqa: PLC0415

        return open_qemu(
            daemon,
            name,
            found,
            writable=writable,
            shared=shared,
            own_layer=own_layer,
            register=register,
        )
    except BaseException:
        daemon.close()
        raise
