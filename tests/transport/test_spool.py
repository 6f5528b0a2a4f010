"""What can be read once, and is read twice: copied to a file without a name, with its zeros as holes."""

import gzip
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli import limits
from blkmig_cli.errors import FailureError, LimitError, TruncatedError
from blkmig_cli.transport import spool as module
from blkmig_cli.transport.source import open_stream
from blkmig_cli.transport.spool import spool
from tests.conftest import Capture, Run, fails
from tests.support import raw
from tests.support.feed import piped

MIB = 1 << 20


def filled(sector: int, byte: int) -> bytes:
    return raw.block(sector, 0, "d", bytes([byte]) * MIB)


STREAM = raw.qemu(filled(2048, 2), filled(0, 0), raw.block(4096, 8), filled(6144, 7))
DISK = bytes(MIB) + bytes([2]) * MIB + bytes(MIB) + bytes([7]) * MIB


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "s.bin.gz"
    path.write_bytes(gzip.compress(STREAM))
    return path


def test_compressed_streams_anywhere(run: Run, packed: Path, tmp_path: Path) -> None:
    plain, image = tmp_path / "s.bin", tmp_path / "disk"
    plain.write_bytes(STREAM)
    assert run("extract", packed, "--to", image, "-q").status == 0
    assert image.read_bytes() == DISK
    for command in (["convert", "--dialect", "v2"], ["convert", "--normalize"]):
        outputs = []
        for source in (plain, packed):
            name, *more = command
            assert run(name, source, *more, "--to", tmp_path / "out", "-q").status == 0
            outputs.append((tmp_path / "out").read_bytes())
        assert outputs[0] == outputs[1]
    assert run("compare", packed, plain).status == 0
    assert run("compare", packed, image).status == 0
    assert run("salvage", packed).status == 0
    manifest = tmp_path / "m.json"
    assert run("send", f"d={image}", "--to", plain, "--manifest", manifest, "-q").status == 0
    assert run("validate", packed, "--manifest", manifest).status == 0
    assert set(tmp_path.iterdir()) == {packed, plain, image, tmp_path / "out", manifest}


def test_it_is_what_came_and_has_no_name(
    capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    if capture.path.stat().st_size > 60 * MIB:
        return
    with open_stream(f"exec:cat {capture.path}", again=True) as stream:
        assert stream.seekable
        assert stream.input.peek_at(0, 1 << 30) == capture.data
        assert stream.input.damage is None
        assert not list(tmp_path.iterdir())


def test_zeros_take_no_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    files = []
    original = tempfile.TemporaryFile

    def made(**named: Any) -> Any:
        files.append(original(**named))
        return files[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", made)
    with open_stream("exec:head -c 300M /dev/zero; printf x", again=True) as stream:
        assert stream.input.seekable
        assert stream.input.size is None
        stream.input.complete()
        assert stream.input.size == 300 * MIB + 1
        assert os.fstat(files[0].fileno()).st_blocks * 512 < MIB


def test_endless_zeros_are_not_copied_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SPOOLED_ZEROS_MAX", 3 * MIB)
    with open_stream("exec:printf QEVM; cat /dev/zero", again=True) as stream:
        assert stream.input.seekable
        stream.input.complete()
        assert stream.input.size is not None
        assert 3 * MIB < stream.input.size < 6 * MIB
        assert isinstance(stream.input.damage, LimitError)
    # Zeros that end in time are a stream's own.
    with open_stream("exec:head -c 3M /dev/zero; printf x; head -c 3M /dev/zero", again=True) as s:
        assert s.input.seekable
        s.input.complete()
        assert (s.input.size, s.input.damage) == (6 * MIB + 1, None)


def test_no_more_is_copied_than_is_read() -> None:
    """It does not wait for a peer that does not hang up after its stream."""
    read, write = os.pipe()
    os.write(write, STREAM[:60_000])
    with open_stream(f"fd:{read}", again=True) as stream:
        assert stream.input.peek(8) == STREAM[:8]
        assert stream.input.seekable
        other = stream.input.again()
        assert other.peek_at(59_990, 10) == STREAM[59_990:60_000]
        assert (other.offset, other.size, other.in_place) == (0, None, False)
        os.close(write)
        assert other.available(70_000) == 60_000
        assert stream.input.size == 60_000
    os.close(read)


def test_a_cut_file_gives_what_came(run: Run, packed: Path, tmp_path: Path) -> None:
    content = packed.read_bytes()
    for cut in (len(content) - 4, len(content) // 2):
        packed.write_bytes(content[:cut])
        image = tmp_path / "disk"
        fails(run("extract", packed, "--to", image, "-q"), 3, "")
        assert not image.exists()
        outcome = run("salvage", packed)
        assert outcome.status in (1, 3)
        assert outcome.status == 3 or "damaged in 1 place" in outcome.out
    packed.write_bytes(content[:-8] + bytes([content[-8] ^ 1]) + content[-7:])  # its check sum
    fails(run("compare", packed, packed), 3, "the gzip data is damaged")
    outcome = run("salvage", packed)
    assert outcome.status == 1
    assert "damaged in 1 place" in outcome.out


def test_some_room_is_left(
    run: Run, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ROOM_LEFT", 1)
    outcome = run("extract", packed, "--to", tmp_path / "disk", "-q")
    fails(outcome, 4, "set TMPDIR")
    monkeypatch.undo()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    fails(run("extract", packed, "--to", tmp_path / "disk", "-q"), 4, "No such file")


ROOM = "set TMPDIR to a folder with enough space, or unpack the stream to a file yourself"


def copied(data: bytes) -> None:
    with ExitStack() as stack:
        spool(piped(data), stack).complete()


def test_what_is_said_where_there_is_no_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(limits, "ROOM_LEFT", 1)
    with pytest.raises(FailureError) as error:
        copied(b"x")
    assert str(error.value) == (
        f"a copy of the stream in {tmp_path} would leave less than 1/1 of its file system free; "
        f"{ROOM}"
    )
    monkeypatch.undo()
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "ftruncate", full)
    with pytest.raises(FailureError) as error:
        copied(b"x")
    assert str(error.value) == (
        f"cannot keep a copy of the stream in {tmp_path}: No space left on device; {ROOM}"
    )
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    with pytest.raises(FailureError) as error:
        copied(b"x")
    assert str(error.value) == (
        f"cannot keep a copy of the stream in {tmp_path}/none: No such file or directory; {ROOM}"
    )


@pytest.mark.parametrize(("most", "damaged"), [(99, True), (100, False)])
def test_how_many_zeros_are_copied(
    monkeypatch: pytest.MonkeyPatch, most: int, damaged: bool
) -> None:
    """In a row: any other byte ends it."""
    monkeypatch.setattr(limits, "SPOOLED_ZEROS_MAX", most)
    monkeypatch.setattr(module, "_HOLE", 10)
    monkeypatch.setattr(module, "_PIECE", 10)
    data = bytes(50) + b"x" + bytes(9) + bytes(100) + b"y" + bytes(9) + bytes(90)
    with ExitStack() as stack:
        made = spool(piped(data), stack)
        made.complete()
        if not damaged:
            assert (made.damage, made.size) == (None, len(data))
            assert made.peek_at(0, 1000) == data
            return
        assert isinstance(made.damage, LimitError)
        assert str(made.damage) == (
            "over 0 GiB of zeros in a row are not copied to a temporary file; "
            "save the stream to a file and read that"
        )


@pytest.mark.parametrize(
    ("step", "checks"), [(1000, [0, 1000, 2000]), (1001, [0, 1400]), (5000, [0])]
)
def test_how_often_room_is_checked(
    monkeypatch: pytest.MonkeyPatch, step: int, checks: list[int]
) -> None:
    """Before the first byte, and after so many."""
    seen: list[int] = []
    original = os.fstatvfs

    def look(fd: int) -> os.statvfs_result:
        seen.append(os.fstat(fd).st_size)
        return original(fd)

    monkeypatch.setattr(os, "fstatvfs", look)
    monkeypatch.setattr(module, "_CHECK", step)
    monkeypatch.setattr(module, "_PIECE", 1000 if step == 1000 else 700)
    copied(b"x" * 2800)
    assert seen == checks


def test_a_stream_that_is_damaged(tmp_path: Path) -> None:
    """What came before is there."""
    path = tmp_path / "s.gz"
    path.write_bytes(gzip.compress(STREAM)[:-9])
    with open_stream(str(path), again=True) as stream:
        source = stream.input
        assert source.seekable
        assert source.size is None
        source.complete()
        assert source.peek_at(0, 1 << 30) == STREAM[: source.size]
        assert isinstance(source.damage, TruncatedError)
        other = source.again()
        assert (other.damage, other.size, other.origin) == (source.damage, source.size, 0)
        assert other.version() == (0, 0)
