"""Manifests: SHA-256 digests of the disks and bitmaps of a stream, as ``send`` read them.

A disk's digest is that of all its bytes, as of ``sha256sum disk.img``; a bitmap's is that of QMP's
x-debug-block-dirty-bitmap-sha256 (QEMU 7.2, util/hbitmap.c: hbitmap_sha256).  Values that a stream
does not carry are None: the digest of a partially sent disk, the flags of v1's bitmaps.
"""

import hashlib
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from blkmig_cli import limits
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.disk import Disk
from blkmig_cli.disks.image import Readable
from blkmig_cli.errors import FailureError
from blkmig_cli.progress import Tick
from blkmig_cli.schemas.dirty_bitmap import granularity_fault
from blkmig_cli.system.documents import Entry, read_document, write_document
from blkmig_cli.text import quote
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.identity import KEY, Identity, identity_document, parse_identity

if TYPE_CHECKING:
    from blkmig_cli.disks.bitmap import DirtyBitmap

VERSION = 1

# Bytes per read: few enough to be hashed in the processor's cache.
_PIECE = 256 << 10
_ZEROS = memoryview(bytes(_PIECE))
_SHOWN = 12  # digits of a digest in messages
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class DiskEntry:
    """A disk of ``size`` bytes."""

    device: str
    size: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class BitmapEntry:
    """A bitmap; ``granularity`` and ``count`` (dirty bytes) are in bytes."""

    device: str
    name: str
    granularity: int
    recording: bool | None
    persistent: bool | None
    count: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference from the manifest."""

    device: str
    message: str


@dataclass(slots=True)
class Manifest:
    """Disks by device, and bitmaps by device and name; ``path`` is the file they were read from.

    ``identity``: that of the stream, if it has one.
    """

    path: str = field(default="", compare=False)
    disks: dict[str, DiskEntry] = field(default_factory=dict)
    bitmaps: dict[tuple[str, str], BitmapEntry] = field(default_factory=dict)
    identity: Identity | None = field(default=None, compare=False)

    @property
    def to_read(self) -> int:
        """Bytes of all disks that have a digest."""
        return sum(entry.size for entry in self.disks.values() if entry.sha256 is not None)

    def completing(self, hints: Hints) -> Hints:
        """Return ``hints`` completed by the sizes, granularities and identity in the manifest."""
        sizes: dict[str | None, int] = {device: entry.size for device, entry in self.disks.items()}
        granularities: dict[tuple[str | None, str], int] = {
            key: entry.granularity for key, entry in self.bitmaps.items()
        }
        return replace(
            hints,
            granularities={**granularities, **hints.granularities},
            images={**hints.images, **sizes},
            identity=self.identity,
        )


def check_work(disks: list[Disk], *, content: bool) -> None:
    """Check that the digests of ``disks`` can be computed; ``content``: see :func:`manifest_of`.

    Raises FailureError where too many zeros would be hashed.
    """
    work = _Work([disk.image for disk in disks] if content else [])
    for disk in disks:
        if content and not work.allows(disk.size - _data(disk.image)):
            raise FailureError(f"--manifest: {work.refusal}", device=disk.device)
        for bitmap in disk.bitmaps:
            if not work.allows_bitmap(bitmap, disk.size):
                raise FailureError(
                    f"--manifest: bitmap {quote(bitmap.name)}: {work.refusal}", device=disk.device
                )


def manifest_of(disks: list[Disk], tick: Tick, *, content: bool, flags: bool) -> Manifest:
    """Return the manifest of ``disks``; ``tick`` gets the number of bytes read so far.

    ``content``: the stream carries each disk's complete content; ``flags``: its dialect carries the
    bitmaps' flags.

    Raises FailureError where an image fails.
    """
    made, done = Manifest(), 0
    for disk in disks:
        digest = None
        if content:
            digest = _sha256(disk.image, disk.device, done, tick)
            done += disk.size
        made.disks[disk.device] = DiskEntry(disk.device, disk.size, digest)
        for bitmap in disk.bitmaps:
            made.bitmaps[disk.device, bitmap.name] = BitmapEntry(
                disk.device,
                bitmap.name,
                bitmap.granularity,
                bitmap.recording if flags else None,
                bitmap.persistent if flags else None,
                bitmap.count(disk.size),
                bitmap.sha256(disk.size),
            )
    return made


def check_images(
    manifest: Manifest,
    disks: Mapping[str, Readable] | None,
    bitmaps: "Mapping[tuple[str, str], DirtyBitmap] | None",
    tick: Tick,
    skipped: Container[str] = (),
) -> Iterator[Difference]:
    """Yield the differences of ``disks`` (by device) and ``bitmaps`` (by device and name).

    None: they are not compared; nor are the disks of the devices ``skipped``.  A disk or bitmap that
    cannot be compared, as too many zeros would be hashed, is a difference, too.  ``tick`` gets the
    bytes read so far.  Raises FailureError where an image fails.
    """
    work = _Work([] if disks is None else disks.values())
    if disks is not None:
        yield from _check_disks(manifest, disks, work, tick, skipped)
    if bitmaps is not None:
        yield from _check_bitmaps(manifest, bitmaps, work)


class _Work:
    """The limit of bytes to hash, so that a size that is only stated cannot cause endless work."""

    refusal = f"too many zeros to hash (over {limits.ZEROS_HASHED} for each byte of data)"

    def __init__(self, images: Iterable[Readable]) -> None:
        data = sum(map(_data, images))
        self._left = limits.ZEROS_HASHED * max(data, limits.ZEROS_HASHED_FOR)

    def allows(self, zeros: int) -> bool:
        """Return whether so many bytes of zeros more may be hashed."""
        if zeros > self._left:
            return False
        self._left -= zeros
        return True

    def allows_bitmap(self, bitmap: "DirtyBitmap", size: int) -> bool:
        """Return whether the bits of a bitmap of a disk of ``size`` bytes may be hashed."""
        bits = bitmap.digest_size(size)
        return bits <= limits.BITS_MAX and self.allows(bits)


def _data(image: Readable) -> int:
    """Return how many bytes of an image may be non-zero."""
    return sum(length for _, length in image.extents())


def _check_disks(
    manifest: Manifest,
    disks: Mapping[str, Readable],
    work: _Work,
    tick: Tick,
    skipped: Container[str],
) -> Iterator[Difference]:
    done = 0
    for device, entry in manifest.disks.items():
        if entry.sha256 is None or device in skipped:
            continue
        image = disks.get(device)
        if image is None:
            yield Difference(device, "the disk is missing")
        elif image.size != entry.size:
            yield Difference(device, f"the disk has {image.size} bytes, not {entry.size}")
        elif not work.allows(image.size - _data(image)):
            yield Difference(device, f"the disk was not compared: {work.refusal}")
        elif (digest := _sha256(image, device, done, tick)) != entry.sha256:
            wanted = f"not {entry.sha256[:_SHOWN]}..."
            yield Difference(device, f"the disk's SHA-256 is {digest[:_SHOWN]}..., {wanted}")
        done += entry.size
    for device in disks:
        if device not in manifest.disks:
            yield Difference(device, "the disk is not in the manifest")


def _check_bitmaps(
    manifest: Manifest, bitmaps: "Mapping[tuple[str, str], DirtyBitmap]", work: _Work
) -> Iterator[Difference]:
    for (device, name), entry in manifest.bitmaps.items():
        bitmap = bitmaps.get((device, name))
        if bitmap is None:
            fault: str | None = "is missing"
        else:
            fault = _bitmap_fault(bitmap, entry, manifest.disks[device].size, work)
        if fault is not None:
            yield Difference(device, f"bitmap {quote(name)}: {fault}")
    for device, name in bitmaps:
        if (device, name) not in manifest.bitmaps:
            yield Difference(device, f"bitmap {quote(name)}: is not in the manifest")


def _bitmap_fault(bitmap: "DirtyBitmap", wanted: BitmapEntry, size: int, work: _Work) -> str | None:
    """Return the most significant difference of a bitmap of a disk of ``size`` bytes, or None."""
    if bitmap.granularity != wanted.granularity:
        return f"its granularity is {bitmap.granularity}, not {wanted.granularity}"
    count = bitmap.count(size)
    if count != wanted.count:
        return f"{count} bytes are dirty, not {wanted.count}"
    if not work.allows_bitmap(bitmap, size):
        return f"was not compared: {work.refusal}"
    if bitmap.sha256(size) != wanted.sha256:
        return "as many bytes are dirty, but others"
    for name in ("recording", "persistent"):
        if getattr(wanted, name) not in (None, getattr(bitmap, name)):
            return f"it is {'' if getattr(bitmap, name) else 'not '}{name}"
    return None


def _sha256(image: Readable, device: str, done: int, tick: Tick) -> str:
    """Return the digest of the image of ``device``; ``done`` bytes of others have been read before."""
    found, at = hashlib.sha256(), 0
    for start, length in chain(image.extents(), [(image.size, 0)]):
        for zeros in range(at, start, _PIECE):
            found.update(_ZEROS[: start - zeros])
            tick(done + zeros, device)
        for data in range(start, start + length, _PIECE):
            found.update(image.read(data, min(_PIECE, start + length - data)))
            tick(done + data, device)
        at = start + length
    return found.hexdigest()


def write_manifest(path: str, manifest: Manifest) -> None:
    """Write ``path`` atomically.  Raises FailureError."""
    devices = [
        {"device": entry.device, "size": entry.size, "sha256": entry.sha256}
        for entry in manifest.disks.values()
    ]
    bitmaps = [
        {
            "device": entry.device,
            "name": entry.name,
            "granularity": entry.granularity,
            "recording": entry.recording,
            "persistent": entry.persistent,
            "count": entry.count,
            "sha256": entry.sha256,
        }
        for entry in manifest.bitmaps.values()
    ]
    document: dict[str, Any] = {"version": VERSION, "devices": devices, "bitmaps": bitmaps}
    if manifest.identity is not None:
        document[KEY] = identity_document(manifest.identity)
    write_document(path, document)


def read_manifest(path: str) -> Manifest:
    """Read and check ``path``.

    Raises FailureError where it is missing, damaged, or not a manifest.
    """
    found = read_document(path, limits.MANIFEST_MAX, "manifest", _parse)
    found.path = path
    return found


def _parse(root: Entry) -> Manifest:
    root.check_version(VERSION)
    found = Manifest()
    if root.value(KEY) is not None:
        try:
            found.identity = parse_identity(root.value(KEY))
        except ValueError as error:
            raise root.fault(f"{KEY}: {error}") from None
    for entry in root.entries("devices"):
        device = entry.text("device")
        if device in found.disks:
            raise entry.fault(f"a second device {quote(device)}")
        digest = None if entry.is_null("sha256") else _digest(entry)
        found.disks[device] = DiskEntry(device, entry.number("size", limits.DISK_MAX), digest)
    for entry in root.entries("bitmaps"):
        bitmap = _parse_bitmap(entry, found)
        if (bitmap.device, bitmap.name) in found.bitmaps:
            raise entry.fault(f"a second bitmap {quote(bitmap.name)} of {quote(bitmap.device)}")
        found.bitmaps[bitmap.device, bitmap.name] = bitmap
    return found


def _parse_bitmap(entry: Entry, found: Manifest) -> BitmapEntry:
    device = entry.text("device")
    if device not in found.disks:
        raise entry.fault(f"no device is called {quote(device)}")
    granularity = entry.number("granularity", limits.DISK_MAX)
    fault = granularity_fault(granularity)
    if fault is not None:
        raise entry.fault(fault)
    return BitmapEntry(
        device,
        entry.text("name"),
        granularity,
        None if entry.is_null("recording") else entry.flag("recording"),
        None if entry.is_null("persistent") else entry.flag("persistent"),
        entry.number("count", found.disks[device].size),
        _digest(entry),
    )


def _digest(entry: Entry) -> str:
    digest = entry.text("sha256")
    if not _DIGEST.fullmatch(digest):
        raise entry.fault("sha256 is not a digest: expected 64 digits, 0 to 9 and a to f")
    return digest
