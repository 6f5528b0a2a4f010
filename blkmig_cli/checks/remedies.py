"""What to do about each finding, for ``validate --explain``, SARIF, and docs/checks.md."""

from collections.abc import Mapping

_DAMAGED = (
    "Get the stream again from where it was stored. blkmig salvage finds what is intact; replay "
    "--allow-incomplete takes what comes before the damage."
)
_DEFECT = (
    "The stream was made by a program with a defect: capture again with another version of it."
)
_BITMAP_DEFECT = (
    f"{_DEFECT} The disks before it can be taken with replay --allow-incomplete --no-bitmaps."
)

#: What to do about a finding, by its id; plain text, one or several sentences.
REMEDIES: Mapping[str, str] = {
    "input-failed": "Check the name and the permissions of the input, and the medium it is on.",
    "not-a-stream": (
        "Check that it is the right file, and that an offset is specified where the stream does not "
        "begin at the file's start: file:PATH,offset=N."
    ),
    "truncated": (
        "The program that wrote it was ended, or the disk was full, or a transfer broke off: get the "
        "rest, or capture again. replay --allow-incomplete takes the chunks that are there; a transfer "
        "by send is continued with a token (replay --print-token)."
    ),
    "malformed": _DAMAGED,
    "unknown-flags": f"{_DAMAGED} If it is not damaged, try another --dialect.",
    "unknown-section": f"{_DAMAGED} Or the stream has a feature that blkmig does not read.",
    "unknown-command": f"{_DAMAGED} Or the stream has a feature that blkmig does not read.",
    "footer": _DAMAGED,
    "device-state": _DAMAGED,
    "dialect": f"{_DAMAGED} If it is not damaged, specify the --dialect.",
    "v2-rules": _DAMAGED,
    "bitmap-layout": (
        "Specify the granularities of all bitmaps with --granularity. If they are right, the stream is "
        f"damaged. {_DAMAGED}"
    ),
    "undecidable": "Specify what the message lists, such as --granularity, --dialect or --device-size.",
    "bitmap-granularity": _BITMAP_DEFECT,
    "bitmap-start": _BITMAP_DEFECT,
    "bitmap-range": f"{_BITMAP_DEFECT} Of a disk over 2 TiB, use a finer granularity than 256 MiB.",
    "bitmap-length": _BITMAP_DEFECT,
    "bitmap-flags": _BITMAP_DEFECT,
    "bitmap-restart": _BITMAP_DEFECT,
    "bitmap-name": _BITMAP_DEFECT,
    "name-wrapped": "Give the drive a shorter name (-drive id=NAME), and capture again.",
    "merged-devices": (
        "Give each disk an id (-drive id=NAME instead of -blockdev), and capture again: neither disk can "
        "be taken from the stream."
    ),
    "limit": (
        "The stream is far larger than any that is known, or damaged, or made to exhaust memory. The "
        "limits are listed in docs/commands.md."
    ),
    "missing-chunks": (
        "If the gaps are intentional (a shared base, an increment), use --incremental. If the stream is "
        "the rest of an interrupted one, apply it with replay --resume. Otherwise capture again; replay "
        "--allow-incomplete takes what was sent."
    ),
    "bulk-unfinished": (
        "Capture again with QEMU's downtime-limit at 0 until the disks are sent, as described in "
        "docs/qemu.md. replay --allow-incomplete takes what was sent."
    ),
    "salvaged": (
        "Get an undamaged copy of the original. replay --allow-incomplete takes what is intact; with "
        "--incremental, an older image of the disk keeps its content where the stream has none."
    ),
    "section-unfinished": (
        "The migration was cancelled or failed: capture again. replay --allow-incomplete takes what was "
        "sent."
    ),
    "bitmap-incomplete": (
        "Capture again, or take the disks without bitmaps: replay --no-bitmaps. An incomplete bitmap "
        "must not be used for a backup, as it lacks writes."
    ),
    "sector-past-end": "Check --device-size. If it is right, the stream is of another disk, or damaged.",
    "bitmap-size": "Check --device-size. If it is right, take the disks without bitmaps: --no-bitmaps.",
    "size-mismatch": (
        "Check that the image or the option is of this disk. replay --device-size states that a "
        "larger image file is meant."
    ),
    "size-unknown": (
        "Specify --device-size SIZE: qemu-img info of the source shows it. --device-size max takes the "
        "most that the stream allows."
    ),
    "image-differs": (
        "If the image was in use since the stream was made, nothing is wrong. Otherwise the image or the "
        "stream is damaged: apply the stream again with replay --verify."
    ),
    "manifest-differs": (
        "The stream, the image or the manifest was changed after it was made, or they do not belong "
        "together: use an intact copy."
    ),
    "wrong-base": (
        "Apply the streams in their order, each onto the image of the one before. If the image does hold "
        "the base, prove it with --verify-base MANIFEST, or use --no-base-check."
    ),
    "completeness-unknown": (
        "A classic stream does not state the size of its disks, so that chunks at their ends may be "
        "missing unseen. If the source still exists, qemu-img info shows the size: check again with "
        "--device-size. Otherwise compare with the disk that was sent (validate --image) or with its "
        "digests (--manifest)."
    ),
    "no-final-progress": "Capture again if the source is still there: the migration may have failed.",
    "progress-contradiction": (
        "Check that all disks of the guest are in the stream, and that --device-size is right."
    ),
    "progress-range": "Nothing: such percentages are ignored.",
    "bitmap-open": "Specify --granularity [DEVICE:]NAME=SIZE.",
    "bitmap-past-end": "Check --device-size. If it is right, the bitmap was made for a larger disk.",
    "undecoded": (
        "If disks or bitmaps are missing from the report, they may be in that part: see blkmig dump."
    ),
    "unnamed-device": (
        "Give the disks an id (-drive id=NAME instead of -blockdev). To apply the stream: replay --image "
        "=IMAGE."
    ),
    "padding-leak": (
        "Remove the data with blkmig scrub before the stream is given to others. replay writes none of it "
        "where the size of the disk is known."
    ),
    "bitmap-device": "Load the bitmap into a QEMU that has its device, or capture that disk, too.",
    "qemu-cannot-load": (
        "Write the stream for that version: blkmig convert --normalize --for-qemu VERSION. Versions from "
        "9.1 on load bitmaps only; docs/qemu.md has ways for disks."
    ),
    "manifest-unchecked": "Fold the stream with its base, and compare the result with the manifest.",
    "identity": "Nothing, if the streams are no increments: the rest of the stream is valid.",
    "base-missing": "Get the base again, or make a full stream: the increment cannot be applied alone.",
    "nothing-here": (
        "Capture again, with block migration (migrate -b) or the capability dirty-bitmaps. QEMU 9.1 and "
        "later send no disks: see blkmig live."
    ),
    "trailing-bytes": "Nothing. If it is a further stream, read it with --stream N.",
    "resynchronised": "Nothing: disks and bitmaps are read as usual.",
    "partial-tail": (
        "Nothing for blkmig. To load it with a QEMU: blkmig convert --normalize moves the last chunk."
    ),
    "empty-parts": (
        "Nothing. To avoid them, set QEMU's downtime-limit above 0 when the disks have been sent."
    ),
    "incremental": "Apply the stream only to an image that holds what it was made onto.",
}
