"""Streams that went wrong once: found by the model test, and made small."""

from tests.support.model_case import Plan
from tests.support.model_wire import (
    Bitmap,
    Bits,
    Block,
    Data,
    Disk,
    Framing,
    Mark,
    Part,
    Progress,
    Stream,
)

_NOISE = Data("noise", 1)
_FINE = Bitmap("b", 512)
_COARSE = Bitmap("b", 65536)
_DISK = Disk("d", 4096)


def _stream(
    dialect: str,
    disks: tuple[Disk, ...],
    *records: Block | Progress,
    container: str = "qemu",
    marks: tuple[Mark, ...] = (),
    progress: str = "none",
    beside: bool = False,
) -> Stream:
    """A stream with ``records`` in one part; ``progress`` as :class:`Stream` has it."""
    ending = () if progress == "silent" else (Progress(100),)
    parts = (Part(records, beside), Part(ending, beside))
    framing = Framing()
    return Stream(dialect, container, disks, parts, (marks,) if marks else (), framing, progress)


def _zero(sector: int, device: str = "d") -> Block:
    return Block(device, sector, zero=True)


def _plan(stream: Stream, *operation: str, hinted: bool = True, spoken: bool = True) -> Plan:
    return Plan(stream, hinted, spoken, (operation,))


def _empty(bitmap: Bitmap) -> tuple[Mark, ...]:
    """A bitmap that starts and completes, and has no bits between."""
    return (Mark("start", "d", bitmap), Mark("complete", "d", bitmap))


_GAP = _stream("classic", (_DISK,), _zero(0))
_RAGGED = _stream("classic", (_DISK,), Block("d", 1000, _NOISE))
_UNALIGNED = _stream("classic", (Disk("d", 2048),), Block("d", 0, _NOISE), Block("d", 1, _NOISE))
_V1_CUT = _stream(
    "v1",
    (Disk("d", 5, (_FINE,)),),
    Block("d", 0, _NOISE, bits=(Bits(_FINE, "noise"),)),
    Block("d", 3, _NOISE, bits=(Bits(_FINE, "noise"),)),
)
_V1_SHORT = _stream(
    "v1",
    (Disk("d", 4095, (_FINE,)),),
    Block("d", 0, _NOISE, bits=(Bits(_FINE, "all"),)),
    Block("d", 2047, _NOISE, bits=(Bits(_FINE, "all"),)),
)
_V1_OPEN = _stream(
    "v1",
    (Disk("d", 4096, (Bitmap("b", 8192),)),),
    Block("d", 2048, bits=(Bits(Bitmap("b", 8192)),), sectors=2048),
    Block("d", 0, zero=True, bits=(Bits(Bitmap("b", 8192), "noise"),)),
)
_V1_GROWS = Stream(
    "v1",
    "qemu",
    (Disk("d", 5, (_FINE, Bitmap("g", 512))),),
    (
        Part((Block("d", 0, bits=(Bits(_FINE), Bits(Bitmap("g", 512))), sectors=5),)),
        Part((Block("d", 0, zero=True, bits=(Bits(_FINE), Bits(Bitmap("g", 512), "noise"))),)),
        Part((Progress(100),)),
    ),
)
_V2_BITS = Block("d", 0, bits=(Bits(_FINE, "noise"),), sectors=4095)
_V2_ONLY = _stream("v2", (Disk("d", 4095, (_FINE,)),), _V2_BITS)
_V2_HALF = _stream(
    "v2",
    (Disk("d", 2049, (_FINE,)),),
    Block("d", 0, _NOISE, bits=(Bits(_FINE, "noise"),), sectors=2048),
    Block("d", 1, _NOISE),
)
# Its first record, of a chunk, has the bits of that chunk; those of the rest of the disk are in none.
_V2_PART = Block("d", 0, zero=True, bits=(Bits(_FINE, "clean"),), sectors=2048)
_UNNAMED = _stream(
    "v2",
    (Disk("", 2047, (_FINE,)),),
    Block("", 0, _NOISE, bits=(Bits(_FINE, "noise"),), sectors=2047),
)
_NO_BITS = _stream("qemu", (Disk("d", 5, (_FINE,)),), _zero(0), marks=_empty(_FINE))
_NO_DISK = _stream(
    "v1",
    (Disk("d", 2048), Disk("e", 2048, (_FINE,))),
    _zero(0),
    Block("e", 0, bits=(Bits(_FINE, "all"),), sectors=2048),
)
_SILENT = _stream(
    "qemu",
    (Disk("d", 5, (_FINE,)),),
    _zero(0),
    marks=(
        Mark("start", "d", _FINE),
        Mark("bits", "d", _FINE, 0, 5, Bits(_FINE, "all")),
        Mark("complete", "d", _FINE),
    ),
    progress="silent",
)
_LOST_BITMAP = _stream(
    "qemu",
    (Disk("d", 5, (_FINE, Bitmap("whole", 512))),),
    _zero(0),
    marks=(
        Mark("start", "d", _FINE),
        *(
            Mark(kind, "d", Bitmap("whole", 512), 0, 5, Bits(_FINE, "all"))
            for kind in ("start", "bits", "complete")
        ),
    ),
)

#: What a QEMU makes of two disks with a shared base; the end of the first one is as in the base.
_LEFT_OUT = _stream(
    "classic",
    (Disk("d", 4095), Disk("e", 8192)),
    Progress(0), _zero(0),
    Progress(33), _zero(0, "e"),
    Progress(49), _zero(2048, "e"),
    Progress(66), _zero(4096, "e"),
    Progress(83), _zero(6144, "e"),
    progress="skipped",
)  # fmt: skip
#: ... and of two disks of which the second one is all as in the base.
_ALL_LEFT_OUT = _stream(
    "classic",
    (Disk("d", 4095), Disk("e", 4095)),
    Progress(0), _zero(0), Progress(25), _zero(2048), Progress(75),
    progress="skipped",
)  # fmt: skip

CASES: dict[str, Plan] = {
    "whole-with-hints": _plan(_stream("classic", (_DISK,), _zero(0), _zero(2048)), "validate", ""),
    "gap-from-file": _plan(_GAP, "replay", "file", "new", ""),
    "gap-from-file-onto-image": _plan(_GAP, "replay", "file", "existing", ""),
    "gap-from-pipe": _plan(_GAP, "replay", "stdin", "new", ""),
    "gap-from-gzip": _plan(_GAP, "replay", "gzip", "new", ""),
    "lost-bitmap-from-file": _plan(_LOST_BITMAP, "replay", "file", "new", ""),
    "lost-bitmap-from-pipe": _plan(_LOST_BITMAP, "replay", "stdin", "new", ""),
    "contradicting-progress": _plan(
        _stream(
            "classic", (Disk("d", 2048),), _zero(775), Progress(0), _zero(0), progress="zero"
        ),
        "validate", "",
    ),
    "contradicting-progress-of-v2": _plan(
        _stream(
            "v2", (Disk("d", 2047, (_FINE,)),), _zero(1), Progress(0), _zero(0),
            Block("d", 0, bits=(Bits(_FINE, "all"),), sectors=2047), progress="zero",
        ),
        "validate", "",
    ),
    "left-out-end": _plan(_LEFT_OUT, "validate", "", hinted=False),
    "left-out-end-with-hints": _plan(_LEFT_OUT, "validate", "--incremental"),
    "left-out-disk-with-hints": _plan(_ALL_LEFT_OUT, "validate", ""),
    "left-out-disk-replayed": _plan(_ALL_LEFT_OUT, "replay", "file", "new", ""),
    "left-out-disks-behind": _plan(
        _stream(
            "classic",
            (Disk("d", 4096), Disk("e", 63), Disk("f", 2048)),
            Progress(0), _zero(0), Progress(32), _zero(2048), Progress(34), Progress(67),
            progress="skipped",
        ),
        "validate", "--incremental",
    ),
    "left-out-disks-with-bitmaps": _plan(
        _stream(
            "v1",
            (Disk("d", 4096), Disk("e", 2047, (_FINE,)), Disk("f", 2048)),
            Block("e", 0, bits=(Bits(_FINE),), sectors=2047), Block("f", 0, bits=(), sectors=2048),
            Progress(0), _zero(0), Progress(25), _zero(2048), Progress(49), Progress(74),
            progress="skipped",
        ),
        "validate", "",
    ),
    "left-out-disk-and-a-chunk": _plan(
        _stream(
            "classic", (Disk("d", 6144), Disk("e", 2048)),
            Progress(0), _zero(0), Progress(50), Block("d", 4096, _NOISE), Progress(75),
            progress="skipped",
        ),
        "scrub", "",
    ),
    "left-out-disks-and-a-start": _plan(
        _stream(
            "classic",
            (Disk("d", 4096), Disk("e", 2048), Disk("f", 4096)),
            Progress(20), _zero(2048), Progress(40), Progress(80),
            progress="skipped",
        ),
        "convert", "classic", "same", "translate",
    ),
    "left-out-disk-onto-image": _plan(_ALL_LEFT_OUT, "validate-image", "same", hinted=False),
    "v1-bits-behind-the-end": _plan(
        _stream(
            "v1", (Disk("d", 4096, (Bitmap("b", 4096),)),),
            Block("d", 0, bits=(Bits(Bitmap("b", 4096), "all"),), sectors=2048),
            Progress(100), Block("d", 51, _NOISE),
            Block("d", 2048, bits=(Bits(Bitmap("b", 4096), "all"),), sectors=2048), _zero(0),
            progress="skipped",
        ),
        "validate", "", hinted=False,
    ),
    "unknown-without-finding": _plan(
        _stream(
            "v2", (Disk("d", 2048, (_FINE,)),),
            Block("d", 0, bits=(Bits(_FINE, "all"),), sectors=2048),
        ),
        "validate", "", hinted=False,
    ),
    "unaligned-size": _plan(_UNALIGNED, "validate", "", hinted=False),
    "unaligned-scrub": _plan(_UNALIGNED, "scrub", ""),
    "compare-bits-of-a-part": _plan(
        _stream(
            "v2", (Disk("d", 4096, (_FINE,)),), _V2_PART, _zero(1024), _zero(2049),
            container="none",
        ),
        "compare", "same", "", "same", hinted=False,
    ),
    "compare-bits-of-all-but-an-end": _plan(
        _stream("v2", (Disk("d", 4095, (_FINE,)),), _V2_PART, _zero(2047), container="none"),
        "compare", "same", "", "same", hinted=False,
    ),
    "unaligned-compare": _plan(_UNALIGNED, "compare", "same", "", "none", hinted=False),
    "unaligned-validate-image": _plan(_UNALIGNED, "validate-image", "same", hinted=False),
    "unaligned-repeats": _plan(
        _stream("v2", (Disk("d", 5),), _zero(0), _zero(1), _zero(0)), "validate", ""
    ),
    "unaligned-to-v1": _plan(_V1_CUT, "convert", "v1", "same", "translate"),
    "unaligned-to-v2": _plan(
        _stream("v2", (Disk("d", 5),), _zero(0), Block("d", 3, _NOISE)),
        "convert", "v2", "same", "translate",
    ),
    "v1-cut-twice": _plan(_V1_CUT, "validate", ""),
    "v1-cut-twice-without-bits": _plan(
        _stream(
            "v1", (Disk("d", 1848, (_COARSE,)),),
            Block("d", 0, bits=(Bits(_COARSE, "all"),), sectors=1848), _zero(0), _zero(953),
        ),
        "compare", "same", "", "same",
    ),
    "v1-words-short": _plan(_V1_SHORT, "validate", ""),
    "v1-words-short-extracted": _plan(_V1_SHORT, "extract-bitmap", ""),
    "v1-open-bits-grow": _plan(_V1_GROWS, "map", "", hinted=False),
    "v1-past-a-tail": _plan(
        _stream(
            "v1", (Disk("d", 1397, (_FINE,)),),
            Block("d", 0, zero=True, bits=(Bits(_FINE),)), _zero(7), Block("d", 75, zero=True, bits=()),
        ),
        "replay", "file", "new", "", hinted=False,
    ),
    "v1-size-of-a-tail": _plan(
        _stream(
            "v1", (Disk("d", 1657, (_FINE,)),), Block("d", 0, zero=True, bits=(Bits(_FINE),))
        ),
        "replay", "file", "new", "", hinted=False,
    ),
    "v1-undecided-replay": _plan(_V1_OPEN, "replay", "file", "new", "", hinted=False),
    "v1-undecided-extract": _plan(_V1_OPEN, "extract", "--allow-incomplete", hinted=False),
    "bitmap-without-bits": _plan(_NO_BITS, "validate", ""),
    "bitmap-without-bits-extracted": _plan(_NO_BITS, "extract-bitmap", ""),
    "bitmap-without-bits-replayed": _plan(_NO_BITS, "replay", "file", "new", ""),
    "convert-states-a-guess": _plan(
        _stream(
            "classic", (Disk("d", 809),), Progress(0), Block("d", 0, _NOISE),
            Block("d", 425, _NOISE), progress="true",
        ),
        "convert", "v2", "same", "translate", hinted=False,
    ),
    "eos-beside-a-chunk": _plan(
        _stream("classic", (Disk("d", 2048),), _zero(0), beside=True),
        "convert", "classic", "same", "translate",
    ),
    "the-end-passed-over-before-an-unaligned-chunk": _plan(
        _stream(
            "classic", (_DISK,), Progress(0), _zero(0), Progress(100), _zero(1), progress="skipped"
        ),
        "validate", "", hinted=False,
    ),
    "the-end-passed-over-and-sent-later": _plan(
        _stream(
            "classic", (_DISK, Disk("e", 2048)), Progress(0), _zero(0), Progress(66), _zero(0, "e"),
            _zero(2048), progress="skipped",
        ),
        "replay", "file", "new", "",
    ),
    "convert-ragged": _plan(_RAGGED, "convert", "qemu", "same", "normalize"),
    "convert-ragged-to-v2": _plan(_RAGGED, "convert", "v2", "same", "normalize"),
    "convert-ragged-of-unknown-size": _plan(
        _stream("classic", (Disk("d", 4096),), Block("d", 1, _NOISE)),
        "convert", "classic", "same", "normalize", hinted=False,
    ),
    "convert-makes-a-disk": _plan(_NO_DISK, "convert", "v1", "same", "normalize"),
    "convert-only-bitmaps-to-bare-records": _plan(
        _stream(
            "qemu", (_DISK,),
            marks=(
                Mark("start", "d", _FINE),
                Mark("bits", "d", _FINE, 0, 4096, Bits(_FINE, "all")),
                Mark("complete", "d", _FINE),
            ),
        ),
        "convert", "v2", "none", "normalize", hinted=False,
    ),
    "convert-two-disks-to-bare-records": _plan(
        _stream(
            "qemu", (Disk("d", 2048, (_FINE,)), Disk("e", 5, (_FINE,))), _zero(0),
            marks=(
                Mark("start", "d", _FINE),
                Mark("bits", "d", _FINE, 0, 2048, Bits(_FINE, "all")),
                Mark("complete", "d", _FINE),
                Mark("start", "e", _FINE),
                Mark("bits", "e", _FINE, 0, 5, Bits(_FINE, "all")),
                Mark("complete", "e", _FINE),
            ),
        ),
        "convert", "v2", "none", "normalize", hinted=False,
    ),
    "convert-unnamed-bitmap": _plan(_UNNAMED, "convert", "qemu", "same", "translate"),
    "convert-without-last-progress": _plan(_SILENT, "convert", "v2", "same", "translate"),
    "salvage-size": _plan(
        _stream("classic", (Disk("d", 2049),), _zero(0), _zero(2048)),
        "salvage", "--allow-incomplete",
    ),
    "salvage-beside-a-bitmap-without-bits": _plan(
        _stream(
            "qemu", (Disk("d", 23, (_FINE, _COARSE)),), _zero(6), _zero(0),
            marks=(
                Mark("start", "d", Bitmap("empty", 512)),
                Mark("complete", "d", Bitmap("empty", 512)),
                Mark("start", "d", _FINE),
                Mark("bits", "d", _FINE, 0, 23, Bits(_FINE, "all")),
                Mark("complete", "d", _FINE),
            ),
        ),
        "salvage", "--allow-incomplete", hinted=False,
    ),
    "salvage-ragged": _plan(_RAGGED, "salvage", "--incremental"),
    "salvage-v2-bitmaps": _plan(_V2_ONLY, "salvage", "--allow-incomplete", hinted=False),
    "salvage-half-a-bitmap": _plan(_V2_HALF, "salvage", "--allow-incomplete"),
    "salvage-without-last-progress": _plan(
        _stream("v2", (Disk("d", 4095, (_FINE,)),), _V2_BITS, progress="silent"),
        "salvage", "--allow-incomplete",
    ),
    "salvage-unnamed-bitmap": _plan(_UNNAMED, "salvage", "--allow-incomplete"),
}  # fmt: skip
