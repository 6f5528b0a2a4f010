"""NbdImage against real servers, judged by libnbd's programs and a bytearray."""

import errno
import json
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli.disks.image import FilePart
from blkmig_cli.disks.nbd.channel import SocketChannel
from blkmig_cli.disks.nbd.connection import Connection
from blkmig_cli.disks.nbd.handshake import negotiate
from blkmig_cli.disks.nbd.image import NbdImage, open_nbd
from blkmig_cli.disks.nbd.replies import Request
from blkmig_cli.errors import FailureError
from blkmig_cli.schemas.nbd import Command, ExportFlag
from blkmig_cli.system.nbd_uri import parse_nbd_uri
from tests.support.long import examples
from tests.support.nbd import ended, joined, mapped, nbdkit, opened, qcow2, qemu_nbd, run, tool, uri
from tests.support.peers import connect, wait_until

KIB, MIB = 1 << 10, 1 << 20


def content(image: NbdImage) -> bytes:
    return image.read(0, image.size)


def copied(image: NbdImage, offset: int, length: int, folder: Path) -> bytes:
    path = folder / "copied"
    with open(path, "wb") as file:
        image.copy_to(file.fileno(), offset, length)
    return path.read_bytes()


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A qcow2 of 64 MiB with data, zeros and holes, not all of them on the grid of chunks."""
    return qcow2(
        tmp_path / "disk",
        64 * MIB,
        "write -q -P 17 0 3M",
        "write -q -P 34 10M 64k",
        "write -q -z 12M 2M",
        "write -q -P 51 20544k 5M",
        "write -q -P 68 65472k 64k",
    )


@pytest.fixture
def disk_server(disk: Path) -> Iterator[tuple[str, bytes]]:
    """A server of the disk, and what it holds."""
    with qemu_nbd(disk, "-r", format="qcow2") as path, opened(path) as image:
        yield path, content(image)


def test_reading(disk: Path, tmp_path: Path) -> None:
    with qemu_nbd(disk, format="qcow2") as path:
        run("nbdcopy", uri(path), tmp_path / "theirs")
        truth = (tmp_path / "theirs").read_bytes()
        with opened(path) as image:
            assert image.size == len(truth) == 64 * MIB
            assert content(image) == truth
            for offset, length in [(0, 1), (3 * MIB - 5, 10), (20 * MIB + 1, 7 * MIB), (5, 0)]:
                part = truth[offset : offset + length]
                assert image.read(offset, length) == part
                assert image.is_zero(offset, length) == (not any(part))
                assert copied(image, offset, length, tmp_path) == part


def test_extents(disk: Path) -> None:
    with qemu_nbd(disk, format="qcow2") as path, opened(path) as image:
        theirs = [
            (extent["offset"], extent["length"])
            for extent in mapped(path)
            if not extent["type"] & 2
        ]
        assert list(image.extents()) == joined(theirs)
        assert list(image.data_in(10 * MIB, 1))
        assert not list(image.data_in(12 * MIB, 2 * MIB))
        assert list(image.known_zeros(0, 64 * MIB)) == []


def test_the_pattern_of_send(disk: Path, tmp_path: Path) -> None:
    """Chunks of extents, ascending: first whether they are zero, then a copy."""
    with qemu_nbd(disk, format="qcow2") as path, opened(path) as image:
        truth, found = content(image), bytearray(64 * MIB)
        for start, length in image.extents():
            for at in range(start // MIB * MIB, start + length, MIB):
                if not image.is_zero(at, MIB):
                    found[at : at + MIB] = copied(image, at, MIB, tmp_path)
        assert found == truth


def test_bitmaps(disk: Path) -> None:
    for name in ("b0", "b1"):
        run("qemu-img", "bitmap", "--add", disk, name)
    run("qemu-io", "-c", "write -q 30M 100k", "-c", "write -q 40M 64k", disk)
    with qemu_nbd(disk, "-r", "-B", "b0", "-B", "b1", format="qcow2") as path:
        with opened(path, bitmaps="all") as image:
            assert sorted(image.bitmap_names()) == ["b0", "b1"]
            stored = image.bitmaps() or []
            assert sorted(found.name for found in stored) == ["b0", "b1"]
            theirs = [
                (extent["offset"], extent["length"])
                for extent in mapped(path, "qemu:dirty-bitmap:b0")
                if extent["type"] & 1
            ]
            assert list(image.dirty_ranges("b0")) == theirs
            assert theirs == [(30 * MIB, 128 * KIB), (40 * MIB, 64 * KIB)]
        with opened(path, bitmaps=["b1", "b2"]) as image:
            assert image.bitmap_names() == ["b1"]
            assert list(image.dirty_ranges("b1")) == theirs
            with pytest.raises(FailureError, match="has no dirty bitmap 'b2'"):
                image.dirty_ranges("b2")
        with opened(path) as image:
            assert image.bitmaps() is None


def test_the_own_layer(disk: Path, tmp_path: Path) -> None:
    top = qcow2(
        tmp_path / "top",
        64 * MIB,
        "write -q -P 99 1M 1M",
        "write -q -z 20M 2M",
        "write -q -P 98 22M 64k",
        backing=disk,
    )
    with qemu_nbd(top, "-A", format="qcow2") as path:
        depths = mapped(path, "qemu:allocation-depth")
        own = [(extent["offset"], extent["length"]) for extent in depths if extent["type"] == 1]
        with opened(path, own_layer=True) as image:
            assert list(image.extents()) == own
            assert own == [(MIB, MIB), (20 * MIB, 2 * MIB + 64 * KIB)]
            assert list(image.known_zeros(0, 64 * MIB)) == [(20 * MIB, 2 * MIB)]
            assert list(image.known_zeros(21 * MIB, 2 * MIB)) == [(21 * MIB, MIB)]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "part", "zero", "read"]),
        st.integers(0, 1_100_000),
        st.one_of(st.integers(0, 2_000), st.integers(0, 900_000)),
        st.integers(1, 255),
    ),
    max_size=12,
)
SIZE = 1 << 20


def server(kind: str, folder: Path) -> AbstractContextManager[str]:
    """Serve a disk of about SIZE for writing."""
    if kind in ("raw", "qcow2"):
        image = folder / kind
        run("qemu-img", "create", "-q", "-f", kind, image, SIZE)
        return qemu_nbd(image, format=kind)
    if kind == "blocks of 4 KiB":
        policy = ("blocksize-error-policy=error", "blocksize-minimum=4096")
        limits = ("blocksize-preferred=4096", "blocksize-maximum=65536")
        return nbdkit("--filter=blocksize-policy", "memory", SIZE, *policy, *limits)
    if kind == "no-sr":
        return nbdkit("--no-sr", "memory", SIZE)
    if kind == "no zeroes":
        return nbdkit("--filter=nozero", "memory", SIZE, "zeromode=none")
    return nbdkit("memory", SIZE - 12_345)


@pytest.mark.parametrize(
    "kind",
    [
        *("raw", "blocks of 4 KiB", "no-sr", "odd size"),
        *(pytest.param(kind, marks=pytest.mark.long) for kind in ("qcow2", "no zeroes")),
    ],
)
def test_against_bytes(kind: str, tmp_path: Path) -> None:
    """Whatever is written and zeroed in any order reads back as in a bytearray."""
    with server(kind, tmp_path) as path, opened(path, writable=True) as image:
        model = bytearray(image.size)

        @settings(max_examples=30)
        @given(STEPS)
        def check(steps: list[tuple[str, int, int, int]]) -> None:
            for what, start, length, value in steps:
                at = min(start, image.size)
                count = min(length, image.size - at)
                if what == "write":
                    model[at : at + count] = bytes([value]) * count
                    image.write(at, memoryview(bytes([value]) * count))
                elif what == "part":
                    at, count = at & -512, count & -512
                    model[at : at + count] = bytes([value]) * count
                    file.write_bytes(b"before" + bytes([value]) * count)
                    if image.write_part(at, FilePart(fd, 6, count)):
                        taken.add(count)
                    else:
                        image.write(at, memoryview(bytes([value]) * count))
                elif what == "zero":
                    model[at : at + count] = bytes(count)
                    image.zero(at, count)
                assert image.is_zero(at, count) == (not any(model[at : at + count]))
                assert image.read(at, count) == model[at : at + count]
            held = bytearray(image.size)
            for start, length in image.extents():
                held[start : start + length] = model[start : start + length]
            assert held == model

        file = tmp_path / "file"
        file.touch()
        fd, taken = os.open(file, os.O_RDONLY), set[int]()
        check()
        os.close(fd)
        assert any(taken) or kind == "blocks of 4 KiB"
        image.flush()
        with opened(path) as again:
            assert content(again) == model


@contextmanager
def part(folder: Path, data: bytes) -> Iterator[FilePart]:
    """Bytes of a file that has others before and behind them."""
    (folder / "part").write_bytes(b"before" + data + b"behind")
    with (folder / "part").open("rb") as file:
        yield FilePart(file.fileno(), 6, len(data))


def test_parts_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Larger than a request; also of a file system that cannot send them."""
    data = bytes(5 * MIB + 512).replace(b"\0" * 4096, b"x" + b"\0" * 4095)

    def fails(*words: object) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    for able in (True, False):
        if not able:
            monkeypatch.setattr(os, "sendfile", fails)
        with (
            nbdkit("memory", "8M") as path,
            opened(path, writable=True) as image,
            part(tmp_path, data) as some,
        ):
            assert image.write_part(MIB + 512, some)
            expected = (bytes(MIB + 512) + data).ljust(8 * MIB, b"\0")
            assert content(image) == expected
            with pytest.raises(ValueError, match="past the disk's end"):
                image.write_part(3 * MIB, some)


def test_parts_of_files_that_are_not_sent(tmp_path: Path) -> None:
    """Those that begin with zeros, or are no whole blocks, or cannot be read; nor in TLS."""
    policy = ("blocksize-error-policy=error", "blocksize-minimum=4096")
    limits = ("blocksize-preferred=4096", "blocksize-maximum=65536")
    blocks = nbdkit("--filter=blocksize-policy", "memory", "1M", *policy, *limits)
    with blocks as path, opened(path, writable=True) as image:
        with part(tmp_path, bytes(4096) + b"x" * 4096) as some:
            assert not image.write_part(4096, some)
        with part(tmp_path, b"x" * 128 * KIB) as some:
            assert image.write_part(4096, some)
            assert not image.write_part(512, some)
            assert not image.write_part(8192, replace(some, length=512))
        assert not image.write_part(0, FilePart(os.open(tmp_path, os.O_RDONLY), 0, 4096))
        assert content(image) == (bytes(4096) + b"x" * 128 * KIB).ljust(MIB, b"\0")


def test_what_cannot_be_written(disk: Path) -> None:
    with qemu_nbd(disk, "-r", format="qcow2") as path:
        with (
            pytest.raises(FailureError, match="is a read-only export"),
            opened(path, writable=True),
        ):
            pass
        with pytest.raises(FailureError, match="the server has no export 'x'"), opened(path, "x"):
            pass
    unsafe = nbdkit("eval", "get_size=echo 4096", "pwrite=exit 0", "pread=exit 1")
    with unsafe as path, pytest.raises(FailureError, match="the server cannot flush"):
        open_nbd(parse_nbd_uri(uri(path)), writable=True)
    with pytest.raises(FailureError, match="s: No such file or directory"):
        open_nbd(parse_nbd_uri(uri(os.path.join(path, "s"))), writable=False)


def test_what_the_server_states(tmp_path: Path) -> None:
    """As nbdinfo reads it."""
    sizes = ("blocksize-minimum=4096", "blocksize-preferred=4096", "blocksize-maximum=1M")
    for server in (
        nbdkit("--filter=blocksize-policy", "memory", 999_424, *sizes),
        nbdkit("memory", 12_345),
        qemu_nbd(qcow2(tmp_path / "disk", MIB), "-r", format="qcow2"),
    ):
        with server as path, opened(path) as image:
            (theirs,) = json.loads(run("nbdinfo", "--json", uri(path)))["exports"]
            channel = SocketChannel(connect(Path(path)))
            ours = negotiate(channel, "", "x")
            channel.close()
            assert ours.size == image.size == theirs["export-size"]
            assert ours.has(ExportFlag.READ_ONLY) == theirs["is_read_only"]
            assert ours.has(ExportFlag.SEND_FLUSH) == theirs["can_flush"]
            assert ours.has(ExportFlag.SEND_WRITE_ZEROES) == theirs["can_zero"]
            if "block_size_minimum" in theirs:
                limits = theirs["block_size_minimum"], theirs["block_size_maximum"]
                assert (ours.minimum, ours.maximum) == limits


def test_a_layer_without_depths(tmp_path: Path) -> None:
    """Holes are what it does not hold; of a server without any block status, nothing is known."""
    disk = qcow2(tmp_path / "disk", 4 * MIB, "write -q -P 1 1M 64k", "write -q -z 2M 1M")
    with qemu_nbd(disk, format="qcow2") as path, opened(path, own_layer=True) as image:
        kept = [
            (extent["offset"], extent["length"])
            for extent in mapped(path)
            if not extent["type"] & 1
        ]
        assert list(image.extents()) == joined(kept)
        assert list(image.known_zeros(0, 4 * MIB)) == [
            (start, length) for start, length in kept if start >= 2 * MIB
        ]
    for own_layer in (False, True):
        with nbdkit("--no-sr", "memory", "4M") as path, opened(path, own_layer=own_layer) as image:
            assert list(image.extents()) == [(0, 4 * MIB)]
            assert list(image.known_zeros(0, 4 * MIB)) == []
            assert list(image.data_in(5, 1))
            assert image.is_zero(0, 4 * MIB)


def test_an_empty_disk() -> None:
    with nbdkit("memory", 0) as path, opened(path) as image:
        assert (image.size, image.read(0, 0), list(image.extents())) == (0, b"", [])
        assert image.is_zero(0, 0)


def test_ranges_past_the_end() -> None:
    with nbdkit("memory", "1M") as path, opened(path, writable=True) as image:
        for offset, length in [(MIB, 1), (-1, 1), (MIB - 1, 2)]:
            for act in (image.read, image.is_zero, image.zero):
                with pytest.raises(ValueError, match="past the disk's end"):
                    act(offset, length)
            with pytest.raises(ValueError, match="past the disk's end"):
                image.write(offset, memoryview(bytes(length)))


def test_a_storage_daemon(disk: Path, tmp_path: Path) -> None:
    """Two exports with names, one with a bitmap; both at the same time."""
    run("qemu-img", "bitmap", "--add", disk, "daily")
    run("qemu-io", "-c", "write -q -P 5 1M 1M", disk)
    name = "a \u00e9/%"
    words = (
        *("--blockdev", f"qcow2,node-name=n,file.driver=file,file.filename={disk}"),
        *("--nbd-server", f"addr.type=unix,addr.path={tmp_path}/q,max-connections=4"),
        *("--export", f"nbd,id=e,node-name=n,name={name},writable=on,bitmaps.0=daily"),
        *("--export", "nbd,id=f,node-name=n,name=plain,allocation-depth=on"),
    )
    with ended(subprocess.Popen([tool("qemu-storage-daemon"), *words])):
        path = f"{tmp_path}/q"
        connect(Path(path)).close()
        with opened(path, name, writable=True, bitmaps="all") as image:
            assert image.bitmap_names() == ["daily"]
            image.write(5 * MIB, memoryview(b"x" * 100))
            image.write(20 * MIB, memoryview(b"x" * 2 * MIB))
            image.zero(20 * MIB, 2 * MIB)
            image.flush()
            dirty = [(MIB, MIB), (5 * MIB, 64 * KIB), (20 * MIB, 2 * MIB)]
            assert list(image.dirty_ranges("daily")) == dirty
            with opened(path, "plain", own_layer=True, bitmaps="all") as other:
                assert other.bitmap_names() == []
                assert other.read(5 * MIB, 101) == b"x" * 100 + b"\0"
                assert list(other.known_zeros(20 * MIB, 2 * MIB)) == [(20 * MIB, 2 * MIB)]


def test_what_was_read_ahead_is_forgotten() -> None:
    """Another client writes what this one has read ahead."""
    with (
        nbdkit("memory", "4M") as path,
        opened(path) as reader,
        opened(path, writable=True) as writer,
    ):
        forget: list[Callable[[], object]] = [reader.uncache, lambda: list(reader.extents())]
        for number, act in enumerate(forget, 1):
            assert reader.is_zero(0, 1) == (number == 1)
            writer.write(0, memoryview(bytes([number]) * 2 * MIB))
            act()
            assert reader.read(0, 2 * MIB) == bytes([number]) * 2 * MIB


@pytest.mark.scaled
@settings(max_examples=examples(12, 100))
@given(data=st.data())
def test_reading_in_any_order(disk_server: tuple[str, bytes], data: st.DataObject) -> None:
    """With and without extents announced, a second reading and ranges of any length."""
    path, truth = disk_server
    with opened(path) as image:
        extents = image.extents() if data.draw(st.booleans()) else iter(())
        at = 0
        for _ in range(data.draw(st.integers(1, 12))):
            next(extents, None)
            jump = data.draw(st.sampled_from([0, 0, 0, 1, MIB, -MIB, 5 * MIB, -9 * MIB]))
            at = min(max(at + jump, 0), len(truth) - 1)
            length = data.draw(st.sampled_from([1, 512, MIB - 1, MIB, 3 * MIB, 9 * MIB]))
            part = truth[at : at + length]
            if data.draw(st.booleans()):
                assert image.is_zero(at, len(part)) == (not any(part))
            assert image.read(at, len(part)) == part
            at += len(part)


def test_what_is_searched_for_zeros_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a stream is made: eight chunks are searched, then copied."""
    image, sent = tmp_path / "d.img", []
    image.write_bytes(random.Random(1).randbytes(24 * MIB))
    send = Connection.send

    def counting(self: Connection, request: Request, *more: Any) -> None:
        if request.command == Command.READ:
            sent.append(request.offset)
        send(self, request, *more)

    monkeypatch.setattr(Connection, "send", counting)
    with qemu_nbd(image) as path, opened(path) as export:
        target = os.open(os.devnull, os.O_WRONLY)
        list(export.extents())
        for part in range(0, 24, 8):
            for chunk in range(part, part + 8):
                assert not export.is_zero(chunk * MIB, MIB)
            for chunk in range(part, part + 8):
                export.copy_to(target, chunk * MIB, MIB)
        os.close(target)
    assert sorted(sent) == sorted(set(sent))
    assert len(sent) == 48


def test_answers_are_taken_while_nobody_waits(tmp_path: Path) -> None:
    """Many times what the buffers of a socket hold."""
    image = tmp_path / "d.img"
    image.write_bytes(random.Random(1).randbytes(24 * MIB))
    with qemu_nbd(image) as path, opened(path) as export:
        export.receive_always()
        connection = export._connection
        views = [memoryview(bytearray(MIB)) for _ in range(24)]
        requests = [
            Request(Command.READ, number * MIB, MIB, view) for number, view in enumerate(views)
        ]
        for request in requests:
            connection.send(request)
        wait_until(lambda: all(request.done for request in requests))
        assert b"".join(map(bytes, views)) == image.read_bytes()
        export.abandon()
        with pytest.raises(FailureError, match="the connection is closed"):
            export.read(0, 512)
