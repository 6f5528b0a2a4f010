"""An image of a format that QEMU knows, served by a qemu-storage-daemon of its own."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from blkmig_cli.disks.image import FilePart, Readable, StoredBitmap, announced
from blkmig_cli.disks.qemu.daemon import StorageDaemon
from blkmig_cli.disks.qemu.layers import DISK, Layer, add_layers, described, examine
from blkmig_cli.disks.qemu.placement import Placement
from blkmig_cli.disks.raw import open_unlocked
from blkmig_cli.errors import FailureError, LimitError
from blkmig_cli.text import escape, quote

if TYPE_CHECKING:
    from blkmig_cli.disks.bitmap import DirtyBitmap
    from blkmig_cli.disks.nbd.image import NbdImage

# The node with the bits of new bitmaps, and the export of a bitmap that is read.
_BITS = "bits"
_READ = "bitmap"
# Threads of the daemon.  Several that write one file wait for its lock in turn, and spin meanwhile on
# processors that blkmig needs, too; reading takes no such lock, and has QEMU's default.
_WRITING, _READING = 1, 64
#: The version of qcow2 without bitmaps.
_OLD_QCOW2 = "0.10"


class QemuImage:
    """See ``image.Image``.  Created by :func:`open_qemu`, with its node in ``daemon``.

    The node is read-only except while the image is written: to open an image for writing changes its
    metadata.
    """

    def __init__(
        self,
        daemon: StorageDaemon,
        layer: Layer,
        options: dict[str, Any],
        placement: Placement | None,
        *,
        own_layer: bool,
    ) -> None:
        self.path = layer.path
        self._daemon = daemon
        self._layer = layer
        self._options = options
        self._own_layer = own_layer
        self._writable = False
        self._connected: NbdImage | None = None
        self._size: int = self._node()["image"]["virtual-size"]
        # The file, for data whose place in it is known.
        self._placement = placement
        self._file = open_unlocked(layer.path) if placement is not None else None

    # The disk.

    @property
    def size(self) -> int:
        """The virtual size."""
        return self._size

    @property
    def is_file(self) -> bool:
        """Return True."""
        return True

    @property
    def has_backing(self) -> bool:
        """See ``image.Image``."""
        return self._layer.info.get("backing-filename") is not None

    @property
    def is_single_file(self) -> bool:
        """See ``image.Image``."""
        return not (self.has_backing or self._layer.files)

    def read(self, offset: int, length: int) -> bytes:
        """See ``image.Image``."""
        return self._disk.read(offset, length)

    def is_zero(self, offset: int, length: int) -> bool:
        """See ``image.Image``."""
        return all(image.is_zero(at, part) for image, at, part in self._parts(offset, length))

    def copy_to(self, target: int, offset: int, length: int, *, pipe: bool = False) -> None:
        """See ``image.Image``."""
        for image, at, part in self._parts(offset, length):
            image.copy_to(target, at, part, pipe=pipe)

    def places(self, offset: int, length: int) -> Sequence[FilePart]:
        """See ``image.Image``."""
        found: list[FilePart] = []
        for image, at, part in self._parts(offset, length):
            if image is not self._file:
                return ()
            found += image.places(at, part)
        return found

    def extents(self) -> Iterator[tuple[int, int]]:
        """See ``image.Image``."""
        return (self._placement or self._disk).extents()

    def _parts(self, offset: int, length: int) -> Iterator[tuple[Readable, int, int]]:
        """Yield the parts of a range: where to read it, from which byte, and how many bytes.

        The last cluster of a file may be cut off by its end, and is read by QEMU.
        """
        if self._placement is None or self._file is None:
            yield self._disk, offset, length
            return
        for start, part, place in self._placement.split(offset, length):
            if place is None or place + part > self._file.size:
                yield self._disk, start, part
            else:
                yield self._file, place, part

    def known_zeros(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """See ``image.Image``."""
        return self._disk.known_zeros(offset, length) if self._own_layer else iter(())

    def begin_writing(self) -> None:
        """See ``image.Image``."""
        self._placement = None
        self._reopen(writable=True)

    def end_writing(self) -> None:
        """See ``image.Image``: QEMU changes an image's metadata until it is read-only."""
        if self._writable:
            self.flush()
            self._reopen(writable=False)

    def write(self, offset: int, data: memoryview) -> None:
        """See ``image.Image``."""
        self._disk.write(offset, data)

    def write_part(self, offset: int, part: FilePart) -> bool:
        """See ``image.Image``."""
        return self._disk.write_part(offset, part)

    def zero(self, offset: int, length: int) -> None:
        """See ``image.Image``."""
        self._disk.zero(offset, length)

    def data_in(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """See ``image.Image``."""
        known = None if self._placement is None else self._placement.data(offset, length)
        return self._disk.data_in(offset, length) if known is None else iter(known)

    def planned(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """See ``image.Image``."""
        if self._placement is None:
            return self._disk.planned(ranges)
        self._placement.follow()
        return self._planned(announced(ranges, self._data_places))

    def _planned(self, ranges: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Yield ``ranges``; once data is read through the daemon, it is told those that remain, too."""
        for each in ranges:
            yield each
            if self._connected is not None:
                yield from self._connected.planned(ranges)

    def _data_places(self, offset: int, length: int) -> Iterator[FilePart]:
        """Yield where the data of a range is in the file, as far as that is known."""
        known = None if self._placement is None else self._placement.data(offset, length)
        for start, part in known or ():
            for image, at, size in self._parts(start, part):
                if image is self._file:
                    yield from image.places(at, size)

    def resize(self, size: int) -> None:
        """See ``image.Image``; raises FailureError where the format cannot change it."""
        self._disconnect()
        self._daemon.execute("block_resize", node_name=DISK, size=size)
        self._size = self._node()["image"]["virtual-size"]
        if self._writable:
            self._connected = self._export()

    def flush(self) -> None:
        """See ``image.Image``."""
        if self._writable:
            self._disk.flush()

    def uncache(self) -> None:
        """See ``image.Image``."""
        with suppress(OSError):
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)

    def close(self) -> None:
        """See ``image.Image``."""
        if self._placement is not None:
            self._placement.close()
        if self._file is not None:
            self._file.close()
        if self._connected is not None:
            self._connected.close()
        self._daemon.close()

    # Its bitmaps.

    def bitmaps(self) -> Sequence[StoredBitmap] | None:
        """See ``image.Image``; only qcow2, from its version 3 on, has a place for bitmaps."""
        layer = self._layer
        if layer.format != "qcow2" or layer.details["compat"] == _OLD_QCOW2:
            return None
        return [
            StoredBitmap(found["name"], found["granularity"], found["recording"], _fault(found))
            for found in self._stored()
        ]

    def read_bitmap(self, name: str) -> "DirtyBitmap":
        """See ``image.Image``."""
        from blkmig_cli.disks.bitmap import DirtyBitmap  # noqa: PLC0415 (numpy is slow to load)

        found = self._whole_bitmap(name)
        bitmap = DirtyBitmap(name, found["granularity"], found["recording"], found["persistent"])
        try:
            for start, length in self.dirty_ranges(name):
                bitmap.set_range(start, length)
        except LimitError as error:
            raise FailureError(f"{escape(self.path)}: bitmap {quote(name)}: {error}") from error
        return bitmap

    def dirty_ranges(self, name: str) -> Iterator[tuple[int, int]]:
        """See ``image.Image``."""
        self._whole_bitmap(name)
        # To add or remove an export, the daemon waits until all answers have been received.
        if self._connected is not None:
            self._connected.uncache()
        arguments = {"node-name": DISK, "bitmaps": [name], "writable": False}
        self._daemon.execute("block-export-add", type="nbd", id=_READ, name=_READ, **arguments)
        bits = self._connect(_READ, bitmaps=[name])
        try:
            yield from bits.dirty_ranges(name)
        finally:
            bits.close()
        self._daemon.remove_export(_READ)

    def add_bitmap(self, name: str, granularity: int) -> None:
        """See ``image.Image``; the image is read-only afterwards, and so the bitmap is stored."""
        if not self._writable:
            self.begin_writing()
        self._daemon.execute(
            "block-dirty-bitmap-add",
            node=DISK,
            name=name,
            granularity=granularity,
            persistent=True,
        )
        self._reopen(writable=False)

    def write_bitmaps(self, bitmaps: "Sequence[DirtyBitmap]") -> None:
        """See ``image.Image``; they are persistent, and the image is read-only afterwards.

        A bitmap can only be set by writes: they are made to a node without content, and its bitmaps
        are merged into those of the image.  Closing the image for writing stores them, and tells of
        failures (QEMU 7.2, block/qcow2-bitmap.c: qcow2_reopen_bitmaps_ro).
        """
        daemon, size = self._daemon, self.size
        if self._writable:
            self.flush()
        else:
            self.begin_writing()
        stored = {found["name"] for found in self._stored()}
        daemon.execute(
            "blockdev-add", driver="null-co", node_name=_BITS, size=size, read_zeroes=True
        )
        daemon.execute(
            "block-export-add", type="nbd", id=_BITS, node_name=_BITS, name=_BITS, writable=True
        )
        bits = self._connect(_BITS, writable=True)
        for bitmap in bitmaps:
            source = {"node": _BITS, "name": bitmap.name}
            daemon.execute("block-dirty-bitmap-add", **source, granularity=bitmap.granularity)
            bits.zero_all(bitmap.ranges(size))
            if bitmap.name in stored:
                daemon.execute("block-dirty-bitmap-remove", node=DISK, name=bitmap.name)
            new = {
                "node": DISK,
                "name": bitmap.name,
                "granularity": bitmap.granularity,
                "persistent": True,
                "disabled": not bitmap.recording,
            }
            merged = {"node": DISK, "target": bitmap.name, "bitmaps": [source]}
            actions = [
                {"type": "block-dirty-bitmap-add", "data": new},
                {"type": "block-dirty-bitmap-merge", "data": merged},
                {"type": "block-dirty-bitmap-remove", "data": source},
            ]
            daemon.execute("transaction", actions=actions)
        bits.close()
        daemon.remove_export(_BITS)
        self._reopen(writable=False)

    def remove_bitmap(self, name: str) -> None:
        """See ``image.Image``; the image is read-only afterwards."""
        if not self._writable:
            self.begin_writing()
        self._daemon.execute("block-dirty-bitmap-remove", node=DISK, name=name)
        self._reopen(writable=False)

    def _reopen(self, *, writable: bool) -> None:
        """Open the node for writing, or only for reading."""
        self._disconnect()
        options = self._options | {"read-only": not writable}
        self._daemon.execute("blockdev-reopen", options=[options])
        self._daemon.limit_threads(_WRITING if writable else _READING)
        self._writable = writable
        if writable:
            # Now, as several threads may write.
            self._connected = self._export()

    def _whole_bitmap(self, name: str) -> dict[str, Any]:
        """Return what the daemon tells of the bitmap ``name``; raises FailureError where it has a fault."""
        found = next((found for found in self._stored() if found["name"] == name), None)
        fault = "there is no such bitmap" if found is None else _fault(found)
        if found is None or fault is not None:
            raise FailureError(f"{escape(self.path)}: bitmap {quote(name)}: {fault}")
        return found

    def _stored(self) -> list[dict[str, Any]]:
        return list(self._node().get("dirty-bitmaps", ()))

    def _node(self) -> dict[str, Any]:
        """Return what the daemon tells of the node of the image."""
        nodes = self._daemon.execute("query-named-block-nodes")
        found: dict[str, Any] = next(node for node in nodes if node["node-name"] == DISK)
        return found

    @property
    def _disk(self) -> "NbdImage":
        """The disk as the daemon exports it; what is read from the file does without."""
        if self._connected is None:
            self._connected = self._export()
        return self._connected

    def _export(self) -> "NbdImage":
        self._daemon.execute(
            "block-export-add",
            type="nbd",
            id=DISK,
            name=DISK,
            node_name=DISK,
            writable=self._writable,
            allocation_depth=self._own_layer,
        )
        return self._connect(DISK, writable=self._writable, own_layer=self._own_layer)

    def _disconnect(self) -> None:
        """End the export, before the node changes."""
        if self._connected is not None:
            self._connected.uncache()
            self._connected.close()
            self._connected = None
            self._daemon.remove_export(DISK)

    def _connect(self, export: str, *, writable: bool = False, **options: Any) -> "NbdImage":
        """Connect to an export of the daemon; for ``options`` see ``image_on``."""
        from blkmig_cli.disks.nbd.image import image_on  # noqa: PLC0415 (not always needed)

        return image_on(self._daemon.connect(), export, self.path, writable=writable, **options)


def open_qemu(
    daemon: StorageDaemon,
    path: str,
    image_format: str,
    *,
    writable: bool,
    shared: bool = False,
    own_layer: bool = False,
    register: Callable[[str, bool], None] = lambda _path, _writes: None,
) -> QemuImage:
    """Open the image file at ``path`` in ``daemon``, which the image owns then.

    For the rest, see ``open.open_image``.  Raises FailureError where it or a backing file is missing,
    damaged, or in use.
    """
    layers = examine(daemon, path, image_format)
    for number, layer in enumerate(layers):
        for file in [layer.path] * (number > 0) + list(layer.files):
            register(file, writable and number == 0)
    options = add_layers(daemon, layers, writable=writable, shared=shared)
    placement = None
    single = len(layers) == 1 and not layers[0].files
    if single and not (shared or own_layer):
        placement = Placement(path, described(layers[0]))
    try:
        # From here on the image is locked, so that what is found out of it stays true.
        if placement is not None and not writable:
            placement.begin()
        return QemuImage(daemon, layers[0], options, placement, own_layer=own_layer)
    except BaseException:
        if placement is not None:
            placement.close()
        raise


def _fault(found: dict[str, Any]) -> str | None:
    if found.get("inconsistent"):
        return "it is inconsistent: the image was not closed properly, or is in use"
    if found.get("busy"):
        return "it is in use"
    return None
