"""Writes past the system's cache: of any place and length, where that is supported and where not."""

import errno
import fcntl
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli.disks import raw
from blkmig_cli.disks.direct import DirectWriter, aligned_buffer
from blkmig_cli.disks.raw import RawImage, open_raw
from blkmig_cli.errors import FailureError
from tests.support.long import examples

MIB, BLOCK = 1 << 20, 4096


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "_CACHED", -1)


def opened(path: Path, size: int) -> RawImage:
    path.write_bytes(b"\xee" * size)
    return open_raw(str(path), writable=True)


def content(number: int, length: int) -> bytes:
    return bytes([number + 1]) * length


places = st.tuples(
    st.integers(0, 40).map(lambda block: block * BLOCK),
    st.sampled_from([0, 0, 512, 4095]),
    st.one_of(st.integers(1, 3 * BLOCK), st.integers(1, 12).map(lambda blocks: blocks * BLOCK)),
    st.booleans(),
)


@pytest.mark.scaled
@settings(max_examples=examples(17, 300))
@given(st.lists(places, max_size=12))
def test_against_bytes(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, int, int, bool]]
) -> None:
    path, size = tmp_path_factory.mktemp("direct") / "d.img", 64 * BLOCK + 512
    image, disk = opened(path, size), bytearray(b"\xee" * size)
    for number, (block, more, wanted, aligned) in enumerate(writes):
        offset = block + more
        length = min(wanted, size - offset)
        data = aligned_buffer(length) if aligned else memoryview(bytearray(length))
        data[:] = content(number, length)
        image.write(offset, data)
        disk[offset : offset + length] = data
        assert image.read(max(offset - 600, 0), 1200) == disk[max(offset - 600, 0) :][:1200]
    image.flush()
    image.close()
    assert path.read_bytes() == disk


def test_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole blocks only, from memory of any address, and not before much has been written."""
    monkeypatch.setattr(raw, "_CACHED", MIB)
    done: list[tuple[int, int]] = []

    def write(self: DirectWriter, data: memoryview, offset: int) -> int:
        done.append((offset, written := original(self, data, offset)))
        return written

    original = DirectWriter.write
    monkeypatch.setattr(DirectWriter, "write", write)
    image = opened(tmp_path / "d.img", 4 * MIB)
    for offset in (0, MIB, 2 * MIB + 512, 3 * MIB - 512):
        image.write(offset, memoryview(content(1, MIB)))
    supported = MIB if done[0][1] else 0
    assert done == [(MIB, supported), (2 * MIB + 512, 0), (3 * MIB - 512, 0)]
    image.close()


def test_this_file_system_supports_it(tmp_path: Path) -> None:
    """What the other tests here are about is tested where the disk of the machine is."""
    path = tmp_path / "d.img"
    with path.open("wb") as file:
        file.truncate(MIB)
        writer = DirectWriter(file.fileno())
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_DIRECT))
        except OSError as error:
            pytest.skip(f"{tmp_path}: no O_DIRECT here ({error})")
        assert writer.write(memoryview(content(0, BLOCK + 9)), BLOCK) == BLOCK
        assert writer.write(memoryview(content(0, 511)), 0) == 0
        assert writer.write(memoryview(content(0, BLOCK)), 512) == 0
        writer.close()
        assert writer.write(memoryview(content(0, BLOCK)), 0) == 0
    assert path.read_bytes() == bytes(BLOCK) + content(0, BLOCK) + bytes(MIB - 2 * BLOCK)


def failing_open(number: int) -> Callable[..., int]:
    def call(path: str, flags: int, *more: Any, **named: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(number, os.strerror(number))
        return original(path, flags, *more, **named)

    original = os.open
    return call


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOENT])
def test_a_file_system_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Nor where /proc is missing."""
    monkeypatch.setattr(os, "open", failing_open(number))
    path = tmp_path / "d.img"
    image = opened(path, MIB)
    image.write(0, memoryview(content(0, MIB)))
    image.close()
    assert path.read_bytes() == content(0, MIB)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_device_with_larger_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It refuses the first write, and is not asked again."""
    asked: list[int] = []

    def write(fd: int, data: memoryview, offset: int) -> int:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            asked.append(offset)
            raise OSError(number, os.strerror(number))
        return original(fd, data, offset)

    original = os.pwrite
    path = tmp_path / "d.img"
    image = opened(path, 2 * MIB)
    monkeypatch.setattr(os, "pwrite", write)
    for offset in (0, MIB):
        image.write(offset, memoryview(content(offset // MIB, MIB)))
    image.close()
    assert asked in ([0], [])
    assert path.read_bytes() == content(0, MIB) + content(1, MIB)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def write(fd: int, data: memoryview, offset: int) -> int:
        raise OSError(number, os.strerror(number))

    image = opened(tmp_path / "d.img", MIB)
    monkeypatch.setattr(os, "pwrite", write)
    with pytest.raises(FailureError, match="at its byte 4096") as raised:
        image.write(BLOCK, memoryview(content(0, BLOCK)))
    assert os.strerror(number) in str(raised.value)
    image.close()


def test_short_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is written through the cache."""

    def write(fd: int, data: memoryview, offset: int) -> int:
        return original(fd, data[: max(len(data) // 2, 1)], offset)

    original = os.pwrite
    path = tmp_path / "d.img"
    image = opened(path, MIB)
    monkeypatch.setattr(os, "pwrite", write)
    image.write(0, memoryview(content(0, MIB)))
    image.close()
    assert path.read_bytes() == content(0, MIB)


def test_threads(tmp_path: Path) -> None:
    """Each has a buffer of its own, and one descriptor serves all."""
    before = len(os.listdir("/proc/self/fd"))
    path, number = tmp_path / "d.img", 32
    image = opened(path, number * MIB)
    barrier = threading.Barrier(4)

    def write(at: int) -> None:
        if at < 4:
            barrier.wait(30)
        image.write(at * MIB, memoryview(content(at, MIB)))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(number)))
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    image.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert path.read_bytes() == b"".join(content(at, MIB) for at in range(number))


def test_the_image_stays_locked(tmp_path: Path) -> None:
    """The second descriptor takes nothing from the first one, when it is opened and when it is closed."""
    path = tmp_path / "d.img"
    image = opened(path, MIB)
    image.write(0, memoryview(content(0, MIB)))
    with pytest.raises(FailureError, match="in use"):
        open_raw(str(path), writable=True)
    assert image._direct is not None
    image._direct.close()
    with pytest.raises(FailureError, match="in use"):
        open_raw(str(path), writable=True)
    image.close()
    open_raw(str(path), writable=True).close()


def test_the_buffers_are_aligned() -> None:
    for length in (1, BLOCK, MIB):
        buffer = aligned_buffer(length)
        assert len(buffer) == length
        assert np.frombuffer(buffer, np.uint8).ctypes.data % BLOCK == 0
