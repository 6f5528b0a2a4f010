"""What the targets share: seeds, and the loop."""

import gzip
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

from tests import raw

_CAPTURES = Path(__file__).parents[1] / "tests" / "captures"
#: A fuzzer's input is no longer than this: it holds whole records, and starts of captures.
MAX_LENGTH = 8192


def seeds(folder: Path) -> None:
    """Starts of all captures, and small streams of every dialect, as files in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for packed in _CAPTURES.glob("*.bin.gz"):
        with gzip.open(packed) as file:
            (folder / packed.stem).write_bytes(file.read(MAX_LENGTH))
    word = bytes(range(8))
    v1 = raw.v1(("b", word), ("c", word * 2))
    zeros = [raw.block(sector, 8) for sector in (0, 2048, 4096)]
    small = {
        "zeros": raw.qemu(raw.progress(0), *zeros * 8),
        "bare": b"".join(zeros) + raw.progress(100) + raw.EOS,
        "v1": raw.qemu(*(raw.block(sector, 0x28, rest=v1) for sector in (0, 2048, 4096, 6144) * 8)),
        "v2": raw.qemu(
            raw.block(0, 0x60, rest=raw.v2(4096, ("b", 1, 65536, word))),
            *(raw.block(sector, 0x68, rest=raw.v2(2048)) for sector in (0, 2048) * 12),
        ),
        "bitmaps": raw.qemu(
            bitmaps=raw.bitmap_start() + raw.bitmap_bits(0, 8192, word) + raw.COMPLETE
        ),
        "empty": raw.HEADER + raw.start(1, "block", 1, raw.EOS) + raw.footer(1)
        + (raw.part(1, raw.EOS) + raw.footer(1)) * 40 + raw.EOF,
    }  # fmt: skip
    for name, content in small.items():
        (folder / name).write_bytes(content)


def fuzz(target: Callable[[bytes], None]) -> None:
    """Run ``target`` on what libFuzzer makes; arguments are libFuzzer's."""
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
