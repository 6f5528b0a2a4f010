"""``convert``: in every dialect, replay gives the same disks and bitmaps."""

import hashlib
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli.checks.survey import Contents, read_contents
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, read_bitmaps, write_bitmaps
from blkmig_cli.errors import BlkmigError
from blkmig_cli.operations.convert.disks import check_empty_chunks, disks_of, refuse_faults
from blkmig_cli.operations.convert.translation import LastRecords, Translation
from blkmig_cli.operations.send.requirements import check_disks
from blkmig_cli.operations.send.stream import SendOptions, send_events
from blkmig_cli.progress import no_tick
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.transport.source import Stream
from blkmig_cli.transport.target import adopt_target, resolving, write_events
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs import columns as runs
from tests.conftest import MORE, Capture, Run, captures_but, fails
from tests.support import raw
from tests.support.feed import encoded, in_file
from tests.support.long import examples
from tests.support.strategies import Repetitive, Sent, repetitive, streams

MIB = 1 << 20
DIRTY = raw.bitmap_start() + raw.bitmap_bits(0, 4096, b"\3".ljust(8, b"\0")) + raw.COMPLETE


def put(folder: Path, content: bytes, name: str = "s.bin") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def filled(sector: int, byte: int = 7, device: str = "d") -> bytes:
    return raw.block(sector, 0, device, bytes([byte]) * MIB)


BOTH = raw.qemu(filled(0), raw.block(2048, 8), bitmaps=DIRTY)


def replayed_end_state(run: Run, stream: Path, folder: Path, *hints: object) -> dict[str, object]:
    """Return what replay makes of a stream: digests of disks, and bitmaps."""
    folder.mkdir()
    devices = run("validate", stream, *hints, "--output", "json").report["devices"]
    found: dict[str, object] = {}
    words: list[object] = []
    for number, device in enumerate(devices):
        if device["chunks"]:
            words.append(f"--image={device['name']}={folder / str(number)}")
        else:
            words.append(f"--bitmaps-to={device['name']}={folder / str(number)}.bitmaps.json")
    outcome = run("replay", stream, *hints, *words, "--create", "--allow-incomplete", "-q")
    assert outcome.status == 0, outcome
    for number, device in enumerate(devices):
        image, bitmaps = folder / str(number), folder / f"{number}.bitmaps.json"
        if device["chunks"]:
            found[device["name"]] = hashlib.sha256(image.read_bytes()).hexdigest()
        if bitmaps.exists():
            for bitmap in json.loads(bitmaps.read_text())["bitmaps"]:
                # v1 has no place for flags.
                kept = {key: bitmap[key] for key in ("granularity", "count", "dirty")}
                found[f"{device['name']}/{bitmap['name']}"] = kept
    return found


_MORE = (("qemu", False), ("qemu", True), ("v1", False), ("v2", True))


@pytest.fixture(scope="module")
def wanted() -> dict[str, dict[str, object]]:
    """What replay makes of captures, by their names, as far as it was needed."""
    return {}


@captures_but(MORE)
@pytest.mark.parametrize(
    ("dialect", "normalize"),
    [
        *(("v1", True), ("v2", False)),
        *(pytest.param(*each, marks=pytest.mark.long) for each in _MORE),
    ],
)
def test_captures_in_every_dialect(
    dialect: str,
    normalize: bool,
    capture: Capture,
    run: Run,
    tmp_path: Path,
    wanted: dict[str, dict[str, object]],
) -> None:
    if capture.path.stat().st_size > 60 * MIB:
        return
    out, words = tmp_path / "out.bin", [*capture.hints(), "-q", *(["--normalize"] * normalize)]
    whole = "incomplete" not in capture.name and "incremental" not in capture.name
    words += [] if whole else ["--incremental"]
    outcome = run("convert", capture.path, "--dialect", dialect, "--to", out, *words)
    if outcome.status == 2:  # bitmaps only, and no record to carry them
        assert dialect in ("v1", "v2")
        assert not normalize
        assert "use --normalize" in outcome.err
        return
    assert outcome.status == 0, outcome
    hints = [
        f"--device-size={device}={disk['size']}"
        for device, disk in capture.truth["devices"].items()
    ]
    for bitmap in capture.truth["bitmaps"] if dialect == "v1" else []:
        name = f"{bitmap['device']}:{bitmap['name']}"
        hints.append(f"--granularity={name}={bitmap['granularity']}")
    found = replayed_end_state(run, out, tmp_path / "found", *hints)
    if capture.name not in wanted:
        folder = tmp_path / "wanted"
        wanted[capture.name] = replayed_end_state(run, capture.path, folder, *capture.hints())
    assert found == wanted[capture.name]
    status = run("validate", out, *hints, "--incremental", "-q").status
    # Made anew, it says that what it leaves out is meant to be.
    assert status == ("incomplete" in capture.name and not normalize)


def contents_of(data: bytes, hints: Hints) -> Contents:
    source = in_file(data)
    return read_contents(Stream("s", source), Decoder(source, hints=hints), hints, no_tick)


def hints_of(sent: Sent) -> Hints:
    return Hints(
        {disk.device: disk.size for disk in sent.disks},
        {
            (disk.device, bitmap.name): bitmap.granularity
            for disk in sent.disks
            for bitmap in disk.bitmaps
        },
    )


def normalized(data: bytes, hints: Hints, options: SendOptions) -> bytes:
    contents = contents_of(data, hints)
    disks = disks_of(contents, bitmaps=True, incremental=options.skip_unallocated)
    return encoded(list(send_events(disks, options)))


def translated(data: bytes, hints: Hints, dialect: str) -> bytes | None:
    """The stream in another dialect; None where a device with bitmaps has no records."""
    source, last = in_file(data), LastRecords()
    contents = read_contents(
        Stream("s", source), Decoder(source, hints=hints), hints, no_tick, last
    )
    disks = disks_of(contents, bitmaps=True, incremental=True)
    check_disks(disks, SendOptions(dialect, skip_unallocated=True))
    if dialect == "v1":
        check_empty_chunks(disks)
    if dialect != "qemu" and any(d.bitmaps and d.device not in last.offsets for d in disks):
        return None
    made = []
    for by_runs in (True, False):
        decoder = Decoder(source.again(), hints=hints)
        pieces = Translation(dialect, disks, last).pieces(decoder.pieces() if by_runs else decoder)
        file = io.BytesIO()
        with adopt_target(file, FileUses()) as sink:
            write_events(pieces, sink, resolving(source))
        made.append(file.getvalue())
    assert made[0] == made[1]
    return made[0]


def end_state(data: bytes, hints: Hints) -> dict[str, object]:
    contents = contents_of(data, hints)
    assert contents.report.failure is None, contents.report.failure
    state: dict[str, object] = {}
    for device in contents.report.devices:
        if device.disk.has_blocks:
            disk = contents.disk(device.disk.name)
            kinds = [(p.start, p.end) for p in disk.pieces() if p.kind == "missing"]
            state[device.disk.name] = (disk.size, disk.read(0, disk.size), kinds)
    for verdict in contents.report.bitmaps:
        bitmap = verdict.bitmap.content
        assert bitmap is not None
        size = hints.size(verdict.bitmap.device)
        state[f"{verdict.bitmap.device}/{bitmap.name}"] = (bitmap.granularity, bitmap.ranges(size))
    return state


@pytest.mark.scaled
@settings(max_examples=examples(20, 300))
@given(streams(), st.sampled_from(["qemu", "v1", "v2"]), st.booleans())
def test_the_end_state_stays(sent: Sent, dialect: str, normalize: bool) -> None:
    hints = hints_of(sent)
    if sent.options.container == "none" and dialect == "qemu":
        return
    if normalize:
        disks = any(disk for disk in end_state(sent.data, hints) if "/" not in disk)
        options = SendOptions(
            dialect, sent.options.container, disks=disks, skip_unallocated=True
        )  # fmt: skip
        made = normalized(sent.data, hints, options)
        assert normalized(made, hints, options) == made
    else:
        translation = translated(sent.data, hints, dialect)
        if translation is None:
            return
        made = translation
    assert end_state(made, hints) == end_state(sent.data, hints)


@pytest.mark.scaled
@settings(max_examples=examples(15, 300))
@given(repetitive(), st.sampled_from(["classic", "qemu", "v1", "v2"]))
def test_runs_become_what_their_events_do(stream: Repetitive, dialect: str) -> None:
    """(``translated`` compares the two.)"""
    if stream.kind != "classic" and dialect == "classic":
        return
    try:
        report = contents_of(stream.data, stream.hints).report
        refuse_faults(report, bitmaps=False, incremental=True)
        translated(stream.data, stream.hints, dialect)
    except BlkmigError:
        return  # damaged, or with a fault that convert refuses


@pytest.mark.parametrize("dialect", ["classic", "v1", "v2"])
def test_runs_of_zeros_are_taken(dialect: str) -> None:
    parts = [raw.part(1, raw.block(2048 * at, 8) + raw.EOS) + raw.footer(1) for at in range(400)]
    data = raw.qemu(*[raw.block(2048 * at, 8) for at in range(400)])
    for made in (data, data[:-1] + b"".join(parts) + raw.EOF):
        source, last, hints = in_file(made), LastRecords(), Hints({"d": 400 << 20})
        opened = Stream("s", source)
        contents = read_contents(opened, Decoder(source, hints=hints), hints, no_tick, last)
        disks = disks_of(contents, bitmaps=True, incremental=True)
        again = Decoder(source.again(), hints=hints)
        pieces = list(Translation(dialect, disks, last).pieces(again.pieces()))
        assert sum(len(piece) for piece in pieces if isinstance(piece, runs.Run)) > 300
        assert len(pieces) < 100


def test_all_that_is_no_record_stays(run: Run, unpacked: Path, tmp_path: Path) -> None:
    """RAM, devices, progress and the description, byte for byte and in their order."""
    stream, out = unpacked / "classic-zero-two-drives-pc.bin", tmp_path / "out.bin"
    assert run("convert", stream, "--dialect", "v2", "--to", out).status == 0
    kept = []
    for path in (stream, out):
        lines = run("dump", path, "--output", "jsonl", "--payload", "sha256").out.splitlines()
        records = [json.loads(line) for line in lines]
        kept.append([
            {key: value for key, value in record.items() if key != "offset"}
            for record in records
            if record["type"] != "block"
        ])  # fmt: skip
    assert kept[0] == kept[1]
    assert len(kept[0]) > 100


def test_nothing_to_change_changes_nothing(run: Run, tmp_path: Path) -> None:
    stream, out = put(tmp_path, raw.qemu(filled(0), raw.block(2048, 8))), tmp_path / "out"
    assert run("convert", stream, "--dialect", "classic", "--to", out).status == 0
    assert out.read_bytes() == stream.read_bytes()


def test_bitmaps_are_added_and_left_out(run: Run, tmp_path: Path) -> None:
    stream, out, file = put(tmp_path, BOTH), tmp_path / "out", tmp_path / "b.json"
    more = DirtyBitmap("more", 4096, recording=True, persistent=True)
    more.set_range(8192, 4096)
    write_bitmaps(str(file), BitmapFile(2 * MIB, {"more": more}))
    words = ["convert", stream, "--to", out, "--device-size=2M"]
    assert run(*words, "--bitmaps-from", file).status == 0
    report = run("validate", out, "--output", "json").report
    assert [b["name"] for b in report["bitmaps"]] == ["b", "more"]
    image = tmp_path / "image"
    assert run("replay", out, "--image", image, "--create", "-q").status == 0
    held = read_bitmaps(f"{image}.bitmaps.json").bitmaps["more"]
    assert (held.persistent, held.ranges(2 * MIB)) == (True, [(8192, 4096)])
    assert run(*words, "--no-bitmaps").status == 0
    assert run("validate", out, "--output", "json").report["bitmaps"] == []
    fails(run(*words, "--bitmaps-from", f"x={file}"), 2, "no device 'x'")
    write_bitmaps(str(file), BitmapFile(4 * MIB, {"more": more}))
    fails(run(*words, "--bitmaps-from", file), 4, "is of a disk of 4194304 bytes, not 2097152")


def test_what_is_refused(run: Run, tmp_path: Path) -> None:
    stream, out = put(tmp_path, BOTH), tmp_path / "out"
    words = ["convert", stream, "--to", out]
    fails(run(*words, "--dialect", "classic"), 2, "no place for bitmaps")
    fails(run(*words, "--container", "none", "--normalize"), 2, "no place for bitmaps")
    fails(run(*words, "--container", "none", "--dialect", "v2"), 2, "--normalize")
    fails(run(*words, "--machine", "pc"), 2, "--normalize")
    fails(run("convert", stream, "--to", stream), 2, "are the same file")
    missing = put(tmp_path, raw.qemu(filled(0), filled(4096)), "m")
    fails(run("convert", missing, "--to", out), 1, "was not sent")
    cut = put(tmp_path, BOTH[: MIB // 2], "cut")
    fails(run("convert", cut, "--to", out), 3, "truncated")
    only = put(tmp_path, raw.qemu(bitmaps=DIRTY), "only")
    fails(run("convert", only, "--dialect", "v2", "--to", out), 2, "--normalize")
    assert not out.exists()
    assert run("convert", only, "--dialect", "v2", "--normalize", "--to", out).status == 0


def test_a_missing_chunk_is_not_made_a_zero(run: Run, tmp_path: Path) -> None:
    stream, out = put(tmp_path, raw.qemu(filled(0), filled(4096))), tmp_path / "out"
    for more in ([], ["--normalize"]):
        words = ["convert", stream, "--to", out, "--incremental", "-q", *more]
        assert run(*words).status == 0
        (device,) = run("map", out, "--output", "json").json["devices"]
        assert [extent["present"] for extent in device["extents"]] == [True, False, True]


def test_a_size_that_is_not_known(run: Run, unpacked: Path, tmp_path: Path) -> None:
    """The end of the last chunk is taken for the disk's where it can be; else --device-size is needed."""
    out, whole = tmp_path / "o", put(tmp_path, raw.qemu(filled(0), raw.block(2048, 8)))
    outcome = run("convert", whole, "--normalize", "--for-qemu", "9.1", "--to", out, "-q")
    assert outcome.status == 0
    assert "size of 'd' is unknown, 2 MiB is assumed" in outcome.err
    assert "9.1 has no block section" in outcome.err
    assert run("convert", whole, "--to", out).err == ""  # no size is used
    tail = unpacked / "classic-tail.bin"
    fails(run("convert", tail, "--normalize", "--to", out), 1, "specify --device-size vd=SIZE")
    assert run("convert", tail, "--normalize", "--to", out, "--device-size=2738176").status == 0
    assert run("validate", out, "--device-size=2738176").status == 0


@pytest.mark.parametrize(
    ("sizes", "dialect", "refused"),
    [
        ([512], "classic", 0),
        ([512], "v2", None),
        ([MIB], "classic", 0),
        ([MIB], "v2", 0),
        ([MIB + 512], "classic", None),
        ([MIB + 512, MIB], "classic", 0),
        ([MIB + 512, MIB], "v2", 1),
    ],
)
def test_sizes_that_bare_records_do_not_state(
    run: Run, tmp_path: Path, sizes: list[int], dialect: str, refused: int | None
) -> None:
    """Of a chunk of v2 at the disk's end, and a single disk of several chunks, they do."""
    images = []
    for number, size in enumerate(sizes):
        images.append(f"d{number}={tmp_path / str(number)}")
        (tmp_path / str(number)).write_bytes(b"\1" * size)
    stream, bare = tmp_path / "s.bin", tmp_path / "bare.bin"
    assert run("send", *images, "--to", stream).status == 0
    words = ["convert", stream, "--normalize", "--container=none", "--dialect", dialect]
    outcome = run(*words, "--to", bare)
    if refused is None:
        assert outcome.status == 0
        assert run("compare", stream, bare).status == 0
    else:
        said = f"container none cannot state the size of 'd{refused}'; use --container qemu, or "
        fails(outcome, 2, f"{said}specify --device-size d{refused}={sizes[refused]}, also to read")


@pytest.mark.parametrize("options", [[], ["--device-size=1M"]])
def test_sizes_that_the_stream_does_not_state_either(
    run: Run, tmp_path: Path, options: list[str]
) -> None:
    path, bare = put(tmp_path, raw.qemu(filled(0))), tmp_path / "bare.bin"
    words = ["convert", path, "--normalize", "--container=none", "--dialect=classic", *options]
    assert run(*words, "--to", bare).status == 0
    assert run("compare", path, bare, *options).status == 0
