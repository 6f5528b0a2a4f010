"""Small inputs that are made to cost much: each under 10 MB, whatever is unpacked of it included.

``STREAMS`` gives each stream a name; ``hostile_files.py`` has other files.  Numbers are drawn from a fixed
seed, so that an input is always the same.
"""

import random
import struct
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from blkmig_cli import limits
from tests.support import raw

#: Bytes that no input reaches.
SIZE_MAX = 10_000_000
#: Bytes that one may have.
SIZE = 9_900_000
_ZERO = 9  # flags of a zero block

Words = NDArray[np.uint64]


def _random() -> np.random.Generator:
    return np.random.default_rng(7)


def _rows(words: Words, flags: int, device: str, rest: bytes = b"") -> bytes:
    """Records of one device, at the sectors ``words``."""
    tail = raw.name(device) + rest
    rows = np.zeros((len(words), 8 + len(tail)), np.uint8)
    rows[:, :8] = (
        (words << np.uint64(9) | np.uint64(flags)).astype(">u8").view(np.uint8).reshape(-1, 8)
    )
    rows[:, 8:] = np.frombuffer(tail, np.uint8)
    return rows.tobytes()


def _zeros(sectors: Words) -> bytes:
    return raw.qemu(_rows(sectors, _ZERO, "d"))


_CHUNKS = SIZE // 10  # zero blocks of a device with a name of one byte


def downwards() -> bytes:
    """Zero chunks from the last to the first, every other one."""
    return _zeros(np.arange(_CHUNKS, dtype=np.uint64)[::-1] * np.uint64(4096))


def at_random() -> bytes:
    """Zero chunks anywhere on a disk of 4 EiB."""
    return _zeros(_random().integers(0, 1 << 42, _CHUNKS, np.uint64) * np.uint64(2048))


def at_random_dense() -> bytes:
    """Zero chunks in no order, on a disk of few: each comes several times."""
    return _zeros(_random().integers(0, 1 << 18, _CHUNKS, np.uint64) * np.uint64(2048))


def unaligned() -> bytes:
    """Zero chunks on any sector of a disk of 4 EiB."""
    return _zeros(_random().integers(0, 1 << 53, _CHUNKS, np.uint64))


def overlapping() -> bytes:
    """Zero chunks on any sector of 64 GiB: each overlaps others."""
    return _zeros(_random().integers(0, 1 << 27, _CHUNKS, np.uint64))


def beyond() -> bytes:
    """Zero chunks further out than any file reaches."""
    return _zeros(_random().integers(1 << 54, 1 << 55, _CHUNKS, np.uint64))


def repeated() -> bytes:
    """Chunks with gaps in order, then the same ones in no order."""
    first = np.arange(_CHUNKS // 2, dtype=np.uint64) * np.uint64(4096)
    return _zeros(np.concatenate([first, _random().permutation(first)]))


def irregular() -> bytes:
    """Zero chunks of two devices and progress in no order, so that no two records are alike."""
    dice = random.Random(7)
    kinds = (lambda: raw.block(dice.randrange(1 << 33) * 2048, _ZERO, ""),
             lambda: raw.block(dice.randrange(1 << 33) * 2048, _ZERO, "e"),
             lambda: raw.progress(dice.randrange(101)))  # fmt: skip
    return raw.qemu(*filling(lambda: dice.choice(kinds)()))  # noqa: PLW0108 (drawn anew each time)


def filling(piece: Callable[[], bytes], size: int = SIZE) -> list[bytes]:
    """Pieces that together have nearly ``size`` bytes."""
    pieces, length = [], 0
    while length < size - 300:
        pieces.append(piece())
        length += len(pieces[-1])
    return pieces


def progress_only() -> bytes:
    percents = _random().integers(0, 101, SIZE // 8, np.uint64)
    return raw.qemu((percents << np.uint64(9) | np.uint64(4)).astype(">u8").tobytes())


def progress_of_many_devices() -> bytes:
    """2,048 devices, then progress and a chunk in turn."""
    dice = random.Random(7)
    devices = [f"{at:x}" for at in range(2048)]
    heads = b"".join(raw.block(0, _ZERO, device) for device in devices)
    pairs = filling(
        lambda: raw.progress(dice.randrange(100)) + raw.block(4096, _ZERO, dice.choice(devices)),
        SIZE - len(heads),
    )
    return raw.qemu(heads, *pairs)


def empty_parts() -> bytes:
    """Parts of two sections, in no order, with nothing in them."""
    dice = random.Random(7)
    head = raw.HEADER + raw.configuration()
    for number in (1, 2):
        head += raw.start(number, "block" if number == 1 else "dirty-bitmap", 1)
        head += (raw.EOS if number == 1 else b"\1") + raw.footer(number)
    parts = (raw.part(1, raw.EOS) + raw.footer(1), raw.part(2, b"\1") + raw.footer(2))
    return head + b"".join(filling(lambda: dice.choice(parts))) + raw.EOF


def empty_parts_of_many() -> bytes:
    """Parts of five thousand sections, in no order, with nothing in them."""
    dice, numbers = random.Random(7), range(2, 5002)
    starts = b"".join(raw.start(at, "dirty-bitmap", 1, b"\1") + raw.footer(at) for at in numbers)
    head = raw.HEADER + raw.configuration() + starts

    def part() -> bytes:
        at = dice.choice(numbers)
        return raw.part(at, b"\1") + raw.footer(at)

    return b"".join([head, *filling(part, SIZE - len(head)), raw.EOF])


def many_sections() -> bytes:
    """65,000 sections whose state only a footer ends."""
    dice = random.Random(7)
    number = iter(range(1 << 16))

    def section() -> bytes:
        at = next(number)
        state = dice.randbytes(100)
        return raw.start(at, f"s{at}", 1, state, kind=4) + raw.footer(at)

    return raw.HEADER + b"".join(filling(section, 8_000_000)) + raw.EOF


def footers_that_end_nothing() -> bytes:
    """A state full of its own footer, none of them followed by what may follow."""
    state = (raw.footer(1) + b"\xff") * (SIZE // 6)
    return raw.HEADER + raw.start(1, "timer", 2, state, kind=4) + raw.footer(1) + raw.EOF


def ram_pages() -> bytes:
    """Zero pages with and without the name of their block."""
    dice = random.Random(7)

    def page() -> bytes:
        named = dice.random() < 0.5
        word = struct.pack(">Q", dice.randrange(1 << 20) << 12 | (2 if named else 0x22))
        return word + (raw.name("r") if named else b"") + b"\0"

    payload = b"".join(filling(page)) + struct.pack(">Q", 0x10)
    return raw.HEADER + raw.start(1, "ram", 4, payload) + raw.footer(1) + raw.EOF


def described(description: bytes) -> bytes:
    """A device's state, and the description that should size it."""
    state = raw.start(1, "timer", 2, bytes(50), kind=4) + raw.footer(1)
    head = raw.HEADER + state + raw.EOF
    return head + b"\x06" + struct.pack(">I", len(description)) + description


def description_of_lists() -> bytes:
    return described(b'{"devices": [' + b"[]," * (SIZE // 3 - 200) + b"[]]}")


def description_of_objects() -> bytes:
    return described(b'{"devices": [' + b'{"":0},' * (SIZE // 7 - 200) + b"{}]}")


def description_of_fields() -> bytes:
    """A device with as many fields as there is room for."""
    field = b'{"size":1},'
    return described(
        b'{"devices": [{"name": "a", "instance_id": 0, "fields": ['
        + field * (SIZE // len(field) - 200)
        + b'{"size":1}]}]}'
    )


def beginnings_of_a_description() -> bytes:
    """Nothing but the byte that begins a description, behind the end."""
    state = raw.start(1, "timer", 2, bytes(50), kind=4) + raw.footer(1)
    return raw.HEADER + state + raw.EOF + b"\x06" * (SIZE - 100)


def description_of_digits() -> bytes:
    """A size of 4,000 digits, times another, for a section that is in the stream."""
    digits = b"9" * 4000
    return described(
        b'{"devices": [{"name": "timer", "instance_id": 0, "fields": [{"size": '
        + digits + b', "array_len": ' + digits + b"}]}]}"
    )  # fmt: skip


# -- bitmaps of the dirty-bitmap section


def _bitmap(granularity: int, bits: bytes, device: str = "d") -> bytes:
    return raw.qemu(bitmaps=raw.bitmap_start(device, granularity=granularity) + bits + raw.COMPLETE)


def strewn_bits() -> bytes:
    """A bit here and there, each in a word of its own, in order."""
    number = SIZE // 29
    return _bitmap(512, b"".join(
        raw.bitmap_bits(at << 34 >> 4, 64, b"\1" + bytes(7)) for at in range(number)
    ))  # fmt: skip


def strewn_bits_at_random() -> bytes:
    dice = random.Random(7)
    return _bitmap(512, b"".join(
        filling(lambda: raw.bitmap_bits(dice.randrange(1 << 47) << 6, 64, dice.randbytes(8)))
    ))  # fmt: skip


def bits_in_every_megabyte() -> bytes:
    """One bit in each 64 KiB of bits: what segments of that size are worst for."""
    return _bitmap(512, b"".join(
        raw.bitmap_bits(at << 16, 64, bytes(4) + b"\1" + bytes(3)) for at in range(SIZE // 29)
    ))  # fmt: skip


def clear_bits() -> bytes:
    """Ranges without bits, in no order."""
    dice = random.Random(7)
    return _bitmap(512, b"".join(
        filling(
            lambda: b"\x42" + struct.pack(">QI", dice.randrange(1 << 47) << 6, dice.randrange(1, 1 << 32))
        )
    ))  # fmt: skip


def alternating_bits() -> bytes:
    """Bits that are dirty and clean in turn: as many ranges as there can be."""
    piece = 1024
    return _bitmap(512, b"".join(
        raw.bitmap_bits(at * piece * 8, piece * 8, b"\x55" * piece)
        for at in range(SIZE // (piece + 21))
    ))  # fmt: skip


def huge_granules() -> bytes:
    """Bits of 2 GiB each, dirty and clean in turn, over and over."""
    piece = 1016
    bits = b"\x55" * piece
    sectors = (1 << 32) - 1
    needed = ((sectors << 9) - 1 >> 31) // 64 * 8 + 8
    return _bitmap(1 << 31, b"".join(
        raw.bitmap_bits(at << 32, sectors, bits[:needed]) for at in range(SIZE // (needed + 21) // 2)
    ))  # fmt: skip


def many_bitmaps() -> bytes:
    """As many bitmaps as can be, one after the other, each with many dirty words."""
    words = SIZE // limits.BITMAPS_MAX // 29 - 2

    def bitmap(at: int) -> bytes:
        bits = (struct.pack(">QIQ", (at << 7 | word) << 30, 64, 8) for word in range(words))
        first = b"\x44" + raw.name(f"{at:x}") + next(bits) + b"\1" * 8
        return first + b"".join(b"\x40" + each + b"\1" * 8 for each in bits) + raw.COMPLETE

    numbers = range(limits.BITMAPS_MAX)
    starts = b"".join(raw.bitmap_start("d", f"{at:x}", 512) for at in numbers)
    return raw.qemu(bitmaps=starts + b"".join(map(bitmap, numbers)))


def _chunks(bitmaps: int, named: float, *, parted: bool = False) -> bytes:
    """Clean ranges of bitmaps in no order, of which a fraction name theirs."""
    dice = random.Random(7)
    starts = b"".join(raw.bitmap_start("d", f"{at:x}", 512) for at in range(bitmaps))

    def chunk() -> bytes:
        name = raw.name(f"{dice.randrange(bitmaps):x}") if dice.random() < named else b""
        sector, sectors = dice.randrange(1 << 30) * 64, dice.choice([64, 128])
        data = bytes([0x46 if name else 0x42]) + name + struct.pack(">QI", sector, sectors)
        return raw.part(2, data + b"\1") + raw.footer(2) if parted else data

    chunks = b"".join(filling(chunk, SIZE - len(starts)))
    if not parted:
        return raw.qemu(bitmaps=starts + chunks + raw.COMPLETE)
    head = raw.HEADER + raw.configuration() + raw.start(2, "dirty-bitmap", 1, starts + b"\1")
    return head + raw.footer(2) + chunks + raw.EOF


def bits_of_two() -> bytes:
    """Ranges of two bitmaps, half of which do not say of which one they are."""
    return _chunks(2, 0.5)


def bits_of_thousands() -> bytes:
    """Ranges of as many bitmaps as can be."""
    return _chunks(limits.BITMAPS_MAX, 0.9)


def parts_of_thousands() -> bytes:
    """A part for each range, of as many bitmaps."""
    return _chunks(limits.BITMAPS_MAX, 0.7, parted=True)


# -- dialect v2


def _v2(*records: bytes) -> bytes:
    return raw.qemu(*records)


def v2_strewn() -> bytes:
    """Records of one dirty word, far from each other."""
    dice = random.Random(7)

    def record() -> bytes:
        sector = dice.randrange(1 << 33) * 2048
        return raw.block(sector, 0x60, rest=raw.v2(2048, ("b", 1, 65536, b"\1" + bytes(7))))

    return _v2(*filling(record))


def v2_cleared() -> bytes:
    """Records that clear ranges as large as can be."""
    dice = random.Random(7)

    def record() -> bytes:
        sector = dice.randrange(1 << 33) * 2048
        return raw.block(sector, 0x60, rest=raw.v2(0xFFFFF800, ("b", 1, 512, b"")))

    return _v2(*filling(record))


def v2_many_bitmaps() -> bytes:
    """As many bitmaps as can be, named by every record."""
    maps = [(f"{at:x}", 1, 65536, b"") for at in range(limits.BITMAPS_MAX)]
    record = raw.v2(2048, *maps)
    return _v2(*(raw.block(at * 4096, 0x60, rest=record) for at in range(SIZE // len(record))))


def v2_giant() -> bytes:
    """A disk of 512 PiB, by one record."""
    return _v2(raw.block(0, 0x68, rest=raw.v2(2048, ("b", 1, 512, b""))),
               raw.block((1 << 50) - 2048, 0x68, rest=raw.v2(100)))  # fmt: skip


# -- dialect v1


def v1_names_everywhere() -> bytes:
    """Bits that read as the next bitmap's name at every eighth byte."""
    name = b"\7" + b"n" * 7
    records = [
        raw.block(at * 2048, 0x28, rest=struct.pack(">I", 1024) + name * 1025 * 4)
        for at in range(60)
    ]
    return raw.qemu(*records)


def v1_three_names() -> bytes:
    """1,024 bitmaps a record that have three names between them."""
    name = [b"\7" + bytes([letter]) * 7 for letter in b"abc"]
    dice = random.Random(7)
    pieces = b"".join(dice.choice(name) for _ in range(4 * 1025))
    records = [
        raw.block(at * 2048, 0x28, rest=struct.pack(">I", 1024) + pieces) for at in range(60)
    ]
    return raw.qemu(*records)


def v1_records_in_bits() -> bytes:
    """Bits that are records themselves, for as far as is looked ahead."""
    bits = bytes(8) + raw.progress(1) * 31
    records = [
        raw.block(at * 2048, 0x28, rest=raw.v1((f"b{at % 3}", bits), ("c", bits)))
        for at in range(SIZE // 560)
    ]
    return raw.qemu(*records)


def v1_coarse() -> bytes:
    """One coarse bitmap, whose words come again with other bits, everywhere."""
    dice = random.Random(7)
    number = SIZE // 24
    rows = []
    for at in range(number):
        bits = struct.pack("<Q", (1 << dice.randrange(64)) | (1 << at % 64))
        rows.append(raw.block((at * 7919 % number) * 2048, 0x28, rest=raw.v1(("b", bits))))
    return raw.qemu(*rows)


def v1_coarse_growing() -> bytes:
    """A coarse bitmap whose words gain a bit in every record."""
    number = SIZE // 24
    rows = []
    for at in range(number):
        bits = struct.pack("<Q", (1 << (at % 65)) - 1)
        rows.append(raw.block((number - at) * 2048, 0x28, rest=raw.v1(("b", bits))))
    return raw.qemu(*rows)


def v1_coarse_twice() -> bytes:
    """A coarse bitmap that is clean in all records, and dirty when they come again."""
    words = np.arange(SIZE // 48, dtype=np.uint64) * np.uint64(2048)
    return raw.qemu(
        *(_rows(words, 0x29, "d", raw.v1(("b", bits))) for bits in (bytes(8), b"\xff" * 8))
    )


def v1_fine() -> bytes:
    """Bitmaps of the finest granularity, of a disk whose size is not known."""
    dice = random.Random(7)
    number = iter(range(1 << 20))

    def record() -> bytes:
        return raw.block(next(number) * 2048, 0x28, rest=raw.v1(("b", dice.randbytes(256))))

    return raw.qemu(*filling(record))


def v1_many_coarse() -> bytes:
    """1,024 coarse bitmaps in each record."""
    maps = [(f"{at:03x}", struct.pack("<Q", at)) for at in range(1000)]
    record = raw.v1(*maps)
    return raw.qemu(
        *(raw.block(at * 2048, 0x28, rest=record) for at in range(SIZE // len(record) - 1))
    )


# -- bare, damaged, nested


def nearly_records() -> bytes:
    """Heads of records everywhere, behind damage, none of which leads on."""
    head = raw.block(2048, _ZERO, "d") + b"\xff"
    return raw.qemu(raw.block(0, _ZERO))[:-40] + b"\xff" * 64 + head * (SIZE // len(head) - 100)


def chains_of_records() -> bytes:
    """Behind damage, records that lead on for a while, over and over."""
    chain = b"".join(raw.block(at * 2048, _ZERO, "d") for at in range(3000)) + b"\xff" * 8
    return raw.qemu(raw.block(0, _ZERO))[:-40] + b"\xff" * 64 + chain * (SIZE // len(chain) - 1)


def sectors_past_any_disk() -> bytes:
    """Two zero chunks 4 EiB apart."""
    return raw.qemu(raw.block(0, _ZERO), raw.block((1 << 53) - 4096, _ZERO))


STREAMS: dict[str, Callable[[], bytes]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        downwards, at_random, at_random_dense, unaligned, overlapping, beyond, repeated, irregular,
        progress_only, progress_of_many_devices, empty_parts, empty_parts_of_many, many_sections,
        footers_that_end_nothing, ram_pages, description_of_lists, description_of_objects,
        description_of_fields, beginnings_of_a_description, description_of_digits, strewn_bits,
        strewn_bits_at_random,
        bits_in_every_megabyte, clear_bits, alternating_bits, huge_granules, many_bitmaps,
        bits_of_two, bits_of_thousands, parts_of_thousands,
        v2_strewn, v2_cleared, v2_many_bitmaps, v2_giant, v1_names_everywhere, v1_three_names,
        v1_records_in_bits, v1_coarse, v1_coarse_growing, v1_coarse_twice, v1_fine, v1_many_coarse,
        nearly_records,
        chains_of_records, sectors_past_any_disk,
    )
}  # fmt: skip
