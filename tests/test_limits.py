"""Claims of a hostile stream or file are refused, or take bounded memory, disk space and time."""

import gzip
import json
import lzma
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from blkmig_cli import limits
from blkmig_cli.contents.final_layout import EndState, Stretch
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import read_bitmaps
from blkmig_cli.disks.bitmap_words import Room
from blkmig_cli.errors import FailureError, LimitError
from blkmig_cli.ranges import IntervalSet
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.vm_description import parse_description
from tests.conftest import Outcome, Run, fails
from tests.support import raw, zstd
from tests.support.feed import events, in_file, piped
from tests.support.memory import memory_taken

MIB = 1 << 20
SOURCE = Path(limits.__file__).read_text()
NAMES = re.findall(r"^([A-Z0-9_]+) = ", SOURCE, re.MULTILINE)
#: What a bomb may take beside what the modules take; the allocator keeps some that was freed.
MEMORY = 90 * MIB


def test_every_limit_is_explained_and_used() -> None:
    assert re.findall(r"^#: [A-Z].*\.\n([A-Z0-9_]+) = ", SOURCE, re.MULTILINE) == NAMES
    package = Path(limits.__file__).parent
    code = "\n".join(path.read_text() for path in package.rglob("*.py"))
    for name in NAMES:
        assert f"limits.{name}" in code, name


# -- compressed bombs: each packs some hundred MiB into some hundred KiB

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lambda data: lzma.compress(data, preset=0),
    "zstd": zstd.compress,
}
HEAD = raw.HEADER + raw.configuration() + raw.start(1, "block", 1, raw.EOS) + raw.footer(1)


def bomb(packer: str, *pieces: tuple[bytes, int]) -> bytes:
    """Pieces, each so many times; as members (streams, frames) behind each other."""
    pack = PACKERS[packer]
    return b"".join(pack(piece) * times for piece, times in pieces)


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.long if name != "gzip" else []) for name in PACKERS
    ]
)
def packer(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def limited(run: Run, *words: object) -> Outcome:
    """Runs a command that may take little memory."""
    taken, outcome = memory_taken(lambda: run(*words))
    assert taken < MEMORY, f"{taken >> 20} MiB were taken"
    return outcome


def test_zeros_without_end_as_state(run: Run, tmp_path: Path, packer: str) -> None:
    """An unknown section, with four times as many bytes as the memory it may take."""
    path = tmp_path / "bomb"
    head = raw.HEADER + raw.start(1, "timer", 2, kind=4)
    path.write_bytes(bomb(packer, (head, 1), (bytes(16 * MIB), 24)))
    assert path.stat().st_size < MIB
    outcome = limited(run, "validate", path)
    assert outcome.status == 0
    assert "undecoded" in outcome.out


def test_zeros_without_end_as_data(run: Run, tmp_path: Path, packer: str) -> None:
    """400 chunks of data for a disk of one."""
    path, disk = tmp_path / "bomb", tmp_path / "disk"
    chunks = b"".join(raw.block(2048 * at, 0, rest=bytes(MIB)) for at in range(16))
    path.write_bytes(bomb(packer, (HEAD + raw.part(1, b""), 1), (chunks, 25)))
    disk.write_bytes(b"\1" * MIB)
    fails(limited(run, "replay", path, "--image", disk), 4, "past the disk's end")
    assert disk.stat().st_size == MIB
    made = {entry.name for entry in tmp_path.iterdir()} - {"bomb", "disk"}
    assert made == {"disk.replay.json"}  # that it broke off


def test_a_new_image_of_zeros_takes_no_room(run: Run, tmp_path: Path, packer: str) -> None:
    path, disk = tmp_path / "bomb", tmp_path / "disk"
    chunks = b"".join(raw.block(2048 * at, 0, rest=bytes(MIB)) for at in range(16))
    far = raw.block((limits.GROWTH_MAX >> 9) + 2048, 8)
    path.write_bytes(bomb(packer, (HEAD + raw.part(1, b""), 1), (chunks, 25), (far, 1)))
    fails(limited(run, "replay", path, "--image", disk, "--create"), 4, "specify --device-size")
    left = sum(entry.stat().st_blocks for entry in tmp_path.iterdir() if entry != path)
    assert left * 512 < MIB


XZ_DICTIONARY = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]


@pytest.mark.parametrize(
    ("kind", "packed"),
    [("xz", lzma.compress(raw.qemu(), filters=XZ_DICTIONARY)), ("zstd", zstd.wide(raw.qemu(), 30))],
)
def test_memory_to_unpack(run: Run, tmp_path: Path, kind: str, packed: bytes) -> None:
    """A few bytes that ask for 1 GiB of memory."""
    path = tmp_path / "packed"
    path.write_bytes(packed)
    outcome = limited(run, "validate", path)
    fails(outcome, 3, f"unpacking the {kind} data takes over 256 MiB of memory; unpack it with")


def test_xz_streams_and_padding(run: Run, tmp_path: Path) -> None:
    """As xz itself: streams behind each other, with padding; rubbish behind them is an error."""
    path, data = tmp_path / "packed", raw.qemu(raw.block(0, 8))
    packed = lzma.compress(data[:20]) + bytes(8) + lzma.compress(data[20:]) + bytes(4)
    path.write_bytes(packed)
    assert run("validate", path).status == 0
    path.write_bytes(packed + b"rubbish" * 9)
    fails(run("validate", path, "-q"), 3, "the xz data is damaged")


# -- counts that only limits bound


def sections(number: int) -> bytes:
    return raw.HEADER + b"".join(
        raw.start(at, "block", 1, raw.EOS) + raw.footer(at) for at in range(number)
    )


def section(payload: bytes, name: str = "block", version: int = 1) -> bytes:
    return raw.HEADER + raw.start(1, name, version, payload)


def bitmap_starts(number: int) -> bytes:
    return section(
        b"".join(raw.bitmap_start(bitmap=f"b{at}") for at in range(number)), "dirty-bitmap"
    )


def mem_size(number: int) -> bytes:
    return section(raw.word(1 << 31, 4) + (b"\1a" + struct.pack(">Q", 4096)) * number, "ram", 4)


COUNTS: dict[str, tuple[str, bytes, str]] = {
    "sections": ("SECTIONS_MAX", sections(9), "over 8 sections"),
    "devices": (
        "DEVICES_MAX", b"".join(raw.block(0, 8, f"d{at}") for at in range(9)), "over 8 devices"),
    "bitmaps": ("BITMAPS_MAX", bitmap_starts(9), "over 8 bitmaps"),
    "v2-bitmaps": (
        "BITMAPS_MAX",
        raw.block(0, 0x60, rest=raw.v2(2048, *((f"b{at}", 1, 65536, b"") for at in range(9)))),
        "over 8 bitmaps"),
    "v1-bitmaps": (
        "BITMAPS_MAX",
        b"".join(raw.block(0, 0x28, rest=raw.v1((f"b{at}", bytes(8)))) for at in range(9)),
        "no layout"),
    "ram-blocks": ("RAM_BLOCKS_MAX", mem_size(9), "over 8 RAM blocks"),
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("source", [in_file, piped])
def test_counts(
    monkeypatch: pytest.MonkeyPatch, name: str, source: Callable[[bytes], object]
) -> None:
    limit, data, words = COUNTS[name]
    # A v1 record is read in one way only where its granularities are given.
    hints = Hints({}, {(None, f"b{at}"): 65536 for at in range(9)})
    monkeypatch.setattr(limits, limit, 9)
    _, error = events(source(data), hints=hints)
    assert words not in (error or "")
    monkeypatch.setattr(limits, limit, 8)
    _, error = events(source(data), hints=hints)
    assert error is not None
    assert words in error


def test_zeros_behind_the_sizes_of_ram() -> None:
    """They read as blocks without a name or a length, for ever."""
    data: list[bytes | int] = [section(raw.word(1 << 31, 4), "ram", 4), 256 * MIB]
    taken, (_, error) = memory_taken(lambda: events(in_file(data)))
    assert error is not None
    assert "RAM blocks" in error
    assert taken < MEMORY


def test_a_subsection_comes_once() -> None:
    one = b"\5" + raw.name("configuration/uuid") + struct.pack(">I", 1) + bytes(16)
    data = raw.HEADER + raw.configuration() + one * 2
    _, error = events(in_file(data))
    assert error is not None
    assert "repeated" in error


def test_capabilities_without_names() -> None:
    """A count of 2**32 - 1 names, each of one byte: read up to a bound."""
    head = b"\5" + raw.name("configuration/capabilities") + struct.pack(">I", 1)
    data = raw.HEADER + raw.configuration() + head + b"\xff" * 4 + bytes(2 * limits.HEAD_MAX)
    _, error = events(in_file(data))
    assert error is not None
    assert "is over 65536 bytes" in error


def test_a_length_is_not_believed_before_its_bytes_come() -> None:
    """A pipe of a few bytes claims half the bound of one event."""
    source = piped(b"QEVM")
    taken, there = memory_taken(lambda: source.available(limits.PIPE_EVENT_MAX // 2))
    assert there == 4
    assert taken < 2 * MIB
    with pytest.raises(LimitError, match="save the stream to a file"):
        source.available(limits.PIPE_EVENT_MAX + 1)


# -- descriptions: JSON that sizes device state


@pytest.mark.parametrize(
    "device",
    [
        {"name": "a", "instance_id": 1e400, "fields": []},
        {"name": "a", "instance_id": 0, "subsections": [{"vmsd_name": "x" * 256}]},
        {"name": "a", "instance_id": 0, "subsections": [{"vmsd_name": "\ud800"}]},
        {"name": ["a"], "instance_id": 0, "fields": []},
        {"name": "a", "instance_id": 0, "fields": [{"size": -1}]},
        {"name": "a", "instance_id": 0, "fields": 5},
    ],
)
def test_devices_that_make_no_sense(device: dict[str, object]) -> None:
    """They are left out, and so sized by their footers."""
    good = {"name": "b", "instance_id": 0, "fields": [{"size": 3}]}
    found = parse_description(json.dumps({"devices": [device, good]}).encode())
    assert found == {("b", 0): 3}


def test_deep_descriptions() -> None:
    """Deeper than the interpreter goes, in JSON and in its reading."""
    deep = '{"vmsd_name": "a", "subsections": [' * 5000 + "]}" * 5000
    for text in ("[" * 100_000, f'{{"devices": [{{"name": "a", "instance_id": 0, {deep[1:]}]}}'):
        assert parse_description(b'{"devices": ' + text.encode()) is None
        assert parse_description(text.encode()) is None


def test_many_beginnings_of_a_description(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the last bytes begins a text that reaches the end, and is tried; some are enough."""
    tries = []
    monkeypatch.setattr(
        "blkmig_cli.wire.vm_description.parse_description", lambda text: tries.append(len(text))
    )
    state = raw.HEADER + raw.start(1, "timer", 2, kind=4)
    tail = b"".join(b"\6" + struct.pack(">I", 5 * at) for at in range(99, -1, -1))
    events(in_file(state + tail))
    assert len(tries) == limits.DESCRIPTION_TRIES_MAX


# -- what is held of a disk of which only the size is claimed


def strewn(number: int) -> bytes:
    """Bits of one word each, strewn over a disk of 4 EiB: 29 bytes a piece."""
    apart = (1 << 53) // number // 64 * 64
    bits = b"".join(raw.bitmap_bits(at * apart, 64, b"\1" + bytes(7)) for at in range(number))
    return raw.qemu(bitmaps=raw.bitmap_start(granularity=512) + bits + raw.COMPLETE)


def test_strewn_bits(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "strewn"
    path.write_bytes(strewn(3000))
    assert limited(run, "validate", path).status in (0, 1)


def test_bits_without_end(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bitmaps of a stream share a bound; what came before it is shown."""
    monkeypatch.setattr(Room, "__init__", lambda self: setattr(self, "left", MIB))
    path = tmp_path / "strewn"
    path.write_bytes(strewn(9000))
    outcome = run("validate", path)
    fails(outcome, 3, "MiB of bits (at byte ")
    assert "damaged" in outcome.out
    assert "[limit]" not in outcome.out  # said on stderr


def test_bitmaps_that_share_room() -> None:
    room = Room(1 << 20)
    first, second = (DirtyBitmap(name, 512, room=room) for name in "ab")
    first.set_range(0, 3 << 30)
    with pytest.raises(LimitError):
        second.set_range(0, 3 << 30)
    second.set_range(0, 1 << 30)


def test_a_file_of_huge_bitmaps(tmp_path: Path) -> None:
    """Some bytes of JSON that stand for a TiB of bits."""
    size, path = 1 << 52, tmp_path / "b.json"
    bitmap = {
        "granularity": 512, "recording": True, "persistent": False, "count": size,
        "dirty": [{"start": 0, "length": size}],
    }  # fmt: skip
    document = {"version": 1, "virtual-size": size, "bitmaps": [{"name": "a", **bitmap}]}
    path.write_text(json.dumps(document))

    def read() -> None:
        with pytest.raises(FailureError, match="bitmap 'a': bitmaps of over 1024 MiB of bits"):
            read_bitmaps(str(path))

    taken, _ = memory_taken(read)
    assert taken < MEMORY


def test_a_file_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BITMAPS_FILE_MAX", MIB)
    with pytest.raises(FailureError, match="over 1 MiB"):
        read_bitmaps("/dev/zero")


def test_disks_in_pieces(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RANGES_MAX", 8)
    held, state = IntervalSet(), EndState()
    for at in range(8):
        held.add(2 * at, 2 * at + 1)
        state.put(Stretch(2 * at, 2 * at + 1))
    with pytest.raises(LimitError, match="in over 8 pieces"):
        held.add(99, 100)
    with pytest.raises(LimitError, match="in over 8 pieces"):
        state.put(Stretch(99, 100))
    path = tmp_path / "s"
    path.write_bytes(raw.qemu(*(raw.block(4096 * at, 8) for at in range(30))))
    fails(run("validate", path), 3, "in over 8 pieces, more than any real one has (at byte ")


# -- inference of v1's layouts


def test_readings_are_bounded_by_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record after record has bits with many possible layouts."""
    monkeypatch.setattr(limits, "READINGS_TRIED_MAX", 50)
    bits = bytes(8) + raw.progress(1) * 3
    data = b"".join(raw.block(0, 0x28, rest=raw.v1((f"b{at}", bits))) for at in range(9))
    _, error = events(in_file(data))
    assert error is not None
    assert "over 50 layouts of the bitmaps are possible here" in error
    monkeypatch.undo()
    _, error = events(in_file(data))
    assert "over 50 layouts" not in (error or "")
