"""Block records: their fields, how the dialect is decided, the rules at their bounds, what errors state."""

import pytest

from blkmig_cli import limits
from blkmig_cli.errors import MalformedError, StreamError
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Block, BlockBitmap, Eos, Event, Payload, Progress
from blkmig_cli.wire.hints import Hints
from tests.support import raw
from tests.support.feed import in_file, piped

pytestmark = pytest.mark.usefixtures("engine")

DATA = b"\1" * raw.CHUNK
V1 = raw.v1(("b", bytes(8)))
V2 = raw.v2(2048, ("b", 1, 65536, bytes(8)))
KNOWN = Hints({}, {(None, "b"): 65536})


def read(data: bytes, hints: Hints | None = None, dialect: str = "auto") -> list[Event]:
    return list(Decoder(in_file(data), hints=hints, dialect=dialect, container="none"))


def blocks(data: bytes, hints: Hints | None = None, dialect: str = "auto") -> list[Block]:
    return [event for event in read(data, hints, dialect) if isinstance(event, Block)]


def refused(data: bytes, hints: Hints | None = None, dialect: str = "auto") -> StreamError:
    with pytest.raises(StreamError) as error:
        read(data, hints, dialect)
    return error.value


def test_the_fields_of_each() -> None:
    size = Hints({"ee": 5000 * 512}, {(None, "b"): 65536})
    two = raw.v1(("b", bytes(8)), ("cc", bytes(8)))
    data = (
        raw.block(4096, 0x38, "ee", two) + raw.block(2048, 0x10, "f", DATA) + raw.word(99, 4)
        + raw.word(7, 6) + raw.word(5, 2)
    )  # fmt: skip
    second = 8 + 3 + 4 + 2 + 8 + 3 + 8
    third = second + 10 + raw.CHUNK
    names = (
        BlockBitmap("b", 65536, None, Payload(17, 8)),
        BlockBitmap("cc", None, None, Payload(28, 8)),
    )
    assert read(data, size) == [
        Block(0, second, None, "ee", 4096, 904, 904, 0x39, "v1", None, names),
        Block(second, 10 + raw.CHUNK, None, "f", 2048, 2048, 2048, 0x11, "v1",
              Payload(second + 10, raw.CHUNK), ()),
        Progress(third, 8, None, 99, 4),
        Progress(third + 8, 8, None, 7, 6),
        Eos(third + 16, 8, None, 5 << 9 | 2),
    ]  # fmt: skip


def test_the_fields_of_v2() -> None:
    rest = raw.v2(100, ("b", 3, 512, bytes(16)), ("c", 0, 65536, b""))
    found = blocks(raw.block(2048, 0x70, rest=rest + DATA) + raw.EOS)
    bitmaps = (
        BlockBitmap("b", 512, 3, Payload(29, 16)),
        BlockBitmap("c", 65536, 0, Payload(56, 0)),
    )
    assert found == [
        Block(0, 56 + raw.CHUNK, None, "d", 2048, 100, 100, 0x71, "v2",
              Payload(56, raw.CHUNK), bitmaps)
    ]  # fmt: skip


ZERO, CLASSIC = raw.block(0, 8), raw.block(0, 0, rest=DATA)
DATA_V1, BITS_V1, BITS_V2 = (
    raw.block(0, 0x10, rest=DATA), raw.block(0, 0x28, rest=V1), raw.block(0, 0x68, rest=V2)
)  # fmt: skip


@pytest.mark.parametrize(
    ("records", "dialects"),
    [
        ([ZERO], [None]),
        ([ZERO, CLASSIC, ZERO], [None, "classic", "classic"]),
        ([ZERO, DATA_V1, ZERO], [None, "v1", "v1"]),
        ([ZERO, BITS_V1, raw.block(0, 0)], [None, "v1", "v1"]),
        ([ZERO, BITS_V2, DATA_V1], [None, "v2", "v2"]),
        ([DATA_V1, BITS_V2, DATA_V1], ["v1", "v2", "v2"]),
        ([DATA_V1, ZERO, BITS_V2], ["v1", "v1", "v2"]),
        ([raw.progress(1), raw.EOS, ZERO], [None]),
    ],
)
def test_the_dialect_of_each(records: list[bytes], dialects: list[str | None]) -> None:
    found = blocks(b"".join(records) + raw.EOS, KNOWN)
    assert [block.dialect for block in found] == dialects


SPOKEN = {
    "classic, v1": (CLASSIC, DATA_V1, "v1", "classic", 10),
    "classic, v1 bits": (CLASSIC, BITS_V1, "v1", "classic", 10),
    "classic, v2": (CLASSIC, BITS_V2, "v2", "classic", 10),
    "v1 bits, v2": (BITS_V1, BITS_V2, "v2", "v1", 10),
    "v1 bits, zeros, v2": (BITS_V1 + ZERO, BITS_V2, "v2", "v1", 10),
    "v1 alone, v2": (DATA_V1 + raw.block(0, 0x18), BITS_V2, "v2", "v1", 20 + raw.CHUNK),
    "twice v1 alone, v2": (
        DATA_V1 + raw.block(0, 0x18) * 2, BITS_V2, "v2", "v1", 20 + raw.CHUNK),
    "v1 end, v2": (DATA_V1 + raw.block(0, 0x0A), BITS_V2, "v2", "v1", 20 + raw.CHUNK),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOKEN)
def test_two_dialects(name: str) -> None:
    """The error names the record that shows the first one, or that which cannot be of the second."""
    before, record, spoken, dialect, decided = SPOKEN[name]
    error = refused(ZERO + before + record + raw.EOS, KNOWN)
    assert isinstance(error, MalformedError)
    assert error.message == (
        f"this record has dialect {spoken}, but the one at byte {decided} has dialect {dialect}"
    )
    assert (error.hint, error.check) == ("choose one with --dialect", "dialect")
    assert error.offset == len(ZERO + before)


@pytest.mark.parametrize(
    ("before", "hint"),
    [
        (b"", None),
        (ZERO, None),
        (ZERO + CLASSIC, "dialect classic was detected at byte 10; set another with --dialect"),
        (
            DATA_V1 + BITS_V2,
            f"dialect v2 was detected at byte {len(DATA_V1)}; set another with --dialect",
        ),
    ],
)
def test_unknown_flags_name_the_dialect(before: bytes, hint: str | None) -> None:
    error = refused(before + raw.word(0, 0x80), KNOWN)
    assert isinstance(error, MalformedError)
    assert (error.hint, error.check, error.offset) == (hint, "unknown-flags", len(before))
    fixed = refused(raw.block(0, 0x80), dialect="v1")
    assert (fixed.message, fixed.hint) == ("flags 0x80 are unknown in dialect v1", None)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_so_many_devices(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DEVICES_MAX", most)
    records = [raw.block(0, 8, device) for device in "aabb"]
    data = b"".join(records) + raw.EOS
    if most == 1:
        error = refused(data)
        assert (error.message, error.check, error.offset) == ("over 1 devices", "limit", 20)
    else:
        assert len(blocks(data)) == 4


@pytest.mark.parametrize(
    ("size", "sector", "sectors"),
    [
        (None, 1 << 40, 2048),
        (4096 * 512, 2048, 2048),
        (4096 * 512 - 1, 2048, 2048),
        (4095 * 512 + 1, 2048, 2048),
        (4095 * 512, 2048, 2047),
        (2049 * 512, 2048, 1),
        (2048 * 512, 2048, 0),
        (2047 * 512, 2048, 0),
        (2048 * 512, 0, 2048),
        (0, 0, 0),
    ],
)
def test_sectors_on_a_disk_of_a_size(size: int | None, sector: int, sectors: int) -> None:
    hints = Hints({} if size is None else {"d": size})
    (found,) = blocks(raw.block(sector, 8) + raw.EOS, hints)
    assert (found.sectors, found.sectors_min) == (sectors, sectors)


@pytest.mark.parametrize(
    ("size", "good"), [(2048 * 512, False), (2048 * 512 + 1, True), (2049 * 512, True)]
)
def test_bitmaps_past_the_end(size: int, good: bool) -> None:
    hints = Hints({"d": size}, {(None, "b"): 65536})
    data = raw.block(2048, 0x28, rest=V1) + raw.EOS
    if good:
        assert [block.sectors for block in blocks(data, hints)] == [1]
    else:
        error = refused(data, hints)
        assert error.message == "bitmaps past the disk's end have no length"
        assert (error.device, error.sector, error.hint) == ("d", 2048, "check --device-size")


@pytest.mark.parametrize(("sector", "good"), [(2048, True), (2049, False)])
def test_a_record_past_the_end_that_bits_show(sector: int, good: bool) -> None:
    """A record with fewer bits than others is the disk's last."""
    bits = [raw.block(at, 0x28, rest=raw.v1(("b", bytes(n)))) for at, n in ((0, 256), (2048, 8))]
    hints = Hints({}, {(None, "b"): 512})
    data = b"".join(bits) + raw.block(0, 8, "x" * 250) + raw.block(sector, 8) + raw.EOS
    if good:
        assert [(block.sectors_min, block.sectors) for block in blocks(data, hints)] == [
            (1985, 2048), (1, 64), (2048, 2048), (2048, 2048)
        ]  # fmt: skip
    else:
        error = refused(data, hints)
        assert error.message == "a block past the disk's end"
        assert (error.device, error.sector) == ("d", 2049)


UP = [2048 * at for at in range(30)]
CHUNKS = 20 * raw.CHUNK
ROWS: dict[str, tuple[bytes, dict[str | None, int]]] = {
    "zeros up to the end": (b"".join(raw.block(s, 8) for s in UP), {"d": CHUNKS}),
    "zeros up to an end inside": (b"".join(raw.block(s, 8) for s in UP), {"d": CHUNKS - 512}),
    "zeros past the end": (
        b"".join(raw.block(s, 8) for s in UP[::-1]), {"d": CHUNKS - 512}),
    "zeros at the end, from above": (
        b"".join(raw.block(s - 1, 8) for s in UP[:0:-1]), {"d": CHUNKS - 512}),
    "v1": (
        b"".join(raw.block(s, 0x28, rest=V1) for s in UP[:20]), {"d": CHUNKS - 512}),
    "v2": (b"".join(raw.block(s, 0x68, rest=V2) for s in UP), {"d": CHUNKS}),
    "v2 and zeros": (
        BITS_V2 + b"".join(raw.block(s, 8) for s in UP), {"d": CHUNKS - 512}),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_sectors_of_many(name: str) -> None:
    """Each has as many as it has alone."""
    data, sizes = ROWS[name]
    hints = Hints(dict(sizes), {(None, "b"): 65536})
    end = -(-sizes["d"] // 512)
    for found in blocks(data + raw.EOS, hints):
        ranged = found.flags & 0x40
        assert found.sectors == (2048 if ranged else min(max(end - found.sector, 0), 2048))


def wrapped(length: int, behind: bytes, letter: bytes = b"n", flags: int = 8) -> bytes:
    """The first record of a device whose name is longer than its length byte says."""
    return raw.word(0, flags | 1) + bytes([length % 256]) + letter * length + behind


NEXT = {
    "a record": raw.word(2048, 9) + bytes([300 % 256]) + b"n" * 300,
    "progress": raw.progress(100),
    "an end": raw.EOS,
}


@pytest.mark.parametrize("behind", NEXT)
@pytest.mark.parametrize(("length", "extra"), [(256, 256), (300, 256), (511, 256), (512, 512)])
@pytest.mark.parametrize("source", [in_file, piped])
def test_a_name_over_255_bytes(behind: str, length: int, extra: int, source: type) -> None:
    """Its record is refused at the next one, which is inside of the name."""
    following = raw.word(2048, 9) + bytes([length % 256]) + b"n" * length
    data = wrapped(length, following if behind == "a record" else NEXT[behind])
    with pytest.raises(StreamError) as error:
        list(Decoder(source(data), container="none"))
    name = "n" * (length % 256)
    assert error.value.message == (
        f"the device's name is {extra} bytes longer than its length byte says"
    )
    assert (error.value.device, error.value.check) == (name, "name-wrapped")
    assert error.value.hint == (
        "QEMU does this to names over 255 bytes; capture again with a shorter one"
    )


@pytest.mark.parametrize(
    "behind",
    [
        raw.progress(101),
        raw.word(0, 0x80),
        raw.EOS[:7],
        raw.word(2048, 9) + bytes([44]) + b"n" * 299 + b"m",
        raw.word(2048, 9) + bytes([43]) + b"n" * 300,
    ],
)
def test_what_is_no_name_over_255_bytes(behind: bytes) -> None:
    """Behind it, there is no record of the same name, and no end."""
    error = refused(wrapped(300, behind))
    assert error.check != "name-wrapped"


@pytest.mark.parametrize("letter", [b" ", b"\x7f", b"\0"])
def test_bytes_of_no_name(letter: bytes) -> None:
    data = wrapped(300, raw.EOS)
    for at in (53, 200, 308):
        changed = data[:at] + letter + data[at + 1 :]
        assert refused(changed).check != "name-wrapped"
    assert refused(data[:53] + b"!" + data[54:]).check == "name-wrapped"
