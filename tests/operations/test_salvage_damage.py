"""Salvage against damage of every kind: what it gives was in the stream; what is far from it is found."""

import gzip
import random
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli.contents.stream_disk import Piece
from blkmig_cli.errors import StreamError, UsageError
from blkmig_cli.operations.salvage.result import Salvaged, SalvagedDisk
from blkmig_cli.operations.salvage.salvage import Salvage
from blkmig_cli.operations.salvage.search import Search
from blkmig_cli.progress import no_tick
from blkmig_cli.transport.inputs import FileInput
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Block
from blkmig_cli.wire.hints import Hints
from tests.conftest import Run, get_capture
from tests.support import raw
from tests.support.feed import in_file
from tests.support.long import examples
from tests.support.strategies import Repetitive, Sent, repetitive, streams

MIB = 1 << 20


def salvaged(data: bytes, hints: Hints | None = None) -> Salvaged:
    source, hints = in_file(data), hints or Hints()
    return Salvage("s", source, Decoder(source, hints=hints), hints).run(no_tick)


def noise(number: int) -> bytes:
    return random.Random(number).randbytes(4096) * (MIB // 4096)


def there(disk: SalvagedDisk) -> list[tuple[int, bytes]]:
    """Return the pieces of a disk that are intact, and where they begin."""
    return [
        (piece.start, piece_data)
        for piece in disk.image.pieces()
        if piece.kind != "missing"
        for piece_data in [disk.image.read(piece.start, piece.end - piece.start)]
    ]


def found_pieces(disk: SalvagedDisk) -> list[Piece]:
    return list(islice(disk.image.pieces(), 1000))


def chunks(found: Salvaged, device: str = "d") -> dict[int, bytes]:
    """The chunks of a disk that came whole."""
    given_: dict[int, bytes] = {}
    for disk in found.disks:
        if disk.device == device:
            for start, data in there(disk):
                for at in range(0, len(data), MIB):
                    given_[(start + at) // MIB] = data[at : at + MIB]
    return given_


def hints_of(sent: Sent) -> Hints:
    hints = Hints()
    for disk in sent.disks:
        hints.sizes[disk.device] = disk.size
        for bitmap in disk.bitmaps:
            hints.granularities[disk.device, bitmap.name] = bitmap.granularity
    return hints


@pytest.mark.scaled
@settings(max_examples=examples(20, 300))
@given(streams(), st.sampled_from(["cut", "remove", "insert", "ones"]), st.data())
def test_what_is_given_was_there(sent: Sent, how: str, data: st.DataObject) -> None:
    hints = hints_of(sent)
    records = [e for e in Decoder(in_file(sent.data), hints=hints) if isinstance(e, Block)]
    heads = {at for event in records for at in (event.offset, event.offset + 3, event.offset + 9)}
    places = st.integers(0, len(sent.data) - 1)
    at = data.draw(st.one_of(places, st.sampled_from(sorted(heads))) if heads else places)
    length = data.draw(st.sampled_from([1, 9, 500, 70_000]))
    rest = sent.data[at:] if how == "insert" else sent.data[at + length :]
    filling = {"ones": b"\xff" * length, "insert": random.Random(at).randbytes(length)}
    damaged = sent.data[:at] + (filling.get(how, b"") + rest if how != "cut" else b"")
    if not damaged.startswith(sent.data[:10]) and how != "cut":
        return  # nothing says what it is, or something else does
    try:
        found = salvaged(damaged, hints)
    except (StreamError, UsageError):
        return  # its dialect or layout cannot be inferred; or nothing of the disk is left
    hit = range(at, at + length) if how == "ones" else range(at, at)
    for disk in found.disks:
        truth = next((d for d in sent.disks if d.device == disk.device), None)
        if truth is None:
            continue  # the damage has renamed it, which breaks no rule
        for start, given_ in there(disk):
            true = truth.image.read(start, len(given_)).ljust(len(given_), b"\0")
            if given_ != true:
                # What was overwritten within data, or a sector's number, cannot be seen.
                assert any(
                    event.offset < hit.stop and hit.start < event.offset + event.length
                    for event in records
                ), (how, at, length, disk.device, start)
    if how == "cut":
        complete = [event for event in records if event.offset + event.length <= at]
        # What follows the last one must show that it is a record, or an end; see the next tests.
        shown = complete and complete[-1].offset + complete[-1].length + 264 <= at
        for event in complete if shown else complete[:-1]:
            if event.data is not None:
                assert event.sector // 2048 in {
                    start // MIB for d in found.disks if d.device == event.device
                    for start, _ in there(d)
                }  # fmt: skip


@pytest.mark.scaled
@settings(max_examples=examples(12, 400))
@given(repetitive())
def test_runs_give_what_their_events_do(stream: Repetitive) -> None:
    found: list[object] = []
    for rows in (FileInput.rows, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FileInput, "rows", rows)
            try:
                got = salvaged(stream.data, stream.hints)
            except (StreamError, UsageError) as error:
                found.append(str(error))
                continue
            disks = [
                (disk.device, disk.size, found_pieces(disk), [b.ranges(None) for b in disk.bitmaps])
                for disk in got.disks
            ]
            left = {device: list(sectors) for device, sectors in got.unconfirmed.items()}
            found.append((got.gaps, left, got.lost_bitmaps, disks))
    assert found[0] == found[1]


def bare(content: dict[int, bytes | None], device: str = "d") -> bytes:
    """Records without a container; None is a zero block."""
    return b"".join(
        raw.block(2048 * at, 8 if data is None else 0, device, data or b"")
        for at, data in content.items()
    )


BARE_END = raw.progress(100) + raw.EOS


@pytest.mark.long
def test_false_records_that_end_where_a_true_one_begins() -> None:
    """A file of zero blocks on the disk, whose last one ends with its chunk, just where damage is."""
    zeros = b"".join(raw.block(2048 * (at % 6), 8, "d") for at in range(MIB // 10))
    content = {0: noise(0), 1: zeros.rjust(MIB, b"x")} | {at: noise(at) for at in range(2, 7)}
    stream = bare(dict(content)) + BARE_END
    head = 10 + MIB
    for hole in (10, 16, 3000):
        found = salvaged(stream[:head] + b"\xff" * hole + stream[head + hole :])
        given_ = chunks(found)
        assert all(data == content[number] for number, data in given_.items())
        assert set(given_) == set(range(2, 7))  # not 0, which a false record names as well
        assert found.unconfirmed


@pytest.mark.long
def test_zero_blocks_far_behind_damage_are_found() -> None:
    stream = bare(dict.fromkeys(range(300_000))) + BARE_END
    at = 100_000 * 10 + 3
    found = salvaged(stream[:at] + b"\xff" * 30 + stream[at + 30 :])
    ((start, end),) = found.disks[0].missing()
    assert start // MIB in range(99_998, 100_001)
    assert end // MIB in range(100_003 + MIB // 10, 100_006 + MIB // 10)


@pytest.mark.parametrize("container", ["qemu", "none"])
def test_a_disk_that_begins_behind_damage(container: str) -> None:
    first = {at: noise(at) for at in range(3)}
    second = {at: noise(100 + at) for at in range(4)}
    records = bare(dict(first), "drive0") + bare(dict(second), "drive1")
    stream = records + BARE_END if container == "none" else raw.qemu(records)
    at = stream.index(raw.block(0, 0, "drive1"))
    found = salvaged(stream[:at] + b"\xff" * 5 + stream[at + 5 :])
    assert chunks(found, "drive0") == {0: first[0], 1: first[1]}
    assert chunks(found, "drive1") == {at: second[at] for at in (1, 2, 3)}


def test_a_cut_at_every_byte_behind_a_record() -> None:
    content = {at: noise(at) for at in range(2)}
    records = bare(dict(content))
    for stream in (records + BARE_END, raw.qemu(records), bare({2: noise(2)}) + records):
        at = stream.rindex(raw.block(2048, 0, "d")) + 10 + MIB
        for behind in range(min(40, len(stream) - at)):
            found = salvaged(stream[: at + behind])
            # Fewer bytes than a word may be what is left of those that were lost inside it.
            given = {1: content[1]} if behind >= 8 else {}
            assert {at: data for at, data in chunks(found).items() if at == 1} == given, behind


@pytest.mark.long
def test_bytes_lost_near_the_end() -> None:
    """They make the last record reach into what follows it, of which next to nothing may be left."""
    content = {at: noise(at) for at in range(3)}
    for stream in (bare(dict(content)) + BARE_END, raw.qemu(bare(dict(content)))):
        at = stream.rindex(raw.block(4096, 0, "d")) + 5000
        for lost in range(1, 80):
            found = salvaged(stream[:at] + stream[at + lost :])
            wrong = [chunk for chunk, data in chunks(found).items() if data != content[chunk]]
            # Where just as many bytes are lost as whole objects have, what is left is sound.
            assert not wrong or found.intact, lost


def test_a_sector_past_any_disk_is_damage() -> None:
    content = {at: noise(at) for at in range(6)}
    stream = bytearray(bare(dict(content)) + BARE_END)
    stream[2 * (10 + MIB)] = 0x7F
    found = salvaged(bytes(stream))
    assert not found.intact
    assert found.disks[0].size == 6 * MIB
    assert chunks(found) == {at: content[at] for at in (0, 3, 4, 5)}
    found = salvaged(bare(dict(content)) + BARE_END, Hints({"d": 4 * MIB}))
    assert "past the disk's end" in found.gaps[0].why


def test_garbage_that_is_made_of_records_does_not_end_the_search() -> None:
    content = {at: noise(at) for at in range(5)}
    records = [bare({at: data}) for at, data in content.items()]
    for garbage in (raw.block(0, 0, "d"), raw.block(0, 0, ""), raw.block(2048, 8, "e") + b"x"):
        hole = garbage * (2 * MIB // len(garbage))
        found = salvaged(b"".join(records[:2]) + hole + b"".join(records[2:]) + BARE_END)
        given_ = chunks(found)
        assert set(given_) >= {3, 4}
        assert all(data == content[at] for at, data in given_.items())


def test_a_dead_end_is_followed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of zero blocks on the disk: each of its records leads to the same dead end."""
    zeros = b"".join(raw.block(2048 * (at % 6), 8, "d") for at in range(MIB // 10))
    content = {0: noise(0), 1: zeros.ljust(MIB, b"x"), 2: noise(2), 3: noise(3), 4: noise(4)}
    stream = bare(dict(content)) + BARE_END
    at = stream.index(zeros[:100]) - 10
    walks: list[int] = []
    walk = Search._is_confirmed

    def counted(self: Search, decoder: Decoder, start: int, failed: set[int]) -> bool:
        walks.append(start)
        return walk(self, decoder, start, failed)

    monkeypatch.setattr(Search, "_is_confirmed", counted)
    found = salvaged(stream[:at] + b"\xff" * 10 + stream[at + 10 :])
    assert chunks(found) == {at: content[at] for at in (2, 3, 4)}
    assert len(walks) < 10


def test_what_is_lost_may_always_have_been_newer() -> None:
    """Even ten lost bytes can have been a zero block."""
    content: dict[int, bytes | None] = {at: noise(at) for at in range(5)}
    stream = bare(content) + bare(dict.fromkeys(range(3))) + bare({5: noise(5)}) + BARE_END
    at = stream.index(raw.block(0, 8, "d"))
    found = salvaged(stream[:at] + b"\xff" * 5 + stream[at + 5 :])
    assert found.outdated
    assert not salvaged(stream).outdated


def test_bits_of_a_bitmap_whose_start_nothing_confirms() -> None:
    """Without footers nothing confirms it, but all that follows of it may be intact."""
    start = raw.start(1, "block", 1, raw.EOS)
    part = raw.part(1, raw.block(0, 0, "d", noise(0)) + raw.EOS)
    maps = raw.start(2, "dirty-bitmap", 1, raw.bitmap_start() + b"\x01")
    more = [raw.part(1, raw.block(2048 * at, 0, "d", noise(at)) + raw.EOS) for at in range(1, 5)]
    bits = raw.bitmap_bits(0, 2048 * 5, bytes(16))
    names = raw.name("d") + raw.name("b")
    bits = bytes([bits[0] | 0x0C]) + names + bits[1:] + raw.COMPLETE
    end = raw.part(1, raw.progress(100) + raw.EOS, kind=3) + raw.part(2, bits + b"\x01", kind=3)
    sound = raw.HEADER + start + part + maps + b"".join(more) + end + raw.EOF
    assert [bitmap.name for bitmap in salvaged(sound).disks[0].bitmaps] == ["b"]
    damaged = raw.HEADER + start + part + maps + b"\xff" * 30 + b"".join(more) + end + raw.EOF
    found = salvaged(damaged)
    assert chunks(found) == {at: noise(at) for at in range(1, 5)}
    assert [bitmap.name for bitmap in found.disks[0].bitmaps] == ["b"]
    cut = damaged[: damaged.index(bits) + len(bits) - 1]
    assert [lost.name for lost in salvaged(cut).lost_bitmaps] == ["b"]


def test_a_packed_stream_gives_all_up_to_its_cut(run: Run, unpacked: Path, tmp_path: Path) -> None:
    capture = get_capture("classic-tail", unpacked)
    packed = gzip.compress(capture.data + random.Random(0).randbytes(100_000), mtime=0)
    cut = capture.data[: 2 * MIB + 300_000]
    path = tmp_path / "s.gz"
    # The first bytes of a member that ends inside what is stored as it is.
    path.write_bytes(gzip.compress(cut, 0, mtime=0)[:-8])
    found = run("salvage", path, *capture.hints(), "--output", "json")
    assert found.status == 1
    assert found.json["size"] == len(cut)
    path.write_bytes(packed[:-9])
    found = run("salvage", path, *capture.hints(), "--output", "json")
    assert found.json["size"] >= len(capture.data)


def test_a_disk_that_an_option_names_confirms_the_record_before() -> None:
    """Of two disks of one record each, the stream ends exactly behind the second record."""
    first = raw.progress(0) + raw.block(0, 0, "a", b"\1" * MIB) + raw.progress(50)
    data = first + raw.block(0, 0, "b", b"\2" * MIB)
    for sizes, given_ in (({"a": MIB, "b": MIB}, ["a"]), ({"a": MIB}, [])):
        hints = Hints()
        hints.sizes.update(sizes)
        try:
            found = [disk.device for disk in salvaged(data, hints).disks]
        except StreamError:
            found = []
        assert found == given_


@pytest.mark.parametrize(
    ("word", "confirms"),
    [
        (100 << 9 | 0x04, True),
        (101 << 9 | 0x04, False),
        (0x02, True),
        (101 << 9 | 0x02, False),
        (7 << 9 | 0x40, False),
        (7 << 9, False),
    ],
)
def test_a_word_before_a_cut_confirms_the_record_before(word: int, confirms: bool) -> None:
    """If it can be a progress or the end of a section's payload, which have no more than 100 %."""
    stream = bare({0: noise(0), 1: noise(1)}) + word.to_bytes(8, "big") + b"\xff"
    assert (1 in chunks(salvaged(stream))) == confirms


@pytest.mark.parametrize("footer", [b"", raw.footer(1)])
def test_a_footer_confirms_what_is_in_its_part(footer: bytes) -> None:
    start = raw.start(1, "block", 1, raw.EOS) + footer
    part = raw.part(1, raw.block(0, 0, "d", noise(0)) + raw.EOS) + footer
    found = salvaged(raw.HEADER + start + part + b"\xff" * 30)
    assert chunks(found) == ({0: noise(0)} if footer else {})
