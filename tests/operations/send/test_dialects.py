"""What ``send`` writes, to the byte: each dialect, with bitmaps and without."""

import struct

import pytest

from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.disk import Disk
from blkmig_cli.operations.send.dialects import DIALECTS, V2, bitmap_chunks, bitmap_starts
from blkmig_cli.operations.send.stream import SendOptions, send_events
from blkmig_cli.schemas.constants import V2_BITS_MAX
from blkmig_cli.transport.payloads import literal
from blkmig_cli.transport.target import resolve_content
from blkmig_cli.wire.events import Payload
from tests.support import raw
from tests.support.feed import encoded
from tests.support.strategies import MemoryImage

MIB = 1 << 20
ONES, TWOS = b"\1" * MIB, b"\2" * MIB
#: A chunk of data, one of zeros, and one that the disk's end cuts.
CUT = ONES + bytes(MIB) + b"\2" * 512


def disk(
    content: bytes = CUT, *bitmaps: DirtyBitmap, device: str = "d", partial: bool = False
) -> Disk:
    return Disk(device, MemoryImage(content), list(bitmaps), partial)


def bitmap(
    name: str, *dirty: tuple[int, int], granularity: int = 65536, recording: bool = True,
    persistent: bool = False,
) -> DirtyBitmap:  # fmt: skip
    made = DirtyBitmap(name, granularity, recording, persistent)
    for start, length in dirty:
        made.set_range(start, length)
    return made


def bits(*numbers: int, words: int = 1) -> bytes:
    return sum(1 << number for number in numbers).to_bytes(8 * words, "little")


def sent(*disks: Disk, dialect: str = "qemu", container: str = "none", **options: object) -> bytes:
    return encoded(send_events(list(disks), SendOptions(dialect, container, **options)))  # type: ignore[arg-type]


def progress(*percents: int) -> bytes:
    return b"".join(map(raw.progress, percents))


# -- classic and qemu: blocks alone


def test_blocks_of_classic() -> None:
    """The chunk that the end cuts is padded with zeros; for QEMU, it is moved to end with the disk."""
    first = progress(0, 49, 99) + raw.block(0, 0, rest=ONES) + raw.block(2048, 8)
    last = raw.block(4096, 0, rest=b"\2" * 512 + bytes(MIB - 512))
    assert sent(disk(), dialect="classic") == first + last + progress(100) + raw.EOS
    moved = raw.block(2049, 0, rest=bytes(MIB - 512) + b"\2" * 512)
    assert sent(disk(), dialect="qemu") == first + moved + progress(100) + raw.EOS


def test_zeros_as_data() -> None:
    data = raw.block(0, 0, rest=ONES) + raw.block(2048, 0, rest=bytes(MIB))
    last = raw.block(4096, 0, rest=b"\2" * 512 + bytes(MIB - 512))
    expected = progress(0, 49, 99) + data + last + progress(100) + raw.EOS
    assert sent(disk(), dialect="classic", zero_blocks=False) == expected


def test_holes_are_left_out() -> None:
    """QEMU moves no last chunk over one that is left out."""
    data = raw.block(0, 0, rest=ONES) + raw.block(4096, 0, rest=b"\2" * 512 + bytes(MIB - 512))
    expected = progress(0, 99) + data + progress(100) + raw.EOS
    for dialect in ("classic", "qemu"):
        assert sent(disk(), dialect=dialect, skip_unallocated=True) == expected


# -- v1: bits in every record


V1_BITMAPS = (
    bitmap("a", (0, 1), (MIB, 65536), (2 * MIB, 1)),
    bitmap("b", (4096, 4096), (2 * MIB - 4096, 1), granularity=4096),
)


def v1_bits(chunk: int) -> bytes:
    a = bits(0, 16, 32)  # one word, for all of them
    b = [bits(1, words=4), bits(255, words=4), bits()][chunk]
    return raw.v1(("a", a), ("b", b))


def test_records_of_v1() -> None:
    expected = (
        raw.block(0, 0x30, rest=v1_bits(0) + ONES)
        + raw.block(2048, 0x28, rest=v1_bits(1))
        + raw.block(4096, 0x30, rest=v1_bits(2) + b"\2" * 512 + bytes(MIB - 512))
    )
    found = sent(disk(CUT, *V1_BITMAPS), dialect="v1")
    assert found == progress(0, 49, 99) + expected + progress(100) + raw.EOS


def test_bitmaps_alone_in_v1() -> None:
    expected = b"".join(raw.block(2048 * at, 0x20, rest=v1_bits(at)) for at in range(3))
    found = sent(disk(CUT, *V1_BITMAPS), dialect="v1", disks=False)
    assert found == progress(0, 49, 99) + expected + progress(100) + raw.EOS


def test_holes_in_v1_have_records_for_their_bits() -> None:
    found = sent(disk(CUT, *V1_BITMAPS), dialect="v1", skip_unallocated=True)
    assert raw.block(2048, 0x20, rest=v1_bits(1)) in found
    without = sent(disk(), dialect="v1", skip_unallocated=True)
    assert without == (
        progress(0, 99)
        + raw.block(0, 0x10, rest=ONES)
        + raw.block(4096, 0x10, rest=b"\2" * 512 + bytes(MIB - 512))
        + progress(100) + raw.EOS
    )  # fmt: skip


@pytest.mark.parametrize(
    ("data", "zero", "with_bitmaps", "flags"),
    [
        (True, False, True, 0x31),
        (True, False, False, 0x11),
        (False, True, True, 0x29),
        (False, True, False, 9),
        (False, False, True, 0x21),
        (False, False, False, None),
    ],
)
def test_flags_of_v1(data: bool, zero: bool, with_bitmaps: bool, flags: int | None) -> None:
    made = disk(CUT, *(V1_BITMAPS if with_bitmaps else ()))
    records = list(DIALECTS["v1"].records(made, 0, 2048, literal(ONES) if data else None, zero))
    assert [int(record.flags) for record in records] == ([] if flags is None else [flags])


# -- v2: bitmaps first, in ranges


def test_records_of_v2() -> None:
    """The range of the last record states the disk's size; it has no bitmaps."""
    flags = (
        bitmap("a", (0, 1), (2 * MIB, 1)),
        bitmap("b", recording=False),
        bitmap("c", (0, 1), recording=False, persistent=True),
        bitmap("e", persistent=True),
    )
    entries = raw.v2(
        4097,
        ("a", 1, 65536, bits(0, 32)),
        ("b", 0, 65536, b""),
        ("c", 2, 65536, bits(0)),
        ("e", 3, 65536, b""),
    )
    before = raw.block(0, 0x60, rest=entries)
    tail = raw.block(4096, 0x70, rest=raw.v2(1) + b"\2" * 512 + bytes(MIB - 512))
    blocks = raw.block(0, 0x10, rest=ONES) + raw.block(2048, 8)
    end = progress(100) + raw.EOS
    found = sent(disk(CUT, *flags), dialect="v2")
    assert found == before + progress(0, 49, 99) + blocks + tail + end
    assert sent(disk(), dialect="v2") == progress(0, 49, 99) + blocks + tail + end
    alone = sent(disk(CUT, *flags), dialect="v2", disks=False)
    assert alone.startswith(before)
    assert raw.name("d") not in alone[len(before) :]


def test_a_last_chunk_of_zeros_in_v2() -> None:
    found = sent(disk(ONES + bytes(1024)), dialect="v2")
    assert raw.block(2048, 0x68, rest=raw.v2(2)) in found


def test_ranges_of_bitmaps_in_v2() -> None:
    """As long as the bits of the finest bitmap allow; the first names all, others what is dirty."""
    fine, coarse = bitmap("a", granularity=512), bitmap("b", granularity=1 << 20)
    step = 8 * V2_BITS_MAX  # sectors
    assert V2.step([fine, coarse]) == V2.step([coarse, fine]) == step
    size = 3 * step * 512 + 512
    fine.set_range(step * 512, 512)
    fine.set_range(3 * step * 512, 512)
    coarse.set_range(2 * step * 512 - 1, 1)
    made = Disk("d", Sized(size), [fine, coarse])
    assert encoded(DIALECTS["v2"].before(made)) == b"".join(
        (
            raw.block(0, 0x60, rest=raw.v2(step, ("a", 1, 512, b""), ("b", 1, MIB, b""))),
            raw.block(
                step, 0x60,
                rest=raw.v2(
                    step,
                    ("a", 1, 512, bits(0, words=V2_BITS_MAX // 8)),
                    ("b", 1, MIB, bits(4095, words=64)),
                ),
            ),
            raw.block(2 * step, 0x60, rest=raw.v2(step)),
            raw.block(3 * step, 0x60, rest=raw.v2(1, ("a", 1, 512, bits(0)))),
        )
    )  # fmt: skip
    assert list(DIALECTS["v2"].before(disk())) == []


class Sized(MemoryImage):
    def __init__(self, size: int) -> None:
        super().__init__(b"")
        self._size = size

    @property
    def size(self) -> int:
        return self._size


def encoded_bits(payload: Payload) -> bytes:
    return b"".join(map(bytes, resolve_content(payload)))


def test_bits_beside_a_range_of_v2_are_zeros() -> None:
    """Where a granule is in two ranges, it is in both; others are in one."""
    step = V2.step([bitmap("a", granularity=512)])
    wide = bitmap("b", (step * 512 - 1, 2), granularity=1 << 31)
    made = Disk("d", Sized(2 * step * 512), [bitmap("a", granularity=512), wide])
    found = [
        [(part.name, encoded_bits(part.bits)) for part in record.bitmaps]
        for record in DIALECTS["v2"].before(made)
    ]
    assert found == [[("a", b""), ("b", bits(1))], [("b", bits(2))]]


@pytest.mark.parametrize(
    ("granularity", "step"),
    [
        (512, 8 * V2_BITS_MAX),
        (1024, 16 * V2_BITS_MAX),
        (512 << 8, 8 * V2_BITS_MAX << 8),
        (512 << 9, (1 << 32) - 2048),
        (1 << 31, (1 << 32) - 2048),
    ],
)
def test_the_longest_range_of_v2(granularity: int, step: int) -> None:
    assert V2.step([bitmap("a", granularity=granularity)]) == step


# -- the dirty-bitmap section


def test_starts_of_bitmaps() -> None:
    """Names come where they change."""
    disks = [
        disk(CUT, bitmap("a"), bitmap("b", recording=False, granularity=512)),
        disk(CUT, bitmap("b", persistent=True), device="e"),
        disk(CUT, bitmap("b", recording=False, persistent=True), device="f"),
    ]
    d, e, f, a, b = map(raw.name, "defab")
    assert encoded(bitmap_starts(disks)) == b"".join(
        (
            b"\x1c" + d + a + struct.pack(">IB", 65536, 1),
            b"\x14" + b + struct.pack(">IB", 512, 0),
            b"\x18" + e + struct.pack(">IB", 65536, 3),
            b"\x18" + f + struct.pack(">IB", 65536, 2),
        )
    )


def chunk(flags: int, names: bytes, sector: int, sectors: int, found: bytes = b"") -> bytes:
    head = bytes([flags]) + names + struct.pack(">QI", sector, sectors)
    return head + (struct.pack(">Q", len(found)) + found if found else b"")


def test_chunks_of_bits() -> None:
    """1 KiB of bits each, as in QEMU; one without bits states it."""
    step = 8192  # granules
    size = 3 * step * 512
    dirty = bitmap("a", (0, 512), (2 * step * 512, 512), granularity=512)
    clean = bitmap("b", granularity=512)
    made = Disk("d", Sized(size - 512), [dirty, clean])
    d, a, b = map(raw.name, "dab")
    assert encoded(bitmap_chunks([made])) == b"".join(
        (
            chunk(0x4C, d + a, 0, step, bits(0, words=128)),
            chunk(0x42, b"", step, step),
            chunk(0x40, b"", 2 * step, step - 1, bits(0, words=128)),
            b"\x20",
            chunk(0x46, b, 0, step),
            chunk(0x42, b"", step, step),
            chunk(0x42, b"", 2 * step, step - 1),
            b"\x20",
        )
    )


def test_bits_of_a_disk_of_few_granules() -> None:
    made = disk(bytes(65536 * 65), bitmap("a", (65536 * 64, 1)))
    assert encoded(bitmap_chunks([made])) == (
        chunk(0x4C, raw.name("d") + raw.name("a"), 0, 128 * 65, bits(64, words=2)) + b"\x20"
    )


def test_no_bits_of_a_disk_of_0_bytes() -> None:
    made = [disk(b"", bitmap("a")), disk(b"", bitmap("a"), device="e")]
    d, e, a = map(raw.name, "dea")
    assert encoded(bitmap_chunks(made)) == b"\x2c" + d + a + b"\x28" + e


# -- the container


def whole(*, blocks: bool = True, described: bytes = b'{"devices": []}') -> bytes:
    starts = b"\x1c" + raw.name("d") + raw.name("a") + struct.pack(">IB", 65536, 1) + b"\1"
    found = chunk(0x4C, raw.name("d") + raw.name("a"), 0, 4097, bits(0)) + b"\x20\1"
    out = raw.HEADER + raw.configuration()
    if blocks:
        out += raw.start(1, "block", 1, raw.EOS) + raw.footer(1)
    out += raw.start(2, "dirty-bitmap", 1, starts) + raw.footer(2)
    if blocks:
        moved = raw.block(2049, 0, rest=bytes(MIB - 512) + b"\2" * 512)
        records = progress(0, 49, 99) + raw.block(0, 0, rest=ONES) + raw.block(2048, 8) + moved
        out += raw.part(1, records + raw.EOS) + raw.footer(1)
        out += raw.part(1, progress(100) + raw.EOS, kind=3) + raw.footer(1)
    out += raw.part(2, found, kind=3) + raw.footer(2)
    return out + raw.EOF + b"\6" + struct.pack(">I", len(described)) + described


def test_a_stream_in_the_container() -> None:
    made = disk(CUT, bitmap("a", (0, 1)))
    assert sent(made, container="qemu") == whole()
    assert sent(made, container="qemu", disks=False) == whole(blocks=False)
    described = b'{"devices": [], "blkmig": {"version": 1, "disks": {"d": {"size": 5}}}}'
    assert sent(made, container="qemu", sizes={"d": 5}) == whole(described=described)


def test_a_return_path_is_opened_before_the_sections() -> None:
    head = raw.HEADER + raw.configuration("pc")
    command = b"\x08" + struct.pack(">HH", 1, 0)
    found = sent(disk(), container="qemu", machine="pc", return_path=True)
    assert found.startswith(head + command + raw.start(1, "block", 1))


def test_parts_of_several_disks() -> None:
    """Eight chunks each; a part ends with its disk.  Progress is of all disks together."""
    one, other = disk(bytes(9 * MIB)), disk(ONES, device="e")
    found = sent(one, other, container="qemu", dialect="classic")
    assert found.count(raw.part(1, b"")[:5]) == 3
    first = progress(*range(0, 80, 10)) + b"".join(raw.block(2048 * at, 8) for at in range(8))
    second = progress(80) + raw.block(8 * 2048, 8)
    # QEMU counts a disk whose last chunk was sent only up to the start of that chunk.
    third = raw.block(0, 0, "e", ONES)
    assert raw.part(1, first + raw.EOS) + raw.footer(1) + raw.part(1, second + raw.EOS) in found
    assert raw.footer(1) + raw.part(1, third + raw.EOS) in found
