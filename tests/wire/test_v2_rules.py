"""The rules of v2: each at its bounds, and what the errors state."""

import struct

import pytest

from blkmig_cli import limits
from blkmig_cli.errors import MalformedError, StreamError, TruncatedError
from blkmig_cli.schemas.constants import V2_BITS_MAX
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Block
from blkmig_cli.wire.hints import Hints
from tests.support import raw
from tests.support.feed import in_file

pytestmark = pytest.mark.usefixtures("engine")


def record(
    sector: int, sectors: int, *bitmaps: tuple[str, int, int, bytes], flags: int = 0x60
) -> bytes:
    return raw.block(sector, flags, rest=raw.v2(sectors, *bitmaps))


def read(data: bytes, hints: Hints | None = None) -> list[Block]:
    found = list(Decoder(in_file(data + raw.EOS), hints=hints))
    return [event for event in found if isinstance(event, Block)]


def refused(data: bytes) -> StreamError:
    with pytest.raises(StreamError) as error:
        read(data)
    return error.value


def of(granularity: int, length: int, attributes: int = 1) -> tuple[str, int, int, bytes]:
    return ("b", attributes, granularity, bytes(length))


GOOD = {
    "the least range": record(0, 1, of(512, 8)),
    "a word and no more": record(0, 64, of(512, 8)),
    "a sector of the second word": record(0, 65, of(512, 16)),
    "a chunk of the finest": record(0, 2048, of(512, 256)),
    "the second of two chunks of a word": record(2048, 2048, of(32768, 8)),
    "a word of two chunks": record(0, 4096, of(32768, 8)),
    "a word and a chunk": record(2048, 4096, of(32768, 16)),
    "as many bits as are allowed": record(0, V2_BITS_MAX * 8, of(512, V2_BITS_MAX)),
    "clean": record(0, 2048, of(512, 0)),
    "no bitmaps": record(0, 2048),
    "all attributes": record(0, 2048, of(65536, 8, 3)),
    "the coarsest": record(0, 2048, of(1 << 31, 8)),
    "a chunk of data": record(0, 2048, of(65536, 8), flags=0x68),
    "the same end": record(0, 100, of(512, 16)) + record(0, 100, of(512, 16)),
    "up to the end": record(2048, 100, of(512, 16)) + record(0, 2048, of(512, 256)),
    "an end behind all": record(0, 2048, of(512, 256)) + record(2048, 1, of(512, 8)),
    "the end where it was": record(0, 100, of(512, 16)) + raw.block(99, 8),
    "two bitmaps, then one": record(0, 2048, ("a", 1, 65536, bytes(8)), of(65536, 8))
    + record(2048, 2048, of(65536, 8)),
    "none, then none": record(0, 2048) + record(2048, 2048),
    "each device has its bitmaps": record(0, 2048)
    + raw.block(0, 0x60, "e", raw.v2(2048, of(65536, 8))),
}


@pytest.mark.parametrize("name", GOOD)
def test_accepted(name: str) -> None:
    assert read(GOOD[name])


BAD = {
    "no sectors": (record(0, 0), "a range of 0 sectors", 0),
    "not on a chunk": (record(2049, 1), "the range does not start on a chunk", 2049),
    "data for more than a chunk": (
        record(2048, 2049, flags=0x70), "data for a range of 2049 sectors", 2048),
    "zeros for more than a chunk": (
        record(0, 4096, flags=0x68), "data for a range of 4096 sectors", 0),
    "two ends": (
        record(0, 100) + record(2048, 1), "the disk ends at sector 2049 here, at 100 at byte 0",
        2048),
    "another end": (
        raw.block(0, 8) + record(0, 100) + record(0, 99),
        "the disk ends at sector 99 here, at 100 at byte 10", 0),
    "a range past the end": (
        record(0, 100) + record(0, 2048),
        "records reach sector 2048, but the disk ends at 100 (stated at byte 0)", 0),
    "a record past the end": (
        record(0, 100) + raw.block(100, 8),
        "records reach sector 101, but the disk ends at 100 (stated at byte 0)", 100),
    "an end before a record": (
        raw.block(100, 8) + raw.block(7, 8) + record(0, 100),
        "records reach sector 101, but the disk ends at 100 (stated at byte 20)", 0),
    "an end before a range": (
        record(2048, 2048) + record(0, 2048) + record(2048, 2047),
        "records reach sector 4096, but the disk ends at 4095 (stated at byte 36)", 2048),
    "no name": (record(0, 8, ("", 1, 512, bytes(8))), "bitmap '': its name is empty", 0),
    "no name, and no granularity": (
        record(0, 8, ("", 1, 0, bytes(8))), "bitmap '': its name is empty", 0),
    "granularity 0": (
        record(0, 8, of(0, 8, 4)),
        "bitmap 'b': granularity 0 is not a power of two from 512 bytes to 2 GiB", 0),
    "too coarse": (
        record(0, 8, of(1 << 32 - 1, 8, 4)), "bitmap 'b': reserved flags 0x4 are set", 0),
    "two reserved flags": (
        record(2048, 8, of(512, 8, 0x87)), "bitmap 'b': reserved flags 0x84 are set", 2048),
    "a new name": (
        record(0, 2048, of(512, 0)) + record(2048, 8, ("c", 1, 512, bytes(8))),
        "bitmap 'c': it was not named in the device's first record with bitmaps", 2048),
    "a name after none": (
        record(0, 2048) + record(2048, 8, of(512, 8)),
        "bitmap 'b': it was not named in the device's first record with bitmaps", 2048),
    "another granularity": (
        record(0, 2048, of(512, 0)) + record(2048, 8, of(1024, 8)),
        "bitmap 'b': granularity 1024, it was 512 before", 2048),
    "twice": (
        record(2048, 64, of(512, 8), of(512, 8)), "bitmap 'b' twice in one record", 2048),
    "too few bits": (
        record(2048, 65, of(512, 8)), "bitmap 'b': 8 bytes of bits for 65 sectors, 16 are needed",
        2048),
    "too many bits": (
        record(0, 64, of(512, 16)), "bitmap 'b': 16 bytes of bits for 64 sectors, 8 are needed",
        0),
    "part of a word": (
        record(0, 64, of(512, 1)), "bitmap 'b': 1 bytes of bits for 64 sectors, 8 are needed", 0),
    "more bits than are allowed": (
        record(0, (V2_BITS_MAX + 8) * 8, of(512, V2_BITS_MAX + 8)),
        "bitmap 'b': 1048584 bytes of bits, 1048576 are allowed", 0),
    "more bitmaps than are allowed": (
        raw.block(2048, 0x60, rest=struct.pack(">II", 8, 65536)),
        "65536 bitmaps in one record, 65535 are allowed", 2048),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_refused(name: str) -> None:
    data, message, sector = BAD[name]
    error = refused(data)
    assert isinstance(error, MalformedError)
    assert (error.message, error.device, error.sector) == (message, "d", sector)
    assert error.check == "v2-rules"


def test_as_many_bitmaps_as_are_allowed() -> None:
    error = refused(raw.block(2048, 0x60, rest=struct.pack(">II", 8, 65535)))
    assert isinstance(error, TruncatedError)


ONE, TWO = ((("a", 1, 512, b""), ("b", 1, 512, b""))[:number] for number in (1, 2))


@pytest.mark.parametrize(
    ("devices", "number"), [({"d": ONE}, 1), ({"d": TWO}, 2), ({"d": ONE, "e": TWO}, 3)]
)
@pytest.mark.parametrize("most", [1, 2, 3])
def test_bitmaps_of_all_devices(
    devices: dict[str, tuple[tuple[str, int, int, bytes], ...]],
    number: int,
    most: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They count in the first record of a device, not in further ones."""
    monkeypatch.setattr(limits, "BITMAPS_MAX", most)
    data = b"".join(
        raw.block(0, 0x60, device, raw.v2(2048, *bitmaps)) * 3
        for device, bitmaps in devices.items()
    )
    if number <= most:
        assert len(read(data)) == 3 * len(devices)
    else:
        error = refused(data)
        assert (error.message, error.check) == (f"over {most} bitmaps", "limit")


@pytest.mark.parametrize(
    ("first", "size", "sector", "sectors"),
    [
        (record(0, 2048), None, 2048, 2048),
        (record(0, 2048), 5 << 20, 2048, 2048),
        (record(0, 2048), 4096 * 512 - 1, 2048, 2048),
        (record(0, 2048), 2050 * 512, 2048, 2),
        (record(0, 2048), 2050 * 512 + 1, 2048, 3),
        (record(0, 2048), 2048 * 512, 2048, 0),
        (record(10 * 2048, 1), None, 2048, 2048),
        (record(2048, 100), None, 2048, 100),
        (record(2048, 100), None, 2147, 1),
        (record(2048, 100), 1 << 30, 2048, 100),
        (record(2048, 100), 2050 * 512, 2048, 2),
    ],
)
def test_sectors_of_a_record_without_a_range(
    first: bytes, size: int | None, sector: int, sectors: int
) -> None:
    """Up to the end of the chunk, and of the disk, whichever says it."""
    hints = Hints({} if size is None else {"d": size})
    found = read(first + raw.block(sector, 8), hints)[-1]
    assert (found.sectors, found.sectors_min) == (sectors, sectors)


def zeros(*sectors: int) -> bytes:
    """Such blocks inside of chunks, five sectors behind those."""
    return b"".join(raw.block(sector + 5, 8) for sector in sectors)


UP = [2048 * at for at in range(30)]
RUNS = {
    "zeros": (zeros(*UP), UP[-1] + 6),
    "zeros from above": (zeros(*UP[::-1]), UP[-1] + 6),
    "zeros below the highest": (zeros(UP[-1]) + zeros(*UP[:20]), UP[-1] + 6),
    "zeros below the highest, from above": (zeros(UP[-1]) + zeros(*UP[19::-1]), UP[-1] + 6),
    "ranges": (b"".join(record(sector, 2048, of(512, 0)) for sector in UP), UP[-1] + 2048),
    "ranges of two chunks": (
        b"".join(record(sector, 4096, of(512, 0)) for sector in UP), UP[-1] + 4096),
    "ranges from above": (
        b"".join(record(sector, 2048, of(512, 0)) for sector in UP[::-1]), UP[-1] + 2048),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("before", [b"", record(0, 2048, of(512, 0))])
def test_the_end_that_many_records_reach(name: str, before: bytes) -> None:
    """It is the same whether v2 is known before them, or from the end on."""
    data, reach = RUNS[name]
    for end, fits in ((reach, True), (reach - 1, False)):
        covered = end % 2048 or 2048
        whole = before + data + record(end - covered, covered, of(512, 0))
        if fits:
            assert read(whole)[-1].sectors == covered
        else:
            message = f"records reach sector {reach}, but the disk ends at {end} "
            assert refused(whole).message.startswith(message)
