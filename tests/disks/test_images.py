"""Raw images: holes, extents, the disk's end, and what is refused."""

import errno
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli import limits
from blkmig_cli.disks import new_image
from blkmig_cli.disks import open as open_module
from blkmig_cli.disks.image import Beginning
from blkmig_cli.disks.new_image import create_partial, finish, open_partial
from blkmig_cli.disks.open import open_image
from blkmig_cli.disks.qemu import daemon
from blkmig_cli.disks.qemu.image import QemuImage
from blkmig_cli.disks.raw import RawImage, open_raw
from blkmig_cli.errors import FailureError
from tests.support.long import examples
from tests.support.nbd import tool

MIB = 1 << 20


def made(path: str, size: int) -> RawImage:
    """A new image under its name."""
    image = create_partial(f"{path}.partial")
    assert isinstance(image, RawImage)
    image.resize(size)
    finish(image, path, replace=False)
    return image


@pytest.fixture
def image(tmp_path: Path) -> Iterator[RawImage]:
    found = made(str(tmp_path / "disk"), 8 * MIB)
    yield found
    found.close()


def blocks(image: RawImage) -> int:
    """Bytes of space in use."""
    image.flush()
    return os.stat(image.path).st_blocks * 512


def test_a_raw_image_needs_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    made(str(tmp_path / "disk"), MIB).close()
    assert os.path.getsize(tmp_path / "disk") == MIB


def test_a_new_image_is_sparse(image: RawImage) -> None:
    assert image.size == os.path.getsize(image.path) == 8 * MIB
    assert blocks(image) < MIB
    assert list(image.extents()) == []
    assert image.read(3 * MIB, 1000) == bytes(1000)


def test_write_and_read(image: RawImage) -> None:
    data = bytes(range(256)) * 16
    image.write(5 * MIB + 7, memoryview(data))
    assert image.read(5 * MIB + 7, len(data)) == data
    assert image.read(5 * MIB + 6, 2) == b"\0\0"
    extents = list(image.extents())
    assert len(extents) == 1
    start, length = extents[0]
    assert start <= 5 * MIB + 7
    assert start + length >= 5 * MIB + 7 + len(data)
    assert length < MIB


def test_extents_cover_all_data_and_skip_holes(image: RawImage) -> None:
    for at in (0, 2 * MIB, 7 * MIB):
        image.write(at, memoryview(b"\1" * MIB))
    assert list(image.extents()) == [(0, MIB), (2 * MIB, MIB), (7 * MIB, MIB)]


def test_zero_frees_space(image: RawImage) -> None:
    image.write(0, memoryview(b"\1" * (8 * MIB)))
    full = blocks(image)
    image.zero(MIB, 6 * MIB)
    assert image.read(0, 8 * MIB) == b"\1" * MIB + bytes(6 * MIB) + b"\1" * MIB
    assert full - blocks(image) >= 5 * MIB
    assert image.size == 8 * MIB


def test_zero_inside_a_page(image: RawImage) -> None:
    image.write(0, memoryview(b"\1" * 8192))
    image.zero(100, 5000)
    assert image.read(0, 8192) == b"\1" * 100 + bytes(5000) + b"\1" * 3092


@pytest.mark.parametrize(
    ("offset", "length"), [(8 * MIB, 1), (8 * MIB - 1, 2), (-1, 1), (0, 9 * MIB)]
)
def test_nothing_goes_past_the_end(image: RawImage, offset: int, length: int) -> None:
    with pytest.raises(ValueError, match="past the disk's end"):
        image.write(offset, memoryview(b"\1" * length))
    with pytest.raises(ValueError, match="past the disk's end"):
        image.zero(offset, length)
    assert os.path.getsize(image.path) == 8 * MIB
    assert blocks(image) < MIB


def test_resize(image: RawImage) -> None:
    image.write(0, memoryview(b"\1" * 1000))
    image.resize(500)
    assert image.size == os.path.getsize(image.path) == 500
    image.resize(2000)
    assert image.read(0, 2000) == b"\1" * 500 + bytes(1500)


def test_a_shorter_file_is_a_failure(image: RawImage) -> None:
    os.truncate(image.path, 100)
    with pytest.raises(FailureError, match="shorter"):
        image.read(0, 200)


MAGICS = [
    b"QFI\xfb", b"QED\0", b"KDMV", b"COWD", b"# Disk DescriptorFile", b"vhdxfile", b"conectix",
    b"<<< QEMU VM Virtual Disk Image >>>", b"WithoutFreeSpace", b"WithouFreSpacExt",
    b"LUKS\xba\xbe",
]  # fmt: skip


@pytest.mark.parametrize("magic", MAGICS)
def test_other_formats_are_refused(tmp_path: Path, magic: bytes) -> None:
    path = tmp_path / "disk"
    path.write_bytes(magic.ljust(4096, b"\0"))
    with pytest.raises(FailureError, match="-f raw"):
        open_image(str(path), writable=True)
    forced = open_image(str(path), image_format="raw")
    assert forced.read(0, 4) == magic[:4]
    forced.close()
    path.write_bytes(b"\0" + magic)
    open_image(str(path)).close()


def test_the_cache_is_dropped(image: RawImage, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the file; --verify would compare what the cache holds otherwise."""
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *given: calls.append(given))
    image.uncache()
    ((fd, *rest),) = calls
    assert os.path.samestat(os.fstat(fd), os.stat(image.path))  # type: ignore[arg-type]
    assert rest == [0, 0, os.POSIX_FADV_DONTNEED]


def test_what_the_system_reports(image: RawImage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors name the image, and the byte at which it failed."""

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    path = re.escape(image.path)
    image.write(0, memoryview(b"x" * 4096))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", fail)
        patch.setattr(os, "preadv", fail)
        with pytest.raises(FailureError, match=f"^{path}: Input/output error at its byte 512$"):
            image.read(512, 1)
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            with pytest.raises(FailureError, match=f"^{path}: Input/output error at its byte 512$"):
                image.copy_to(null, 512, 100)
        finally:
            os.close(null)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        patch.setattr(os, "fsync", fail)
        with pytest.raises(FailureError, match=f"^{path}: Input/output error at its byte 0$"):
            image.flush()


@pytest.mark.parametrize(
    "stated", [{}, {"writable": True}, {"writable": True, "claimed": True}, {"shared": True}]
)
def test_how_an_image_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stated: dict[str, Any]
) -> None:
    """Unless stated otherwise: for reading, for nobody else to write, and no device that is in use."""
    path = tmp_path / "disk"
    path.write_bytes(bytes(512))
    given: list[dict[str, bool]] = []

    def opened(path: str, **how: bool) -> RawImage:
        given.append(how)
        return open_raw(path, writable=how["writable"], shared=how["shared"])

    monkeypatch.setattr(open_module, "open_raw", opened)
    open_module.open_image(str(path), **stated).close()
    assert given == [{"writable": False, "shared": False, "claimed": False} | stated]


def test_a_raw_image_has_no_bitmaps(image: RawImage) -> None:
    with pytest.raises(FailureError, match="has no bitmap 'b'"):
        image.read_bitmap("b")
    with pytest.raises(FailureError, match="has no place for bitmaps"):
        image.write_bitmaps([])
    with pytest.raises(FailureError, match="has no bitmap 'b'"):
        image.remove_bitmap("b")


def test_short_reads(image: RawImage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may give less than it was asked for."""
    data = bytes(range(250)) * 40
    image.write(0, memoryview(data))
    original = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, at: original(fd, min(length, 999), at))
    assert image.read(0, len(data)) == data


def test_where_there_is_data(image: RawImage) -> None:
    assert not list(image.data_in(0, 8 * MIB))
    image.write(4 * MIB, memoryview(b"x"))
    assert list(image.data_in(0, 8 * MIB))
    assert not list(image.data_in(0, 4 * MIB))
    assert not list(image.data_in(5 * MIB, 3 * MIB))


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FailureError, match="--create"):
        open_raw(str(tmp_path / "away"), writable=True)
    for name in (tmp_path, tmp_path / "away" / "deeper"):
        with pytest.raises(FailureError):
            open_raw(str(name), writable=False)
    with pytest.raises(FailureError, match="neither a file nor a block device"):
        open_raw("/dev/null", writable=True)


def test_fifos_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for writable in (True, False):
        with pytest.raises(FailureError, match="neither a file nor a block device"):
            open_raw(str(tmp_path / "fifo"), writable=writable)


def test_names_that_announce_another_format(tmp_path: Path) -> None:
    for name in ("a.qcow2", "b.QCOW2", "c.vmdk", "d.vdi", "e.vhdx", "f.qcow"):
        path = tmp_path / name
        path.write_bytes(bytes(512))
        with pytest.raises(FailureError, match="-f raw"):
            open_image(str(path))
        open_image(str(path), image_format="raw").close()
    for name in ("a.img", "b.raw", "c", "qcow2", ".qcow2"):
        path = tmp_path / name
        path.write_bytes(bytes(512))
        open_image(str(path)).close()


STEPS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 99_999), st.integers(0, 30_000), st.integers(1, 255)),
    max_size=12,
)


@pytest.mark.scaled
@settings(max_examples=examples(17, 250))
@given(STEPS)
def test_against_bytes(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, int, int, int]]
) -> None:
    """Writes and zeros in any order read back as in a bytearray; extents miss no byte."""
    size = 100_000
    path = tmp_path_factory.mktemp("images") / "disk"
    image, model = made(str(path), size), bytearray(size)
    for write, at, length, value in steps:
        count = min(length, size - at)
        model[at : at + count] = bytes([value if write else 0]) * count
        if write:
            image.write(at, memoryview(bytes([value]) * count))
        else:
            image.zero(at, count)
    assert image.read(0, size) == model
    held = bytearray(size)
    last = 0
    for start, length in image.extents():
        assert start >= last
        last = start + length
        held[start:last] = model[start:last]
    assert held == model
    assert last <= size
    image.close()
    assert path.read_bytes() == model


def test_a_new_image_gets_its_name_when_it_is_finished(tmp_path: Path) -> None:
    path, partial = tmp_path / "disk", tmp_path / "disk.partial"
    image = create_partial(str(partial))
    image.resize(MIB)
    with pytest.raises(FailureError, match="File exists"):
        create_partial(str(partial))
    image.write(0, memoryview(b"x"))
    assert (path.exists(), partial.exists()) == (False, True)
    finish(image, str(path), replace=False)
    assert image.path == str(path)
    image.close()
    assert (path.exists(), partial.exists()) == (True, False)
    assert path.read_bytes() == b"x".ljust(MIB, b"\0")


def without_renameat2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_image, "_renameat2", lambda: None)


@pytest.mark.parametrize("system", ["renameat2", "rename"])
def test_a_name_that_is_taken_meanwhile_stays_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    if system == "rename":
        without_renameat2(monkeypatch)
    path, partial = tmp_path / "disk", tmp_path / "disk.partial"
    image = create_partial(str(partial))
    path.write_text("mine")
    with pytest.raises(FailureError, match="disk: File exists"):
        finish(image, str(path), replace=False)
    assert path.read_text() == "mine"
    finish(image, str(path), replace=True)
    image.close()
    assert path.read_text() == ""
    assert not partial.exists()


def test_systems_without_renameat2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_renameat2(monkeypatch)
    made(str(tmp_path / "disk"), MIB).close()
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]


def test_file_systems_without_renameat2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_image, "_RENAME_NOREPLACE", 1 << 20)  # EINVAL
    made(str(tmp_path / "disk"), MIB).close()
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]


def test_a_new_image_never_has_a_second_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("link")

    monkeypatch.setattr(os, "link", refuse)
    made(str(tmp_path / "disk"), MIB).close()


def test_an_unfinished_image_is_opened_once(tmp_path: Path) -> None:
    partial = tmp_path / "disk.partial"
    partial.write_bytes(b"half")
    first = open_partial(str(partial))
    assert first.size == 4
    with pytest.raises(FailureError, match="in use"):
        open_partial(str(partial))
    first.close()
    open_partial(str(partial)).close()


def test_what_is_no_unfinished_image(tmp_path: Path) -> None:
    partial, other = tmp_path / "disk.partial", tmp_path / "other"
    with pytest.raises(FailureError, match="No such file"):
        open_partial(str(partial))
    other.write_bytes(b"mine")
    partial.symlink_to(other)
    with pytest.raises(FailureError, match="is a symbolic link"):
        open_partial(str(partial))
    partial.unlink()
    partial.hardlink_to(other)
    with pytest.raises(FailureError, match="other hard links"):
        open_partial(str(partial))
    assert other.read_bytes() == b"mine"


def test_an_image_that_is_finished_before_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process renames it in between: its finished image must not be written."""
    partial = tmp_path / "disk.partial"

    def lock(*_: object, **__: object) -> None:
        partial.rename(tmp_path / "disk")

    monkeypatch.setattr(new_image, "lock", lock)
    with pytest.raises(FailureError, match=r"disk\.partial: "):
        create_partial(str(partial))
    partial.write_bytes(b"")
    with pytest.raises(FailureError, match=r"disk\.partial: "):
        open_partial(str(partial))


def test_the_beginning_of_an_image(image: RawImage) -> None:
    for at in (0, 2 * MIB, 5 * MIB):
        image.write(at, memoryview(b"\1" * MIB))
    part = Beginning(image, 2 * MIB + 512)
    assert part.size == 2 * MIB + 512
    assert list(part.extents()) == [(0, MIB), (2 * MIB, 512)]
    assert part.read(2 * MIB, 512) == b"\1" * 512
    assert part.is_zero(MIB, MIB)
    assert Beginning(image, 9 * MIB).size == image.size
    reader, writer = os.pipe()
    part.copy_to(writer, MIB - 1, 2)
    assert os.read(reader, 10) == b"\1\0"


def test_the_longest_message_of_a_storage_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The greeting is the longest of those at the start; it is read byte by byte."""
    words = [tool(daemon.PROGRAM), "--chardev", "stdio,id=m", "--monitor", "chardev=m"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        greeting = process.stdout.readline()
        process.terminate()
    monkeypatch.setattr(daemon, "_PIECE", 1)
    monkeypatch.setattr(limits, "QMP_MESSAGE_MAX", len(greeting) - 1)
    _start()
    monkeypatch.setattr(limits, "QMP_MESSAGE_MAX", len(greeting) - 2)
    with pytest.raises(FailureError, match="disk: qemu-storage-daemon ended"):
        _start()


def test_a_storage_daemon_that_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "_WORDS", [tool(daemon.PROGRAM), "--nonsense"])
    with pytest.raises(FailureError, match=r"disk: qemu-storage-daemon ended: .*nonsense"):
        _start()


def _start() -> None:
    with closing(daemon.StorageDaemon("disk")) as started:
        started.execute("query-named-block-nodes")


def test_one_thread_writes_and_many_read(tmp_path: Path) -> None:
    path = tmp_path / "d.qcow2"
    subprocess.run([tool("qemu-img"), "create", "-q", "-f", "qcow2", path, "1M"], check=True)
    with closing(open_image(str(path), writable=True)) as image:
        assert isinstance(image, QemuImage)
        image.begin_writing()
        asked = {"path": "/objects/loop", "property": "thread-pool-max"}
        found = [image._daemon.execute("qom-get", **asked)]
        image.write(0, memoryview(b"\1" * 512))
        image.end_writing()
        found.append(image._daemon.execute("qom-get", **asked))
        assert image.read(0, 513) == b"\1" * 512 + b"\0"
    assert found == [1, 64]
