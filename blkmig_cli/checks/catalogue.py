"""What can be found in a stream: ``CHECKS`` is the one list, and its ids are stable."""

from dataclasses import dataclass
from typing import Literal

from blkmig_cli.errors import BlkmigError
from blkmig_cli.text import escape

Severity = Literal["error", "warning", "note"]

#: Check id, sentence, and the byte of the stream, if it has a place.
Found = tuple[str, str, int | None]

#: Every check: its severity, and what it means.  Those of exit status 3 end the reading.
CHECKS: dict[str, tuple[Severity, str]] = {
    "input-failed": ("error", "The input is missing, or failed while it was read (exit 4)."),
    "not-a-stream": ("error", "Neither QEVM nor a block record stands at the start (exit 3)."),
    "truncated": ("error", "The input ends before the stream does (exit 3)."),
    "malformed": ("error", "An object breaks a rule of its format (exit 3)."),
    "unknown-flags": ("error", "A block record has flags that its dialect does not know (exit 3)."),
    "unknown-section": ("error", "A section's type or id is unknown (exit 3)."),
    "unknown-command": ("error", "A command's number is unknown (exit 3)."),
    "footer": ("error", "A section's footer is missing or wrong (exit 3)."),
    "device-state": ("error", "Device state is not as long as the description says."),
    "dialect": ("error", "Records of two dialects in one stream (exit 3)."),
    "v2-rules": ("error", "A record breaks a rule of dialect v2 (exit 3)."),
    "bitmap-layout": ("error", "No length of a v1 record's bitmaps makes sense (exit 3)."),
    "undecidable": ("error", "More than one reading of the stream survives (exit 3)."),
    "bitmap-granularity": (
        "error",
        "A bitmap's granularity is no power of two from 512 B to 2 GiB: QEMU aborts (exit 3).",
    ),
    "bitmap-start": ("error", "Bits do not start on a word: QEMU aborts (exit 3)."),
    "bitmap-range": (
        "error",
        "Bits of 0 sectors, or past any disk: QEMU loops, or aborts (exit 3).",
    ),
    "bitmap-length": ("error", "Bits of a wrong length: QEMU drops the bitmap, or fails (exit 3)."),
    "bitmap-flags": ("error", "A bitmap's reserved flags are set: QEMU fails (exit 3)."),
    "bitmap-restart": ("error", "A bitmap starts a second time: QEMU fails (exit 3)."),
    "bitmap-name": ("error", "A bitmap or its device has an empty name: QEMU fails (exit 3)."),
    "name-wrapped": (
        "error",
        "A device's name is longer than its length byte can say: QEMU wraps it (exit 3).",
    ),
    "merged-devices": (
        "error",
        "A disk and the file that holds it came under one name: QEMU mixes unnamed devices.",
    ),
    "limit": ("error", "An object is larger than this program takes (exit 3)."),
    "missing-chunks": ("error", "Chunks of a disk never came: incremental, or not whole."),
    "bulk-unfinished": (
        "error",
        "The bulk phase was abandoned: the rest of the disks was never sent (QEMU 7.2 to 9.0).",
    ),
    "section-unfinished": ("error", "The block section never ended."),
    "bitmap-incomplete": ("error", "A bitmap never ended, or its records do not cover the disk."),
    "sector-past-end": ("error", "A record lies past the disk's end."),
    "bitmap-size": ("error", "A bitmap is of a disk of another size: QEMU aborts, or drops it."),
    "size-mismatch": ("error", "An image is larger or smaller than the stream's disk can be."),
    "size-unknown": (
        "error",
        "The size of a disk is not known, and an image of it cannot be made.",
    ),
    "image-differs": ("error", "The image is not what the stream leaves behind."),
    "manifest-differs": ("error", "The stream does not leave behind what the manifest says."),
    "completeness-unknown": ("warning", "The disk's size is not known, and more may be missing."),
    "no-final-progress": ("warning", "The block section ended without its final 100 percent."),
    "progress-contradiction": (
        "error",
        "Every chunk of the disks was sent, but progress does not fit: other disks may be missing.",
    ),
    "progress-range": ("warning", "A progress record says more than 100 percent."),
    "bitmap-open": ("warning", "The granularity of a v1 bitmap stays open."),
    "bitmap-past-end": ("warning", "A bitmap has dirty bits past the disk's end."),
    "undecoded": ("warning", "A stretch of the stream could not be decoded."),
    "unnamed-device": (
        "warning",
        "A disk has no name (-blockdev): no QEMU loads it, and several come as one.",
    ),
    "padding-leak": (
        "warning",
        "A last chunk carries foreign data behind the disk's end; see blkmig scrub.",
    ),
    "bitmap-device": (
        "warning",
        "A bitmap's device has no blocks though others do: QEMU drops it unless it has the device.",
    ),
    "qemu-cannot-load": ("warning", "The QEMU of --for-qemu cannot load this stream."),
    "manifest-unchecked": (
        "warning",
        "Chunks are missing, as --incremental allows: the disk cannot be held against the manifest.",
    ),
    "nothing-here": ("warning", "The stream holds neither disks nor bitmaps."),
    "trailing-bytes": ("note", "Other bytes stand behind the stream's end."),
    "resynchronised": ("note", "Device state was sized by searching for its footer."),
    "partial-tail": (
        "note",
        "A last chunk is cut by the disk's end: QEMU 2.10 to 9.0 fails to load it.",
    ),
    "empty-parts": (
        "note",
        "Very many empty parts: a paused guest with dirty-bitmaps on, which never converged.",
    ),
    "incremental": ("note", "Chunks are missing, as --incremental says they may."),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found: check id, severity, sentence, where."""

    id: str
    severity: Severity
    message: str
    offset: int | None = None
    device: str | None = None

    @property
    def place(self) -> str:
        """Where it is, for people: ``device vda, byte 512``; empty where it has no place."""
        device = None if self.device is None else f"device {escape(self.device)}"
        offset = None if self.offset is None else f"byte {self.offset}"
        return ", ".join(part for part in (device, offset) if part)

    def __str__(self) -> str:
        """One line that says all of it."""
        place = f" ({self.place})" if self.place else ""
        return f"{self.severity}: {escape(self.message)}{place} [{self.id}]"


def finding_of(error: BlkmigError) -> Finding:
    """Return what ended the reading of a stream, as a finding."""
    hint = f"; {error.hint}" if error.hint else ""
    message = f"{error.message}{hint}"
    return Finding(error.check, CHECKS[error.check][0], message, error.offset, error.device)
