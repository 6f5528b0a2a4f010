"""The catalogue of all possible findings in a stream, ``CHECKS``; its ids are stable."""

from typing import Literal

from blkmig_cli.dataclass import dataclass
from blkmig_cli.errors import TRUNCATED, BlkmigError
from blkmig_cli.text import escape

Severity = Literal["error", "warning", "note"]

#: Check id, message, and offset in the stream, if it has one.
Found = tuple[str, str, int | None]

#: All checks by id: severity and meaning.  Those of exit status 3 end the reading.
CHECKS: dict[str, tuple[Severity, str]] = {
    "input-failed": ("error", "The input is missing, or failed while it was read (exit 4)."),
    "not-a-stream": ("error", "There is no QEVM magic or block record at the start (exit 3)."),
    "truncated": ("error", "The input ends before the stream does (exit 3)."),
    "malformed": ("error", "An object breaks a rule of its format (exit 3)."),
    "unknown-flags": (
        "error",
        "A block record has flags that are unknown in its dialect (exit 3).",
    ),
    "unknown-section": ("error", "A section's type or id is unknown (exit 3)."),
    "unknown-command": ("error", "A command's number is unknown (exit 3)."),
    "footer": ("error", "A section's footer is missing or wrong (exit 3)."),
    "device-state": ("error", "The length of device state is not that stated in the description."),
    "dialect": ("error", "The stream has records of two dialects (exit 3)."),
    "v2-rules": ("error", "A record breaks a rule of dialect v2 (exit 3)."),
    "bitmap-layout": ("error", "A v1 record's bitmaps have no valid length (exit 3)."),
    "undecidable": ("error", "The stream can be read in more than one way (exit 3)."),
    # QEMU 7.2, block/dirty-bitmap.c: bdrv_create_dirty_bitmap
    "bitmap-granularity": (
        "error",
        "A bitmap's granularity is not a power of two from 512 B to 2 GiB: QEMU aborts (exit 3).",
    ),
    # QEMU 7.2, util/hbitmap.c: serialization_chunk
    "bitmap-start": ("error", "Bits do not start on a word: QEMU aborts (exit 3)."),
    "bitmap-range": (
        "error",
        "A range of bits has 0 sectors, or is past any disk: QEMU loops, or aborts (exit 3).",
    ),
    # QEMU 7.2, migration/block-dirty-bitmap.c: dirty_bitmap_load_bits
    "bitmap-length": (
        "error",
        "The bits have a wrong length: QEMU drops the bitmap, or fails (exit 3).",
    ),
    # QEMU 7.2, migration/block-dirty-bitmap.c: dirty_bitmap_load_start (both)
    "bitmap-flags": ("error", "A bitmap's reserved flags are set: QEMU fails (exit 3)."),
    "bitmap-restart": ("error", "A bitmap starts a second time: QEMU fails (exit 3)."),
    # QEMU 7.2, migration/block-dirty-bitmap.c: dirty_bitmap_load_header
    "bitmap-name": ("error", "A bitmap or its device has an empty name: QEMU fails (exit 3)."),
    # QEMU 7.2, migration/block.c: blk_send
    "name-wrapped": (
        "error",
        "A device's name is longer than its length byte can state: QEMU wraps it (exit 3).",
    ),
    "merged-devices": (
        "error",
        "A disk and the file that contains it have the same name: QEMU mixes unnamed devices.",
    ),
    "limit": ("error", "An object is over a limit of this program (exit 3)."),
    "missing-chunks": (
        "error",
        "Chunks of a disk were not sent: the stream is incremental, or incomplete.",
    ),
    "bulk-unfinished": (
        "error",
        "The bulk phase was abandoned: the rest of the disks was not sent (QEMU 7.2 to 9.0).",
    ),
    "salvaged": (
        "error",
        "The stream is what salvage found intact of a damaged one: more may be missing.",
    ),
    "section-unfinished": ("error", "The block section has no end."),
    "bitmap-incomplete": ("error", "A bitmap has no end, or its records do not cover the disk."),
    "sector-past-end": ("error", "A record lies past the disk's end."),
    "bitmap-size": ("error", "A bitmap is of a disk of another size: QEMU aborts, or drops it."),
    "size-mismatch": ("error", "An image is larger or smaller than the stream's disk can be."),
    "size-unknown": (
        "error",
        "The size of a disk is unknown, so that an image of it cannot be created.",
    ),
    "image-differs": ("error", "The image differs from the disk in the stream."),
    "manifest-differs": ("error", "The disks and bitmaps in the stream differ from the manifest."),
    "wrong-base": (
        "error",
        "An image does not hold the base of the increment, or nothing proves that it does.",
    ),
    "completeness-unknown": ("warning", "The disk's size is unknown, and more may be missing."),
    "no-final-progress": ("warning", "The block section ended without its final 100 percent."),
    "progress-contradiction": (
        "error",
        "Every chunk of the disks was sent, but progress does not fit: other disks may be missing.",
    ),
    "progress-range": ("warning", "A progress record states more than 100 percent."),
    "bitmap-open": ("warning", "The granularity of a v1 bitmap is unknown."),
    "bitmap-past-end": ("warning", "A bitmap has dirty bits past the disk's end."),
    "undecoded": ("warning", "A part of the stream could not be decoded."),
    # QEMU 7.2, migration/block.c: block_load (blk_by_name finds no drive)
    "unnamed-device": (
        "warning",
        "A disk has no name (-blockdev): no QEMU loads it, and several are sent as one.",
    ),
    "padding-leak": (
        "warning",
        "A last chunk has other data after the disk's end; see blkmig scrub.",
    ),
    "bitmap-device": (
        "warning",
        "A bitmap's device has no blocks, but others do: QEMU drops it unless it has the device.",
    ),
    "qemu-cannot-load": ("warning", "The QEMU of --for-qemu cannot load this stream."),
    "manifest-unchecked": (
        "warning",
        "Chunks are missing (--incremental), so that the disk cannot be compared with the manifest.",
    ),
    "identity": ("warning", "The identity in the description is invalid, and is ignored."),
    "base-missing": (
        "warning",
        "The base of an increment is no stream of the catalogue (validate --catalogue).",
    ),
    "nothing-here": ("warning", "The stream has no disks and no bitmaps."),
    "trailing-bytes": ("note", "Other bytes follow the stream's end."),
    "resynchronised": ("note", "Device state was sized by searching for its footer."),
    # QEMU 7.2, migration/block.c: block_load
    "partial-tail": (
        "note",
        "The disk's end cuts a last chunk: QEMU 2.10 to 9.0 fails to load it.",
    ),
    "empty-parts": (
        "note",
        "Very many empty parts: from a paused guest with dirty-bitmaps on, which did not converge.",
    ),
    "incremental": (
        "note",
        "Chunks are missing, which --incremental permits, or the identity of an increment states.",
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding: check id, severity, message, and place."""

    id: str
    severity: Severity
    message: str
    offset: int | None = None
    device: str | None = None

    @property
    def place(self) -> str:
        """The place as text, unless the message states it: ``device vda, byte 512``; it may be empty."""
        device = None if self.device is None else f"device {escape(self.device)}"
        stated = self.offset is None or self.id == TRUNCATED
        offset = None if stated else f"byte {self.offset}"
        return ", ".join(part for part in (device, offset) if part)

    def __str__(self) -> str:
        """One line that says all of it."""
        place = f" ({self.place})" if self.place else ""
        return f"{self.severity}: {escape(self.message)}{place} [{self.id}]"


def finding_of(error: BlkmigError) -> Finding:
    """Return the error that ended the reading of a stream as a finding."""
    hint = f"; {error.hint}" if error.hint else ""
    message = f"{error.message}{hint}"
    return Finding(error.check, CHECKS[error.check][0], message, error.offset, error.device)
