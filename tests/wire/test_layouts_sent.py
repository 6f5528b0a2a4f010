"""Small streams in hex, derived by hand from the format's description: what send must write, to the byte.

One per dialect.  Spaces and line ends stand between fields; `z N` stands for N zero bytes.
"""

import re
from pathlib import Path

import pytest

from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, write_bitmaps
from tests.conftest import Run

MIB = 1 << 20


def unhex(text: str) -> bytes:
    text = re.sub(r"#.*", "", text)
    text = re.sub(r"z (\d+)", lambda match: "00" * int(match[1]), text)
    return bytes.fromhex(text)


# A disk of 1 MiB + 1024 bytes; the first byte is AA, the last BB.  A bitmap "b" of granularity
# 64 KiB with granules 0 and 16 dirty: 17 granules, one word 0x10001.
QEMU = """
5145564d 00000003                      # QEVM, 3
07 00000004 6e6f6e65                   # configuration: none
01 00000001 05 626c6f636b 00000000 00000001   # start 1, block, instance 0, version 1
0000000000000002 7e 00000001           # EOS, footer
01 00000002 0c 64697274792d6269746d6170 00000000 00000001   # start 2, dirty-bitmap
1c 06 647269766530 01 62 00010000 03   # START, drive0, b, 64 KiB, enabled and persistent
01 7e 00000002                         # EOS, footer
02 00000001                            # part 1
0000000000000004                       # progress 0
000000000000c604                       # progress 99: 2048 * 100 / 2050
0000000000000001 06 647269766530 aa z 1048575      # sector 0, data
0000000000000401 06 647269766530 z 1048575 bb      # the MiB that ends at the disk's end: sector 2
0000000000000002 7e 00000001
03 00000001 000000000000c804 0000000000000002 7e 00000001  # end 1: progress 100, EOS
03 00000002                            # end 2
4c 06 647269766530 01 62               # BITS, drive0, b
0000000000000000 00000802 0000000000000008 0100010000000000   # sectors 0+2050, 8 bytes
20                                     # COMPLETE, the same names
01 7e 00000002
00
06 0000000f 7b2264657669636573223a205b5d7d   # description: {"devices": []}
"""

CLASSIC = """
0000000000000004                       # progress 0
000000000000c604                       # progress 99
0000000000000001 06 647269766530 aa z 1048575
0000000000100001 06 647269766530 z 1023 bb z 1047552   # sector 2048, padded with zeros
000000000000c804 0000000000000002      # progress 100, EOS
"""

V1 = """
0000000000000004
000000000000c604
0000000000000031 06 647269766530       # sector 0: block, has block, has bitmaps
00000001 01 62 0100010000000000        # one bitmap: b, its only word, no length
aa z 1048575
0000000000100031 06 647269766530
00000001 01 62 0100010000000000        # the same word again
z 1023 bb z 1047552
000000000000c804 0000000000000002
"""

V2 = """
0000000000000061 06 647269766530       # sector 0: block, has bitmaps, sized
00000802 00000001                      # 2050 sectors (the disk's end), one bitmap
01 62 03 00010000 00000008 0100010000000000   # b, enabled and persistent, 64 KiB, 8 bytes
0000000000000004
000000000000c604
0000000000000011 06 647269766530 aa z 1048575 # bare data
0000000000100071 06 647269766530       # the last chunk states its range
00000002 00000000                      # 2 sectors, no bitmap
z 1023 bb z 1047552
000000000000c804 0000000000000002
"""


@pytest.mark.parametrize(
    ("dialect", "container", "expected"),
    [("qemu", "qemu", QEMU), ("classic", "none", CLASSIC), ("v1", "none", V1), ("v2", "none", V2)],
)
def test_send_writes_the_format(
    run: Run, tmp_path: Path, dialect: str, container: str, expected: str
) -> None:
    size = MIB + 1024
    image, stream = tmp_path / "disk.img", tmp_path / "s.bin"
    image.write_bytes(b"\xaa" + bytes(size - 2) + b"\xbb")
    bitmap = DirtyBitmap("b", 65536, persistent=True)
    bitmap.set_range(0, 1)
    bitmap.set_range(MIB, 1)
    write_bitmaps(f"{image}.bitmaps.json", BitmapFile(size, {"b": bitmap}))
    options = [] if dialect == "classic" else ["--bitmaps"]
    words = [
        "send",
        image,
        "--dialect",
        dialect,
        "--container",
        container,
        "--no-identity",
        "--to",
        stream,
    ]
    assert run(*words, *options).status == 0
    assert stream.read_bytes() == unhex(expected)


def test_zero_and_clean_in_v2(run: Run, tmp_path: Path) -> None:
    """Zero chunks without data; clean bitmaps are named once, and left out after that."""
    size = (4 << 30) + 2 * MIB  # more than one record of bits at 512 bytes
    image, stream = tmp_path / "disk.img", tmp_path / "s.bin"
    with open(image, "wb") as file:
        file.truncate(size)
    fine, clean = DirtyBitmap("f", 512), DirtyBitmap("c", 65536, recording=False)
    fine.set_range(4 << 30, 1)
    write_bitmaps(f"{image}.bitmaps.json", BitmapFile(size, {"f": fine, "c": clean}))
    words = ["send", image, "--bitmaps-only", "--dialect", "v2", "--container", "none"]
    assert run(*words, "--to", stream).status == 0
    assert stream.read_bytes() == unhex(
        """
        0000000000000061 06 647269766530 00800000 00000002
        01 66 01 00000200 00000000             # f: clean here
        01 63 00 00010000 00000000             # c: clean
        0000000100000061 06 647269766530 00001000 00000001
        01 66 01 00000200 00000200 01 z 511    # f: 4096 granules, the first dirty
        000000000000c804 0000000000000002
        """
    )
