"""Images in use: blkmig, a running QEMU and qemu-img refuse an image that another uses."""

import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from blkmig_cli.disks.raw import open_raw
from tests.conftest import Run, fails
from tests.interop import qemu
from tests.interop.qemu import Drive, Qemu
from tests.support import raw
from tests.support.peers import PATIENCE

SIZE = 1 << 20
STREAM = raw.qemu(raw.block(0, 0, rest=b"\7" * raw.CHUNK))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "d.img"
    path.write_bytes(b"\1" * SIZE)
    return path


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    path = tmp_path / "s.bin"
    path.write_bytes(STREAM)
    return path


@pytest.fixture
def guest(image: Path, tmp_path: Path) -> Iterator[Qemu]:
    """Start a QEMU whose guest has the image as its disk."""
    with qemu.machine(tmp_path / "q", Drive("drive0", image)) as running:
        yield running


def convert(image: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Read all of the image with qemu-img convert."""
    assert qemu.QEMU_IMG is not None
    words = ["convert", *options, "-f", "raw", "-O", "raw", str(image), f"{image}.copy"]
    return subprocess.run([qemu.QEMU_IMG, *words], capture_output=True, text=True, check=False)


@pytest.mark.usefixtures("guest")
def test_an_image_of_a_guest(run: Run, image: Path, stream: Path, tmp_path: Path) -> None:
    assert "lock" in convert(image).stderr, "as qemu-img itself has it"
    fails(run("replay", stream, "--image", image), 4, "in use")
    assert image.read_bytes() == b"\1" * SIZE
    out = tmp_path / "t.bin"
    fails(run("send", image, "--to", out), 4, "use -U to read it")
    assert not out.exists()
    fails(run("validate", stream, "--image", image), 4, "use -U to read it")
    assert convert(image, "-U").returncode == 0
    assert run("send", "-U", image, "--to", out).status == 0
    assert run("validate", "-U", stream, "--image", image).status == 1


def test_a_guest_that_has_ended(run: Run, image: Path, stream: Path, guest: Qemu) -> None:
    guest.end()
    assert run("replay", stream, "--image", image).status == 0
    assert image.read_bytes() == b"\7" * SIZE


def test_an_image_that_is_written(image: Path, tmp_path: Path) -> None:
    with closing(open_raw(str(image), writable=True)):
        assert "lock" in convert(image).stderr
        words = ["-M", "pc", "-S", "-nodefaults", "-display", "none"]
        words += qemu.drive_words(Drive("drive0", image))
        words += ["-device", "virtio-blk,drive=drive0"]
        command = [*qemu.words_for(tmp_path), *words]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        assert done.returncode == 1
        assert "lock" in done.stderr
    assert convert(image).returncode == 0


def test_an_image_that_is_read(run: Run, image: Path, stream: Path) -> None:
    """Others may read it as well, but not write."""
    with closing(open_raw(str(image), writable=False)):
        assert convert(image).returncode == 0
        with pytest.raises(subprocess.CalledProcessError):
            qemu.qemu_img("resize", "-q", "-f", "raw", image, "2M")
        assert run("send", image, "--to", "/dev/null").status == 0
        fails(run("replay", stream, "--image", image), 4, "in use")
