"""What can be read once, and is read twice: copied to a file without a name, with its zeros as holes."""

import gzip
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli import limits
from blkmig_cli.errors import LimitError
from blkmig_cli.transport.source import open_stream
from tests.conftest import Capture, Run, fails
from tests.support import raw

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
