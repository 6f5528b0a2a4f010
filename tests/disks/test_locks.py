"""The locks on images, between two blkmigs."""

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from blkmig_cli.disks.locks import Permission
from blkmig_cli.disks.new_image import create_partial
from blkmig_cli.disks.raw import open_raw
from blkmig_cli.errors import FailureError
from tests.support import raw
from tests.support.peers import BLKMIG
from tests.system.test_sockets import STREAM as TWO_CHUNKS


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "d").write_bytes(bytes(4096))
    return str(tmp_path / "d")


def test_readers_exclude_writers_only(path: str) -> None:
    first, second = (open_raw(path, writable=False) for _ in range(2))
    with closing(first), closing(second), pytest.raises(FailureError, match="in use"):
        open_raw(path, writable=True)
    open_raw(path, writable=True).close()


def test_a_writer_excludes_all_but_shared_readers(path: str) -> None:
    with closing(open_raw(path, writable=True)):
        for writable in (True, False):
            with pytest.raises(FailureError, match="in use"):
                open_raw(path, writable=writable)
        open_raw(path, writable=False, shared=True).close()


def test_a_new_image_is_locked(tmp_path: Path) -> None:
    path = str(tmp_path / "new.partial")
    with closing(create_partial(path)), pytest.raises(FailureError, match="in use"):
        open_raw(path, writable=False)


def test_a_refused_image_is_unlocked(path: str) -> None:
    with closing(open_raw(path, writable=False)):
        for _ in range(3):
            with pytest.raises(FailureError):
                open_raw(path, writable=True)
        open_raw(path, writable=False).close()


def test_file_systems_without_locks(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> bytes:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(fcntl, "fcntl", absent)
    with closing(open_raw(path, writable=True)), closing(open_raw(path, writable=True)):
        pass


@pytest.mark.parametrize(
    ("byte", "name"),
    [(200, "consistent-read"), (201, "write"), (203, "resize"), (101, "write"), (103, "resize")],
)
@pytest.mark.parametrize("writable", [False, True])
def test_what_another_program_does_not_share(
    path: str, byte: int, name: str, writable: bool
) -> None:
    """By the bytes that it locked; what this one does not use is no matter."""
    with open(path, "rb") as other:
        request = struct.pack("@hhqqi0q", fcntl.F_RDLCK, 0, byte, 1, 0)
        fcntl.fcntl(other.fileno(), fcntl.F_OFD_SETLK, request)
        if byte in (201, 203) and not writable:
            open_raw(path, writable=False).close()
            return
        hint = "end it first" if writable else "end it first, or use -U to read it all the same"
        with pytest.raises(FailureError) as caught:
            open_raw(path, writable=writable)
        assert str(caught.value) == (
            f"{path} is in use: another program does not share '{name}', or uses it; {hint}"
        )


@pytest.mark.parametrize("byte", [99, 102, 104, 202, 204])
def test_bytes_of_other_permissions(path: str, byte: int) -> None:
    with open(path, "rb") as other:
        request = struct.pack("@hhqqi0q", fcntl.F_RDLCK, 0, byte, 1, 0)
        fcntl.fcntl(other.fileno(), fcntl.F_OFD_SETLK, request)
        open_raw(path, writable=True).close()


def test_the_bytes_are_qemus() -> None:
    """Bits of QEMU's permissions: consistent-read 1, write 2, resize 8."""
    assert [1 << permission for permission in Permission] == [1, 2, 8]


def test_of_two_replays_at_once_one_goes_on(tmp_path: Path) -> None:
    """Both wait for a stream on stdin when they have opened the image, or fail to."""
    image = tmp_path / "image"
    image.write_bytes(bytes(2 * raw.CHUNK))
    command = [*BLKMIG, "replay", "-", "--image", str(image)]
    started = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(4)
    ]
    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(lambda process: process.communicate(TWO_CHUNKS), started))
    statuses = sorted(process.returncode for process in started)
    assert statuses[0] == 0
    assert set(statuses[1:]) <= {0, 4}, ends
    for process, (_, err) in zip(started, ends, strict=True):
        assert (b"in use" in err) == (process.returncode == 4)
    assert image.read_bytes() == b"\7" * raw.CHUNK + bytes(raw.CHUNK)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[str]:
    """A block device with a file system on it that is mounted; needs root, and loop devices."""
    file, folder = tmp_path / "fs", tmp_path / "mnt"
    folder.mkdir()
    with open(file, "wb") as made:
        made.truncate(4 << 20)

    def call(*words: object) -> str:
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no device can be mounted here: {done.stderr.strip()}")
        return done.stdout.strip()

    if os.getuid() or not all(map(shutil.which, ("losetup", "mkfs.ext4", "mount"))):
        pytest.skip("no device can be mounted here: that takes root, losetup and mkfs.ext4")
    call("mkfs.ext4", "-q", file)
    device = call("losetup", "-f", "--show", file)
    try:
        call("mount", device, folder)
        yield device
    finally:
        subprocess.run(["umount", folder], check=False, capture_output=True)
        subprocess.run(["losetup", "-d", device], check=False, capture_output=True)


def test_a_mounted_device_is_refused(mounted: str) -> None:
    with pytest.raises(FailureError, match=r"is mounted, or in use otherwise.*--force"):
        open_raw(mounted, writable=True)
    open_raw(mounted, writable=False).close()
    open_raw(mounted, writable=True, claimed=True).close()
