"""Several streams in one input, one behind the other; and other bytes behind a stream."""

import gzip
import itertools
from pathlib import Path

import pytest

from blkmig_cli import limits
from blkmig_cli.errors import SeveralStreamsError, UndecidableError, UsageError
from blkmig_cli.transport.inputs import FileInput, PipeInput
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Event, Undecoded
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.several import decoder_of
from tests.conftest import Run, fails
from tests.support import raw
from tests.support.feed import events, in_file, piped

pytestmark = pytest.mark.usefixtures("engine")

SOURCES = [in_file, piped, lambda data: piped(data, [7, 1] * 100 + [70_001] * 40 + [1] * 300)]
DESCRIPTION = b"\x06\0\0\0\x0f" + b'{"devices": []}'
FULL = raw.qemu(raw.block(0, 0, rest=b"\1" * raw.CHUNK), raw.block(2048, 8)) + DESCRIPTION
SECOND = raw.qemu(raw.block(2048, 0, rest=b"\2" * raw.CHUNK))
SIZE = ["--device-size", "2M"]
BARE = raw.progress(0) + raw.block(0, 8) + raw.progress(100) + raw.EOS


def each(source: FileInput | PipeInput) -> list[tuple[int, list[Event]]]:
    """Where each stream begins, and its events."""
    found: list[tuple[int, list[Event]]] = []
    following: int | None = source.offset
    while following is not None:
        decoder = Decoder(source, chosen=True)
        found.append((following, list(decoder)))
        following = decoder.next_stream
        assert following in (None, source.offset)
    return found


CHAINS = {
    "qemu, qemu": (FULL, SECOND),
    "three": (FULL, SECOND, FULL),
    "bare, qemu": (BARE, SECOND),
    "qemu, bare": (SECOND, BARE),
    "padded": (FULL + bytes(3000), SECOND + bytes(70_000), FULL),
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("source", SOURCES)
def test_each_is_read(name: str, source: type) -> None:
    chain = CHAINS[name]
    starts = [0, *itertools.accumulate(map(len, chain))]
    found = each(source(b"".join(chain)))
    assert [start for start, _ in found] == starts[:-1]
    for start, end, stream, (_, content) in zip(starts, starts[1:], chain, found, strict=False):
        places = [event.offset for event in content] + [end]
        assert places[0] == start
        assert [one.offset + one.length for one in content] == places[1:]
        alone = [type(event) for event in Decoder(in_file(stream), chosen=True)]
        assert [type(event) for event in content] == alone


@pytest.mark.parametrize("name", CHAINS)
def test_they_are_refused_without_a_choice(name: str) -> None:
    chain = CHAINS[name]
    data = b"".join(chain)
    starts = [0, *itertools.accumulate(map(len, chain))][:-1]
    alone, _ = events(in_file(chain[0]))
    for source, shown in ((in_file(data), starts), (piped(data), starts[:2])):
        decoder = Decoder(source)
        assert len(list(itertools.islice(decoder, len(alone)))) == len(alone)
        with pytest.raises(SeveralStreamsError, match="--stream N") as refused:
            next(decoder)
        assert refused.value.starts == shown
        assert refused.value.exit_status == 2
        with pytest.raises(SeveralStreamsError):
            next(decoder)


def test_a_damaged_one_behind_is_counted() -> None:
    _, error = events(in_file(FULL + SECOND + SECOND[:-3]))
    assert error is not None
    assert f"3 streams, which begin at bytes 0, {len(FULL)}, {len(FULL + SECOND)};" in error


@pytest.mark.parametrize("source", SOURCES)
def test_one_is_chosen(source: type) -> None:
    data = FULL + SECOND + FULL
    for number, start in ((1, 0), (2, len(FULL)), (3, len(FULL + SECOND))):
        found = list(decoder_of(source(data), number, hints=Hints()))
        assert found[0].offset == start
        assert found[-1].type == ("eof" if number == 2 else "vm-description")
    with pytest.raises(UsageError, match="no stream 4, only 3 streams"):
        decoder_of(source(data), 4, hints=Hints())


def test_one_before_the_chosen_is_damaged() -> None:
    damaged = bytearray(FULL)
    damaged[damaged.index(raw.block(2048, 8)) + 7] = 0x80
    with pytest.raises(Exception, match="stream 1: flags 0x80") as error:
        decoder_of(in_file(bytes(damaged) + SECOND), 2, hints=Hints())
    assert getattr(error.value, "exit_status", None) == 3


#: A stream of v1 whose layout only hints can tell, and these.
HELD = raw.qemu(raw.block(0, 0x20, rest=raw.v1(("b", bytes(8) + raw.progress(1)))))
HINTS = Hints({"d": raw.CHUNK}, {(None, "b"): 8192})


def test_hints_are_for_each() -> None:
    """Also for those that are only counted, and those before the chosen one."""
    data = SECOND + HELD + FULL
    starts = [0, len(SECOND), len(SECOND + HELD)]
    for hints, shown in ((HINTS, starts), (Hints(), starts[:2])):
        with pytest.raises(SeveralStreamsError) as refused:
            list(Decoder(in_file(data), hints=hints))
        assert refused.value.starts == shown
    for number, last in ((2, "eof"), (3, "vm-description")):
        assert list(decoder_of(in_file(data), number, hints=HINTS))[-1].type == last
        with pytest.raises(UndecidableError):
            list(decoder_of(in_file(data), number, hints=Hints()))


@pytest.mark.parametrize(("most", "shown"), [(2, 2), (3, 3), (4, 3)])
def test_so_many_are_counted(most: int, shown: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STREAMS_MAX", most)
    with pytest.raises(SeveralStreamsError) as refused:
        list(Decoder(in_file(SECOND * 3)))
    assert refused.value.starts == [at * len(SECOND) for at in range(shown)]


TAILS = {
    "text": b"some more text",
    "zeros": bytes(100_000),
    "zeros and more": bytes(513) + b"x",
    "half a header": raw.HEADER[:3],
    "zeros and half a header": bytes(9) + raw.HEADER[:7],
    "an end of bare records": raw.EOS,
    "progress": raw.progress(0) * 100,
    "a record without a name": raw.block(0, 8, device=""),
    "a record far out": raw.block(1 << 54, 8),
    "a record with flags of no dialect": raw.block(0, 0x84),
    "such a record behind progress": raw.progress(0) + raw.block(0, 0x80),
    "a name with control characters": raw.block(0, 8, device="a\nb"),
    "a cut record": raw.block(0, 8, device="drive0")[:-1],
}


@pytest.mark.parametrize("name", TAILS)
@pytest.mark.parametrize("source", SOURCES)
def test_other_bytes_are_a_note(name: str, source: type, run: Run, tmp_path: Path) -> None:
    found, error = events(source(SECOND + TAILS[name]))
    assert error is None
    assert found[-1] == Undecoded(
        len(SECOND), len(TAILS[name]), None, "other bytes after the stream's end", behind=True
    )
    path = tmp_path / "s.bin"
    path.write_bytes(SECOND + TAILS[name])
    report = run("validate", path, "--incremental", "--output", "json").report
    notes = [(f["id"], f["severity"], f["offset"]) for f in report["findings"]]
    assert ("trailing-bytes", "note", len(SECOND)) in notes
    assert report["valid"]


class Endless:
    """A stream, then the same bytes for ever."""

    def __init__(self, data: bytes, tail: bytes) -> None:
        self._left = data
        self._tail = (tail * (1 << 20))[: 1 << 20]
        self.given = 0

    def __call__(self, target: memoryview) -> int:
        source, more = (self._left, False) if self._left else (self._tail, True)
        count = min(len(source), len(target))
        target[:count] = source[:count]
        if not more:
            self._left = self._left[count:]
        self.given += count
        return count


@pytest.mark.parametrize("tail", [b"\0", b"x"])
@pytest.mark.parametrize("keep", [False, True])
def test_a_peer_that_never_stops(tail: bytes, keep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BEHIND_MAX", 2 << 20)
    peer = Endless(SECOND, tail)
    found = list(Decoder(PipeInput(peer), keep_state=keep))
    assert isinstance(found[-1], Undecoded)
    assert found[-1].length == limits.BEHIND_MAX
    assert "of which 2 MiB were read" in found[-1].reason
    assert peer.given < len(SECOND) + 2 * limits.BEHIND_MAX
    # As of a file with as much behind its stream.
    in_full = in_file([SECOND, limits.BEHIND_MAX + 1]) if tail == b"\0" else None
    assert in_full is None or list(Decoder(in_full)) == found


@pytest.mark.parametrize("tail", ["cat /dev/zero", "yes"])
@pytest.mark.parametrize(
    "words",
    [
        ["validate", "--incremental"],
        ["extract", "--allow-incomplete", "--to", "{}/disk", "-q"],
        ["convert", "--normalize", "--incremental", "--to", "{}/new", "-q"],
        ["dump", "--output", "jsonl", "--payload", "sha256"],
        ["scrub", "--to", "{}/clean", "-q"],
        ["replay", "--image", "{}/disk", "--create", "--incremental", "-q"],
    ],
)
def test_commands_end_though_a_peer_never_stops(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], tail: str
) -> None:
    monkeypatch.setattr(limits, "BEHIND_MAX", 1 << 20)
    (tmp_path / "s.bin").write_bytes(SECOND)
    name, *options = [word.format(tmp_path) for word in words]
    size = [] if name == "dump" else SIZE
    outcome = run(name, f"exec:cat {tmp_path}/s.bin; {tail}", *options, *size)
    assert outcome.status == 0, outcome


def test_compressed_streams_with_endless_padding() -> None:
    """Zeros behind gzip or xz are no data, and are not read for ever either."""
    from blkmig_cli.transport.compression import unpacked

    peer = Endless(gzip.compress(SECOND), b"\0")

    class File:
        def read1(self, length: int) -> bytes:
            buffer = bytearray(length)
            return bytes(buffer[: peer(memoryview(buffer))])

    readinto = unpacked("gzip", File())  # type: ignore[arg-type]
    assert list(Decoder(PipeInput(readinto))) == list(Decoder(in_file(SECOND)))


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    path = tmp_path / "chain.bin"
    path.write_bytes(FULL + SECOND)
    return path


FIRST_DISK = b"\1" * raw.CHUNK + bytes(raw.CHUNK)
SECOND_DISK = bytes(raw.CHUNK) + b"\2" * raw.CHUNK


@pytest.mark.parametrize("form", ["{}", "exec:cat {}"])
def test_validate_and_info_report_each(run: Run, chain: Path, form: str) -> None:
    name = form.format(chain)
    outcome = run("validate", name, *SIZE, "--output", "json")
    first, second = outcome.json["streams"]
    assert (first["stream"], second["stream"]) == (name, f"{name} (stream 2)")
    assert first["complete"]
    assert not second["complete"]
    assert outcome.status == 1
    found = next(f for f in second["findings"] if f["id"] == "missing-chunks")
    assert found["device"] == "d"
    document = run("info", name, *SIZE, "--output", "json").json
    assert (document["stream"], document["size"]) == (name, len(FULL))
    assert [(one["stream"], one["size"]) for one in document["further-streams"]] == [
        (f"{name} (stream 2)", len(SECOND))
    ]
    commands = [step["command"] for step in document["further-streams"][0]["next"]]
    assert any("--stream 2" in command for command in commands if command)
    text = run("info", name, *SIZE).out
    assert f"{name} (stream 2): " in text
    assert "2 streams" in run("validate", name, *SIZE).out


READERS = {
    "dump": ["--output", "jsonl"],
    "map": SIZE,
    "extract": [*SIZE, "--to", "{}/out"],
    "convert": [*SIZE, "--to", "{}/out"],
    "scrub": [*SIZE, "--to", "{}/out"],
    "salvage": [*SIZE, "--to", "{}/out"],
    "replay": [*SIZE, "--image", "{}/out", "--create", "--allow-incomplete"],
}


@pytest.mark.parametrize("name", READERS)
def test_readers_refuse(run: Run, chain: Path, name: str) -> None:
    options = [word.format(chain.parent) for word in READERS[name]]
    expected = f"2 streams, which begin at bytes 0, {len(FULL)}; choose one with --stream N"
    fails(run(name, chain, *options, *([] if name in ("dump",) else ["-q"])), 2, expected)
    assert {path.name for path in chain.parent.iterdir()} == {"chain.bin"}
    outcome = run(name, f"exec:cat {chain}", *options, "-q")
    assert outcome.status == 2
    assert f"begin at bytes 0, {len(FULL)}" in outcome.err or (
        f"the second begins at byte {len(FULL)}" in outcome.err
    )
    assert not (chain.parent / "out").exists()
    if name == "replay":
        # What came before is there, but it is not called done.
        assert (chain.parent / "out.partial").exists()


@pytest.mark.parametrize("form", ["{}", "exec:cat {}"])
@pytest.mark.parametrize(("number", "disk"), [(1, FIRST_DISK), (2, SECOND_DISK)])
def test_readers_take_the_one_that_is_chosen(
    run: Run, chain: Path, tmp_path: Path, form: str, number: int, disk: bytes
) -> None:
    stream, out = form.format(chain), tmp_path / "out"
    words = ["--stream", number, *SIZE, "-q"]
    outcome = run("replay", stream, *words, "--image", out, "--create", "--incremental")
    assert outcome.status == 0, outcome
    assert out.read_bytes() == disk
    assert run("extract", stream, *words, "--to", out, "--allow-incomplete").status == 0
    assert out.read_bytes() == disk
    one = tmp_path / "one"
    for command in (["scrub"], ["convert", "--incremental"]):
        assert run(*command, stream, *words, "--to", one).status == 0
        assert run("extract", one, *SIZE, "-q", "--to", out, "--allow-incomplete").status == 0
        assert out.read_bytes() == disk
    assert run("salvage", stream, *words).status == 0
    assert run("map", stream, *words).status == 0
    start = 0 if number == 1 else len(FULL)
    records = run("dump", stream, "--stream", number, "--output", "jsonl").out.splitlines()
    assert f'"offset": {start}, ' in records[0]


def test_compare_takes_one_of_each(run: Run, chain: Path, tmp_path: Path) -> None:
    words = ["compare", chain, chain, *SIZE, "--incremental"]
    assert run(*words).status == 2
    assert run(*words, "--stream", 1).status == 0
    assert run(*words, "--stream", 2, "--stream", 2).status == 0
    second = tmp_path / "second"
    second.write_bytes(SECOND)
    assert run("compare", chain, second, *SIZE, "--stream", 2, "--stream", 1).status == 0
    assert run(*words, "--stream", 1, "--stream", 2).status == 1
    assert run(*words, "--stream", 2, "--stream", 1).status == 1
    assert run(*words, *["--stream", 1] * 3).status == 2


def test_a_number_that_is_not_there(run: Run, chain: Path) -> None:
    fails(run("map", chain, "--stream", 3), 2, "no stream 3, only 2 streams")
    assert run("map", chain, "--stream", 0).status == 2


def test_the_case(run: Run, tmp_path: Path) -> None:
    """Two captures, one appended to the other: nothing is dropped in silence."""
    packed = Path(__file__).parents[1] / "cases" / "second-stream.bin.gz"
    path = tmp_path / "chain.bin"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    for stream in (path, packed):
        assert run("validate", stream, *SIZE).status == 0
        words = ["convert", stream, "--normalize", *SIZE, "-q", "--to", tmp_path / "o.bin"]
        fails(run(*words), 2, "begin at byte")
        words = ["replay", stream, "--image", tmp_path / "d.img", "--create", *SIZE]
        assert run(*words).status == 2
        assert not (tmp_path / "d.img").exists()
        assert not (tmp_path / "o.bin").exists()
        (tmp_path / "d.img.partial").unlink(missing_ok=True)
        (tmp_path / "d.img.replay.json").unlink(missing_ok=True)
