"""Defects of QEMU: each is reproduced with a real QEMU, then found by blkmig."""

import struct
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli.disks.bitmap_file import BitmapFile, write_bitmaps
from tests.conftest import Run, fails
from tests.interop import disks, qemu
from tests.interop.disks import MIB
from tests.interop.qemu import Drive
from tests.support import raw

Found = dict[str, dict[str, Any]]


def findings(run: Run, stream: Path, *options: object) -> Found:
    """Return the findings of validate, by id."""
    report = run("validate", stream, "--output", "json", *options).report
    return {finding["id"]: finding for finding in report["findings"]}


def loaded_by_qemu(folder: Path, stream: Path, size: int, machine: str = "") -> tuple[str, str]:
    """Load ``stream`` into a QEMU with a disk ``d`` of ``size`` bytes; return its end and its output."""
    disk = folder / "disk"
    with open(disk, "wb") as file:
        file.truncate(size)
    with qemu.destination(folder / "q", Drive("d", disk)) as destination:
        destination.capabilities("dirty-bitmaps")
        ended = destination.load(f"exec:cat {stream}")
        if ended == "completed":
            ended += f" with {len(destination.bitmaps('d'))} bitmaps"
        else:
            destination.process.wait(30)
    return ended, destination.log + f"exit {destination.process.returncode}"


# -- the bulk phase


@pytest.mark.long
@pytest.mark.block_migration
def test_abandoned_bulk_phase(run: Run, tmp_path: Path) -> None:
    """With default settings QEMU reports a disk of which half was sent as completed."""
    size = 256 * MIB
    image, stream = tmp_path / "d.img", tmp_path / "s.bin"
    with open(image, "wb") as file:
        file.write(disks.noisy(4 * MIB))
        file.truncate(size)
    with qemu.source(tmp_path / "q", Drive("drive0", image)) as source:
        source.save(f"exec:cat > {stream}", blk=True)
    assert stream.stat().st_size < 100 * MIB
    found = findings(run, stream, "--device-size", size)
    assert found["bulk-unfinished"]["severity"] == "error"
    missing = run("validate", stream, "--device-size", size, "--output", "json").report
    (gap,) = missing["devices"][0]["missing"]
    assert gap["start"] + gap["length"] == size
    text = found["bulk-unfinished"]["message"]
    assert f"bytes {gap['start']}-{size}" in text
    assert "downtime-limit 0" in text
    # Also where the size is not known, and where missing chunks would be intentional.
    assert "bulk-unfinished" in findings(run, stream)
    assert "bulk-unfinished" in findings(run, stream, "--incremental", "--device-size", size)
    assert run("validate", stream, "--output", "json").report["complete"] is False
    out = tmp_path / "out"
    words = ["replay", stream, "--image", out, "--create", "--device-size", size]
    outcome = run(*words)
    assert outcome.status == 1
    assert "bulk-unfinished" in outcome.out
    # With the downtime limit that the finding recommends, the disk is complete.
    with qemu.source(tmp_path / "q", Drive("drive0", image)) as source:
        source.parameters(downtime_limit=0)
        source.save(f"exec:cat > {stream}", blk=True)
    assert run("validate", stream, "--device-size", size).status == 0


@pytest.mark.long
@pytest.mark.block_migration
def test_a_downtime_of_a_millisecond_is_too_much(run: Run, tmp_path: Path) -> None:
    """With 1 ms and a high bandwidth QEMU may leave out a MiB; with 0 it never does."""
    size = 256 * MIB
    image, stream = tmp_path / "d.img", tmp_path / "s.bin"
    image.write_bytes(b"\x42" * size)
    for _ in range(3):
        with qemu.source(tmp_path / "q", Drive("drive0", image)) as source:
            source.parameters(downtime_limit=0, max_bandwidth=1 << 40)
            source.save(f"exec:cat > {stream}", blk=True)
        assert run("validate", stream, "--device-size", size).status == 0


@pytest.mark.block_migration
def test_the_second_disk_never_began(run: Run, tmp_path: Path) -> None:
    first, second, stream = tmp_path / "a", tmp_path / "b", tmp_path / "s.bin"
    with open(first, "wb") as file:
        file.truncate(40 * MIB)
    with open(second, "wb") as file:
        file.truncate(200 * MIB)
    drives = (Drive("drive0", first), Drive("drive1", second))
    with qemu.source(tmp_path / "q", *drives) as source:
        source.save(f"exec:cat > {stream}", blk=True)
    sizes = ["--device-size", f"drive0={40 * MIB}"]
    assert "bulk-unfinished" in findings(run, stream)
    report = run("validate", stream, *sizes, "--output", "json").report
    assert report["complete"] is False


# -- padding, and the tail


def leaking(folder: Path) -> tuple[Path, Path]:
    """Make a disk of no whole MiB, and a stream of it whose padding holds other data of the disk."""
    image, stream = folder / "d.img", folder / "s.bin"
    image.write_bytes(disks.noisy(3 * MIB + 1024))
    with qemu.source(folder / "q", Drive("d", image)) as source:
        source.parameters(downtime_limit=0)
        # Buffers are used again: what was read before shows.
        source.io("d", "read 0 1M")
        source.save(f"exec:cat > {stream}", blk=True)
    return image, stream


@pytest.mark.block_migration
def test_padding(run: Run, tmp_path: Path) -> None:
    image, stream = leaking(tmp_path)
    size = image.stat().st_size
    content = stream.read_bytes()
    at = content.index(image.read_bytes()[3 * MIB :]) + 1024
    behind = content[at : at + MIB - 1024]
    if not any(behind):
        # This QEMU's memory happened to be clear: leak for it.
        stream.write_bytes(content[:at] + disks.noisy(MIB - 1024) + content[at + MIB - 1024 :])
        behind = disks.noisy(MIB - 1024)
    number = sum(byte != 0 for byte in behind)
    found = findings(run, stream, "--device-size", size)
    assert found["padding-leak"]["severity"] == "warning"
    assert f"{number:,} bytes" in found["padding-leak"]["message"]
    clean = tmp_path / "clean.bin"
    outcome = run("scrub", stream, "--device-size", size, "--to", clean)
    assert outcome.status == 0
    assert f"{number:,} of them not zero" in outcome.err
    was, now = stream.read_bytes(), clean.read_bytes()
    assert now == was[:at] + bytes(MIB - 1024) + was[at + MIB - 1024 :]
    assert "padding-leak" not in findings(run, clean, "--device-size", size)
    out = tmp_path / "out"
    words = ["replay", clean, "--image", out, "--create", "--device-size", size]
    assert run(*words).status == 0
    assert out.read_bytes() == image.read_bytes()


@pytest.mark.block_migration
def test_a_cut_tail_cannot_be_loaded(run: Run, tmp_path: Path) -> None:
    image, stream = leaking(tmp_path)
    size = image.stat().st_size
    ended, log = loaded_by_qemu(tmp_path, stream, size)
    # The stream states the machine none, which a pc does not load at all.
    assert "Machine type received" in log
    sent = tmp_path / "sent.bin"
    words = ["send", f"d={image}", "--machine", qemu.MACHINE, "--to", sent]
    assert run(*words, "--dialect", "classic").status == 0
    ended, log = loaded_by_qemu(tmp_path, sent, size)
    assert ended == "gone"
    assert "Input/output error" in log
    found = findings(run, sent, "--device-size", size, "--for-qemu", "7.2")
    assert found["partial-tail"]["severity"] == "note"
    assert found["qemu-cannot-load"]["severity"] == "warning"
    assert "qemu-cannot-load" not in findings(run, sent, "--device-size", size, "--for-qemu", "2.9")
    # Dialect qemu moves that chunk, and is loaded.
    assert run(*words).status == 0
    assert loaded_by_qemu(tmp_path, sent, size)[0].startswith("completed")
    assert (tmp_path / "disk").read_bytes() == image.read_bytes()
    assert not {"partial-tail", "qemu-cannot-load"} & set(
        findings(run, sent, "--device-size", size, "--for-qemu", "7.2")
    )


@pytest.mark.block_migration
def test_disks_below_a_mib(run: Run, tmp_path: Path) -> None:
    image, stream = tmp_path / "d.img", tmp_path / "s.bin"
    image.write_bytes(disks.noisy(300 << 10))
    words = ["send", f"d={image}", "--machine", qemu.MACHINE, "--to", stream]
    outcome = run(*words, "--for-qemu", "7.2")
    assert outcome.status == 0
    assert "fails on data in a last chunk" in outcome.err
    ended, log = loaded_by_qemu(tmp_path, stream, 300 << 10)
    assert (ended, "Input/output error" in log) == ("gone", True)


# -- names


@pytest.mark.block_migration
def test_unnamed_disk_of_a_raw_file(run: Run, tmp_path: Path) -> None:
    """The disk and its file are sent under one name; both are the same bytes, so nothing is lost."""
    image, stream = disks.make(tmp_path / "d.img", "patterned"), tmp_path / "s.bin"
    nodes = ["-blockdev", f"driver=file,node-name=f,filename={image}"]
    nodes += ["-blockdev", "driver=raw,node-name=n,file=f"]
    with qemu.running(tmp_path / "q", "-M", "none", *nodes) as source:
        source.parameters(downtime_limit=0)
        source.save(f"exec:cat > {stream}", blk=True)
    found = findings(run, stream, "--for-qemu", "7.2")
    assert found["unnamed-device"]["severity"] == "warning"
    assert "qemu-cannot-load" in found
    out = tmp_path / "out"
    words = ["replay", stream, "--image", f"={out}", "--create", "--device-size", 3 * MIB]
    assert run(*words, "--allow-incomplete").status in (0, 1)
    assert out.read_bytes() == image.read_bytes()


@pytest.mark.block_migration
def test_unnamed_qcow2_is_mixed_with_its_file(run: Run, tmp_path: Path) -> None:
    image, stream = tmp_path / "d.qcow2", tmp_path / "s.bin"
    qemu.qemu_img("create", "-q", "-f", "qcow2", image, "3M")
    nodes = ["-blockdev", f"driver=file,node-name=f,filename={image}"]
    nodes += ["-blockdev", "driver=qcow2,node-name=n,file=f"]
    with qemu.running(tmp_path / "q", "-M", "none", *nodes) as source:
        source.io("n", "write -P 7 0 1M")
        source.parameters(downtime_limit=0)
        source.save(f"exec:cat > {stream}", blk=True)
    assert findings(run, stream)["merged-devices"]["severity"] == "error"
    out = tmp_path / "out"
    words = ["--image", f"={out}", "--create", "--device-size", 3 * MIB]
    fails(run("replay", stream, *words), 3, "mixed under an empty name")
    assert not out.exists()
    outcome = run("replay", f"exec:cat {stream}", *words)
    assert outcome.status == 3
    assert "mixed under an empty name" in outcome.err


@pytest.mark.block_migration
@pytest.mark.parametrize("zero_blocks", [True, False])
@pytest.mark.parametrize("name", ["n" * 300, "a" * 256])
def test_names_that_wrap(run: Run, tmp_path: Path, name: str, zero_blocks: bool) -> None:
    image, stream = disks.make(tmp_path / "d.img", "mixed, all but a sector"), tmp_path / "s.bin"
    with qemu.source(tmp_path / "q", Drive(name, image)) as source:
        source.parameters(downtime_limit=0)
        if zero_blocks:
            source.capabilities("zero-blocks")
        source.save(f"exec:cat > {stream}", blk=True)
    outcome = run("validate", stream, "--output", "json")
    assert outcome.status == 3
    assert outcome.report["findings"][0]["id"] == "name-wrapped"
    assert "256 bytes longer" in outcome.err
    piped = run("validate", f"exec:cat {stream}")
    assert (piped.status, "256 bytes longer" in piped.err) == (3, True)
    out = tmp_path / "out"
    fails(run("replay", stream, "--image", out, "--create"), 3, "256 bytes longer")
    fails(run("send", f"{name}={image}", "--to", tmp_path / "t"), 4, "255 bytes")


# -- sectors and bitmaps: QEMU sends none of these, so they are made by hand


def hand_made(path: Path, *records: bytes, bitmaps: bytes | None = None) -> Path:
    path.write_bytes(raw.qemu(*records, bitmaps=bitmaps, machine=qemu.MACHINE))
    return path


@pytest.mark.block_migration
def test_sectors_past_the_end(run: Run, tmp_path: Path) -> None:
    stream = hand_made(tmp_path / "s.bin", raw.block(0, 8), raw.block(4096, 0, rest=bytes(MIB)))
    ended, log = loaded_by_qemu(tmp_path, stream, MIB)
    assert (ended, "Input/output error" in log) == ("gone", True)
    found = findings(run, stream, "--device-size", MIB)
    assert found["sector-past-end"]["severity"] == "error"
    image = tmp_path / "image"
    image.write_bytes(b"\1" * MIB)
    outcome = run("replay", stream, "--image", image, "--device-size", MIB)
    assert outcome.status == 1
    assert "error: sector 4096 is past the disk's end" in outcome.out
    assert "nothing was written" in outcome.out
    assert image.read_bytes() == b"\1" * MIB


START = raw.bitmap_start
WORD = b"\xff" * 8
#: What: the section's payload, what QEMU does, and the check.  The disk has 4 MiB.
BITMAPS: dict[str, tuple[bytes, str, str]] = {
    "granularity 0": (START(granularity=0), "aborts", "bitmap-granularity"),
    "granularity 256": (START(granularity=256), "aborts", "bitmap-granularity"),
    "granularity 1000": (START(granularity=1000), "aborts", "bitmap-granularity"),
    "start inside a word": (START() + raw.bitmap_bits(128, 128, WORD), "aborts", "bitmap-start"),
    "range past the end": (
        START() + raw.bitmap_bits(0, 16384, WORD * 4) + raw.COMPLETE,
        "aborts",
        "bitmap-size",
    ),
    "wrong length": (START() + raw.bitmap_bits(0, 8192, WORD * 9), "drops", "bitmap-length"),
    "too long": (START() + raw.bitmap_bits(0, 8192, WORD * 1300), "fails", "bitmap-length"),
    "reserved flags": (START(flags=9), "fails", "bitmap-flags"),
    "second start": (START() + START(), "fails", "bitmap-restart"),
    "empty name": (START(bitmap=""), "fails", "bitmap-name"),
    "unknown device": (
        START(device="x") + raw.bitmap_bits(0, 8192, WORD) + raw.COMPLETE,
        "drops",
        "bitmap-device",
    ),
}


@pytest.mark.parametrize("what", BITMAPS)
def test_bitmaps(run: Run, tmp_path: Path, what: str) -> None:
    payload, qemus, check = BITMAPS[what]
    zeros = [raw.block(sector, 8) for sector in range(0, 8192, 2048)]
    stream = hand_made(tmp_path / "s.bin", *zeros, bitmaps=payload)
    loaded = stream
    if not qemu.has_block_migration():
        loaded = tmp_path / "bitmaps.bin"
        loaded.write_bytes(raw.qemu(bitmaps=payload, machine=qemu.MACHINE, blocks=False))
    ended, log = loaded_by_qemu(tmp_path, loaded, 4 * MIB)
    if qemus == "drops":
        assert ended == "completed with 0 bitmaps", log
    else:
        assert ended == "gone", log
        assert ("exit -6" in log) == (qemus == "aborts"), log
    found = findings(run, stream, "--device-size", 4 * MIB)
    assert check in found, found
    if check != "bitmap-device":
        assert found[check]["severity"] == "error"
        out = tmp_path / "out"
        words = ["replay", stream, "--image", out, "--create", "--device-size", 4 * MIB]
        assert run(*words).status in (1, 3)
        assert not Path(f"{out}.bitmaps.json").exists()


def test_a_range_of_no_sectors(run: Run, tmp_path: Path) -> None:
    """QEMU 7.2 sends such ranges without end on disks over 2 TiB with granularity 256 MiB."""
    stream = hand_made(tmp_path / "s.bin", bitmaps=START() + raw.bitmap_bits(0, 0, b""))
    assert "bitmap-range" in findings(run, stream)


def test_a_large_disk_with_coarse_bits_is_sent_whole(run: Run, tmp_path: Path) -> None:
    """What blkmig sends of such a disk ends, and QEMU loads it."""
    size = 3 << 40
    image, stream = tmp_path / "d.img", tmp_path / "s.bin"
    with open(image, "wb") as file:
        file.truncate(size)
    made = disks.bitmap("b", 256 * MIB, size)
    write_bitmaps(f"{image}.bitmaps.json", BitmapFile(size, {"b": made}))
    options = ["--bitmaps", "--bitmaps-only", "--machine", qemu.MACHINE, "--to", stream]
    assert run("send", f"d={image}", *options).status == 0
    assert stream.stat().st_size < 10000
    disk = tmp_path / "disk"
    with open(disk, "wb") as file:
        file.truncate(size)
    with qemu.destination(tmp_path / "q", Drive("d", disk)) as destination:
        destination.capabilities("dirty-bitmaps")
        assert destination.load(f"exec:cat {stream}") == "completed", destination.log
        assert destination.sha256("d", "b") == made.sha256(size)


# -- what a QEMU cannot load at all


def test_v1_bitmaps_are_lost_on_qemu(run: Run, tmp_path: Path) -> None:
    image, stream = disks.make(tmp_path / "d.img", "patterned"), tmp_path / "s.bin"
    outcome = run("send", f"d={image}", "--dialect", "v2", "--to", stream, "--for-qemu", "7.2")
    assert outcome.status == 0
    assert "no released QEMU reads dialect v2" in outcome.err
    assert "qemu-cannot-load" in findings(run, stream, "--for-qemu", "7.2")


@pytest.mark.parametrize(
    ("options", "version", "words"),
    [
        ([], "9.1", "no block section"),
        ([], "10.0", "no block section"),
        ([], "7.2", "machine none has no disks"),
        (["--container", "none"], "7.2", "bare block records"),
        (["--machine", "pc"], "1.5", "new in 1.6"),
        (["--machine", "pc"], "2.3", "new in 2.4"),
        (["--machine", "pc-i440fx-2.3"], "7.2", "pc-i440fx-2.3"),
    ],
)
def test_send_warns(run: Run, tmp_path: Path, options: list[str], version: str, words: str) -> None:
    image, stream = disks.make(tmp_path / "d.img", "patterned"), tmp_path / "s.bin"
    outcome = run("send", image, "--to", stream, "--for-qemu", version, *options)
    assert outcome.status == 0
    assert words in outcome.err
    assert stream.exists()


def test_send_has_nothing_to_warn_of(run: Run, tmp_path: Path) -> None:
    image, stream = disks.make(tmp_path / "d.img", "mixed, all but a sector"), tmp_path / "s.bin"
    outcome = run("send", image, "--machine", "pc", "--to", stream, "--for-qemu", "7.2")
    assert (outcome.status, outcome.err) == (0, "")


def test_empty_parts(run: Run, tmp_path: Path) -> None:
    """A paused guest with dirty-bitmaps on, and a downtime that the bits do not fit into."""
    image, stream = disks.make(tmp_path / "d.img", "patterned"), tmp_path / "s.bin"
    with qemu.source(tmp_path / "q", Drive("drive0", image)) as source:
        source.cmd("block-dirty-bitmap-add", node="drive0", name="b", granularity=512)
        source.capabilities("dirty-bitmaps")
        source.parameters(downtime_limit=0)
        source.cmd("migrate", uri=f"exec:cat > {stream}")
        while stream.stat().st_size < 200_000 if stream.exists() else True:
            assert source.status() in ("setup", "active"), "it converged"
        source.parameters(downtime_limit=2000)
        assert source.wait() == "completed"
    found = findings(run, stream)
    assert found["empty-parts"]["severity"] == "note"
    lines = run("dump", stream).out.splitlines()
    assert any("empty parts" in line for line in lines)
    assert len(lines) < 200


@pytest.mark.block_migration
def test_a_salvaged_stream_is_loaded(run: Run, tmp_path: Path) -> None:
    """QEMU ignores the key of the description that names a stream's source and gaps."""
    image, stream, salvaged, target = (tmp_path / name for name in ("disk", "s", "t", "dst"))
    image.write_bytes(disks.noisy(8 * MIB))
    assert run("send", f"d={image}", "--to", stream).status == 0
    data = bytearray(stream.read_bytes())
    at = data.index(struct.pack(">Q", 3 * 2048 << 9 | 1) + b"\1d")
    data[at : at + 8] = bytes(8)
    stream.write_bytes(data)
    assert run("salvage", stream, "--device-size", "8M", "--to", salvaged).status == 1
    loaded = tmp_path / "u"
    words = ["--normalize", "--incremental", "--machine", qemu.MACHINE, "--to", loaded]
    assert run("convert", salvaged, *words).status == 0
    assert all(b'"blkmig"' in path.read_bytes()[-1000:] for path in (salvaged, loaded))
    target.write_bytes(b"\x5a" * (8 * MIB))
    with qemu.destination(tmp_path / "q", Drive("d", target)) as destination:
        assert destination.load(f"exec:cat {loaded}") == "completed", destination.log
    wanted = bytearray(image.read_bytes())
    # The chunk before the damage is left out, too, as nothing confirms its length.
    wanted[2 * MIB : 4 * MIB] = b"\x5a" * (2 * MIB)
    assert target.read_bytes() == wanted
