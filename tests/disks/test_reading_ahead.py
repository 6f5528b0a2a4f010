"""What the system is told to read before it is read: of files, and which parts of them."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from blkmig_cli.disks import image as module
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, write_bitmaps
from blkmig_cli.disks.image import FilePart, announced
from blkmig_cli.disks.nbd.image import NbdImage
from blkmig_cli.disks.nbd.read_ahead import ReadAhead
from blkmig_cli.disks.open import open_image
from blkmig_cli.disks.qemu.daemon import StorageDaemon
from tests.conftest import Run
from tests.support.nbd import run as run_program
from tests.support.nbd import tool
from tests.support.peers import PATIENCE

MIB = 1 << 20
BASE = "01234567-89ab-cdef-0123-456789abcdef"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[FilePart]:
    """The parts of files that the system is told to read."""
    parts: list[FilePart] = []

    def tell(part: FilePart) -> None:
        parts.append(part)

    monkeypatch.setattr(FilePart, "will_need", tell)
    return parts


def cached(fd: int, at: int) -> bool:
    try:
        os.preadv(fd, [bytearray(1)], at, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    return True


def test_the_system_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 4 * MIB)
    with path.open("rb") as file:
        fd = file.fileno()
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        if cached(fd, MIB) or cached(fd, 2 * MIB - 1):
            pytest.skip("this file system keeps files in the cache")
        FilePart(fd, MIB, MIB).will_need()
        end = time.monotonic() + PATIENCE
        while not (cached(fd, MIB) and cached(fd, 2 * MIB - 1)):
            assert time.monotonic() < end
            time.sleep(0.01)


@pytest.mark.parametrize(
    ("there", "advised"),
    [((), True), ((5,), True), ((14,), True), ((5, 14), False), (None, True)],
)
def test_what_is_in_the_cache(
    monkeypatch: pytest.MonkeyPatch, there: tuple[int, ...] | None, advised: bool
) -> None:
    """It is not asked for again; None: the file system cannot tell.  Failures do not matter."""

    def preadv(_fd: int, _buffers: list[bytearray], at: int, flags: int) -> int:
        assert flags == os.RWF_NOWAIT
        if there is None:
            raise OSError(95, "Operation not supported")
        if at not in there:
            raise BlockingIOError
        return 1

    def advise(*given: int) -> None:
        calls.append(given)
        raise OSError(22, "Invalid argument")

    calls: list[tuple[int, ...]] = []
    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(os, "posix_fadvise", advise)
    FilePart(9, 5, 10).will_need()
    assert calls == [(9, 5, 10, os.POSIX_FADV_WILLNEED)] * advised
    # A length of 0 would be all of the file.
    FilePart(9, 5, 0).will_need()
    assert len(calls) == advised


def test_ranges_that_come_are_announced(
    monkeypatch: pytest.MonkeyPatch, told: list[FilePart]
) -> None:
    monkeypatch.setattr(module, "_ANNOUNCED", 2)
    ranges = [(10 * MIB * at, (at + 1) * MIB // 2) for at in range(6)]

    def places(offset: int, length: int) -> Iterator[FilePart]:
        yield FilePart(3, offset + 7, length)

    found = []
    for each in announced(ranges, places):
        found.append(each)
        wanted = ranges[: len(found) + 2]
        # Of a long range, the first chunk.
        assert told == [FilePart(3, start + 7, min(length, MIB)) for start, length in wanted]
    assert found == ranges


def test_holes_are_not_read_ahead(tmp_path: Path, told: list[FilePart]) -> None:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(8 * MIB)
        os.pwrite(file.fileno(), b"x" * MIB, MIB)
        os.pwrite(file.fileno(), b"y" * 65536, 5 * MIB + 65536)
    with closing(open_image(str(path))) as image:
        ranges = [(0, MIB), (MIB, MIB), (4 * MIB, 2 * MIB)]
        assert list(image.planned(ranges)) == ranges
        assert list(image.planned([(5 * MIB, MIB)])) == [(5 * MIB, MIB)]
        data = [(part.offset, part.length) for part in told]
        assert data == [(MIB, MIB), (5 * MIB + 65536, 65536)]


@pytest.fixture
def qcow2(tmp_path: Path) -> Path:
    """An image of 32 MiB, of which each third chunk has data; that of chunk 9 is compressed."""
    raw, image = tmp_path / "disk.img", tmp_path / "disk.qcow2"
    with raw.open("wb") as file:
        file.truncate(32 * MIB)
        for chunk in {*range(0, 32, 3)} - {9}:
            os.pwrite(file.fileno(), bytes([chunk + 1]) * MIB, chunk * MIB)
    run_program("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image)
    words = ["-f", "qcow2", "-c", f"write -c -P 77 {9 * MIB} 1M"]
    run_program("qemu-io", *words, image)
    tool("qemu-storage-daemon")
    return image


def test_data_of_a_qcow2_image_is_read_ahead_in_its_file(qcow2: Path, told: list[FilePart]) -> None:
    with closing(open_image(str(qcow2))) as image:
        for at, (start, length) in enumerate(image.planned((n * MIB, MIB) for n in range(20))):
            assert (start, length) == (at * MIB, MIB)
            # What is read ahead stays known, and what is before it.
            data = list(image.data_in(start, length))
            assert data == ([(start, MIB)] if at % 3 == 0 else [])
            assert bool(image.places(start, length)) == (at % 3 == 0 and at != 9)
        found = b"".join(os.pread(part.fd, part.length, part.offset) for part in told)
        assert found == b"".join(bytes([at + 1]) * MIB for at in range(0, 20, 3) if at != 9)


def test_an_increment_of_a_qcow2_image_is_read_from_its_file(
    qcow2: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not through the daemon, which takes longer, except for what is compressed."""
    run_program("qemu-img", "bitmap", "--add", "-f", "qcow2", qcow2, "b")
    words = ["-f", "qcow2", "-c", f"write -P 5 {2 * MIB} 3M", "-c", f"write -P 6 {30 * MIB} 1k"]
    run_program("qemu-io", *words, qcow2)
    through: list[tuple[int, int]] = []

    def is_zero(_image: NbdImage, offset: int, length: int) -> bool:
        through.append((offset, length))
        return False

    monkeypatch.setattr(NbdImage, "data_in", lambda *_: pytest.fail("the daemon was asked"))
    monkeypatch.setattr(NbdImage, "is_zero", is_zero)
    target, options = tmp_path / "s.bin", ["--since", "b", "--mark", "c", "--base", BASE]
    for number, dialect in enumerate(("qemu", "v1", "classic")):
        options[3] = f"c{number}"
        sent = run("send", qcow2, *options, "--dialect", dialect, "--to", target)
        assert sent.status == 0
        assert target.stat().st_size > 4 * MIB
    assert through == []
    # The new bitmaps are there, and record.
    run_program("qemu-io", "-f", "qcow2", "-c", f"write -P 5 {7 * MIB} 1k", qcow2)
    again = run("send", qcow2, "--since", "c2", "--base", BASE, "--to", target)
    assert again.status == 0
    assert MIB < target.stat().st_size < 2 * MIB


def test_the_daemon_is_told_what_comes_next(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is asked for data, so that it reads ahead nothing else."""
    tool("qemu-storage-daemon")
    disk, image, target = tmp_path / "d.img", tmp_path / "d.qcow2", tmp_path / "s.bin"
    disk.write_bytes(b"x" * 32 * MIB)
    run_program("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", disk, image)
    bitmaps = BitmapFile(32 * MIB, {"b": DirtyBitmap("b", 65536)})
    for chunk in range(0, 32, 6):
        bitmaps.bitmaps["b"].set_range(chunk * MIB, 1)
    write_bitmaps(tmp_path / "b.json", bitmaps)
    expected: list[int] = []
    expect = ReadAhead.expect

    def expecting(reader: ReadAhead, start: int, length: int) -> None:
        expected.append(start // MIB)
        expect(reader, start, length)

    monkeypatch.setattr(ReadAhead, "expect", expecting)
    words = ["--since", "b", "--bitmaps-from", tmp_path / "b.json", "--base", BASE]
    assert run("send", image, *words, "--to", target).status == 0
    assert expected == [6, 12, 18, 24, 30]
    assert target.read_bytes().count(b"x" * MIB) == 6


def test_a_qcow2_image_is_read_from_its_file(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon, which has the lock, is not asked for data, unless some is compressed."""
    tool("qemu-storage-daemon")
    disk, image, packed = (tmp_path / name for name in ("d.img", "d.qcow2", "c.qcow2"))
    disk.write_bytes(b"x" * MIB + bytes(MIB) + b"y" * MIB + bytes(MIB + 512))
    for target, *more in ((image,), (packed, "-c")):
        run_program("qemu-img", "convert", *more, "-f", "raw", "-O", "qcow2", disk, target)
    connected, connect = 0, StorageDaemon.connect

    def counting(daemon: StorageDaemon) -> socket.socket:
        nonlocal connected
        connected += 1
        return connect(daemon)

    monkeypatch.setattr(StorageDaemon, "connect", counting)
    for source, times in ((image, 0), (packed, 1)):
        target = tmp_path / "s.bin"
        assert run("send", source, "--to", target).status == 0
        assert connected == times
        assert run("compare", target, f"drive0={disk}", "-f", "raw", "--strict").status == 0


def test_what_is_copied_by_threads_is_read_ahead(
    tmp_path: Path, run: Run, told: list[FilePart]
) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"x" * 2 * MIB + bytes(MIB) + b"y" * 512)
    assert run("send", disk, "--dialect", "classic", "--to", tmp_path / "s.bin").status == 0
    assert [(part.offset, part.length) for part in told] == [(0, MIB), (MIB, MIB), (3 * MIB, 512)]
