"""Checking before the first byte that disks can be sent in a stream that readers accept."""

from collections.abc import Container, Iterator, Mapping
from typing import TYPE_CHECKING

from blkmig_cli import limits
from blkmig_cli.checks.compatibility import Traits, Version, cut_tail, objections
from blkmig_cli.disks.disk import Disk
from blkmig_cli.disks.image import Readable
from blkmig_cli.errors import FailureError, IncompleteError, UsageError
from blkmig_cli.operations.send.dialects import DIALECTS, V2
from blkmig_cli.operations.send.places import unplaceable
from blkmig_cli.operations.send.stream import SendOptions, is_cut
from blkmig_cli.schemas.constants import MAGIC, SECTOR_SIZE
from blkmig_cli.schemas.dirty_bitmap import granularity_fault
from blkmig_cli.text import count, decode_name, encode_name, escape, quote
from blkmig_cli.transport.compression_kind import by_magic

if TYPE_CHECKING:
    from blkmig_cli.disks.bitmap import DirtyBitmap

_NAME_MAX = 255  # the most that the length byte of a counted string can state
# The magic of a libvirt save image (libvirt, src/qemu/qemu_saveimage.h).
_SAVE_IMAGES = (b"LibvirtQemudSave", b"LibvirtQemudPart")


def check_bitmaps_fit(dialect: str, container: str, hint: str) -> None:
    """Raise UsageError, with ``hint``, where a dialect has no place for bitmaps in its container."""
    if dialect == "classic" or (dialect == "qemu" and container == "none"):
        where = " in --container none" if dialect == "qemu" else ""
        raise UsageError(f"dialect {dialect}{where} has no place for bitmaps", hint=hint)


def check_images(images: Mapping[str, Readable], known: Container[str] = ()) -> None:
    """Check that ``images``, by device, are disks.

    Raises FailureError for an empty one, one that ends inside a sector, and a file of another kind,
    except for the devices ``known``, whose format is certain.
    """
    for device, image in images.items():
        path, size = escape(image.path), image.size
        if not size:
            raise FailureError(f"{path} is empty")
        if size % SECTOR_SIZE:
            whole = -(-size // SECTOR_SIZE) * SECTOR_SIZE
            raise FailureError(
                f"{path} has {size} bytes, not a multiple of {SECTOR_SIZE}",
                hint=f"extend it with: truncate -s {whole} {path}",
            )
        kind = None if device in known else _other_kind(image)
        if kind is not None:
            raise FailureError(
                f"{path} looks like a {kind}, not a disk image", hint="use -f raw if it is one"
            )


def check_disks(disks: list[Disk], options: SendOptions) -> None:
    """Check that a stream of ``disks`` can be written, and that blkmig accepts it.

    Raises UsageError for two disks of one device, or a dialect without a place for their bitmaps;
    FailureError where a disk, a name or a bitmap does not fit; IncompleteError where a part of a
    disk cannot be sent without the chunk around it.
    """
    if len({disk.device for disk in disks}) < len(disks):
        raise UsageError("two disks have the same device")
    if any(disk.bitmaps for disk in disks):
        check_bitmaps_fit(options.dialect, options.container, "leave the bitmaps out")
    bitmaps = [bitmap for disk in disks for bitmap in disk.bitmaps]
    for number, limit, noun in (
        (len(disks), limits.DEVICES_MAX, "device"),
        (len(bitmaps), limits.BITMAPS_MAX, "bitmap"),
    ):
        if number > limit:
            raise FailureError(f"{count(number, noun)}, {limit} are the most in {options.dialect}")
    bits = sum(bitmap.digest_size(disk.size) for disk in disks for bitmap in disk.bitmaps)
    if bits > limits.BITS_MAX:
        raise FailureError(f"bitmaps of over {limits.BITS_MAX >> 20} MiB of bits")
    if len(encode_name(options.machine)) > limits.MACHINE_MAX:
        raise UsageError(f"--machine: over {limits.MACHINE_MAX} bytes")
    for disk in disks:
        fault = name_fault(disk.device)
        if fault is not None:
            raise FailureError(f"device name {quote(disk.device)}: {fault}")
        for fault in _faults(disk, options):
            raise FailureError(fault, device=disk.device)
        on_grid = DIALECTS[options.dialect].on_grid
        if not (disk.partial and options.disks):
            continue
        apart = unplaceable(disk.image, on_grid=on_grid, open_ended=disk.open_ended)
        for start, end in apart:
            raise IncompleteError(
                f"sectors {start}-{end} are only a part of their chunks, which dialect "
                f"{options.dialect} cannot carry without the rest, and that is not in the stream",
                device=disk.device,
                hint="see --dialect qemu" if on_grid else None,
            )


def warnings_for(disks: list[Disk], options: SendOptions, version: Version | None) -> Iterator[str]:
    """Yield warnings of what a QEMU cannot load of a stream of ``disks``.

    ``version`` None: only of what no QEMU can load in this dialect.
    """
    cut = [disk for disk in disks if options.disks and is_cut(disk, options)]
    if version is None:
        for disk in cut if options.dialect == "qemu" else []:
            yield cut_tail(disk.device, disk.size)
        return
    traits = Traits(
        options.dialect,
        options.container,
        options.machine,
        [disk.device for disk in disks if options.disks],
        [disk.device for disk in cut],
        zero_blocks=options.zero_blocks,
        bitmaps=any(disk.bitmaps for disk in disks),
    )
    yield from objections(traits, version)


def _faults(disk: Disk, options: SendOptions) -> Iterator[str]:
    """Yield the reasons why a disk and its bitmaps cannot be sent."""
    most = limits.BARE_DISK_MAX if options.container == "none" else limits.DISK_MAX
    if disk.size > most:
        yield f"a disk of {disk.size} bytes, {most} are the most"
    if disk.size % SECTOR_SIZE:
        yield f"a disk of {disk.size} bytes, not a multiple of {SECTOR_SIZE}"
    if disk.bitmaps and not disk.device and options.dialect == "qemu":
        yield "a device without a name, and bitmaps, which find their disk by its name"
    if disk.bitmaps and not disk.size and options.dialect != "qemu":
        yield f"a disk of 0 bytes has no record for its bitmaps in dialect {options.dialect}"
    for bitmap in disk.bitmaps:
        fault = name_fault(bitmap.name) if bitmap.name else "it is empty"
        if fault is not None:
            yield f"bitmap name {quote(bitmap.name)}: {fault}"
        fault = _bitmap_fault(bitmap, disk.size)
        if fault is not None:
            yield f"bitmap {quote(bitmap.name)}: {fault}"
    if disk.bitmaps and options.dialect == "v2":
        records = -(-disk.size // (V2.step(disk.bitmaps) * SECTOR_SIZE))
        if records * len(disk.bitmaps) > limits.V2_ENTRIES_MAX:
            yield (
                f"{count(len(disk.bitmaps), 'bitmap')} in {count(records, 'record')}, "
                f"{limits.V2_ENTRIES_MAX} entries are the most"
            )


def name_fault(name: str) -> str | None:
    """Return why ``name`` cannot be sent, None if it can."""
    raw = encode_name(name)
    if len(raw) > _NAME_MAX:
        return f"over {_NAME_MAX} bytes"
    if 0 in raw:
        return "it contains a NUL, which ends a name in QEMU"
    return None if decode_name(raw) == name else "it contains characters that are invalid in UTF-8"


def _bitmap_fault(bitmap: "DirtyBitmap", size: int) -> str | None:
    fault = granularity_fault(bitmap.granularity)
    if fault is None and bitmap.end() > -(-size // bitmap.granularity) * bitmap.granularity:
        fault = f"dirty up to byte {bitmap.end()} of a disk of {size} bytes"
    return fault


def _other_kind(image: Readable) -> str | None:
    """Return the kind of a file by its first bytes, if it is a stream or compressed."""
    head = image.read(0, min(image.size, SECTOR_SIZE))
    if head.startswith(MAGIC.to_bytes(4, "big")):
        return "migration stream"
    if head.startswith(_SAVE_IMAGES):
        return "libvirt save image"
    packed = by_magic(head)
    return None if packed is None else f"{packed} file"
