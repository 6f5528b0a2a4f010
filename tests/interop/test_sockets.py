"""blkmig and QEMU connected by a socket, in both directions, and QEMUs that die or refuse."""

import subprocess
from pathlib import Path

import pytest

from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, write_bitmaps
from tests.interop import disks, qemu
from tests.interop.disks import MIB
from tests.interop.qemu import Drive
from tests.support.peers import BLKMIG, PATIENCE, Listening, address, send, wait_until

NAME = "mixed, all but a sector"


@pytest.mark.block_migration
@pytest.mark.parametrize("kind", ["unix", "tcp"])
@pytest.mark.parametrize("confirmed", [True, False])
def test_send_into_a_qemu(tmp_path: Path, kind: str, confirmed: bool) -> None:
    image = disks.make(tmp_path / "d.img", NAME)
    target = tmp_path / "dst"
    target.write_bytes(b"\x5a" * image.stat().st_size)
    with qemu.destination(tmp_path / "q", Drive("drive0", target)) as destination:
        uri = destination.listen(address(kind, tmp_path))
        major, minor = qemu.version()
        done = send(
            image,
            uri,
            "--machine",
            qemu.MACHINE,
            *(["--for-qemu", f"{major}.{minor}"] if confirmed else []),
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert destination.wait() == "completed", destination.log
    assert target.read_bytes() == image.read_bytes()


@pytest.mark.block_migration
@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_a_qemu_into_replay(tmp_path: Path, kind: str) -> None:
    image = disks.make(tmp_path / "d.img", NAME)
    replay = Listening(
        address(kind, tmp_path), tmp_path / "out", "--device-size", str(image.stat().st_size)
    )
    with qemu.source(tmp_path / "q", Drive("drive0", image)) as source:
        source.parameters(downtime_limit=0)
        source.save(replay.uri, blk=True)
    status, out, err = replay.end()
    assert (status, err) == (0, ""), out
    assert (tmp_path / "out").read_bytes() == image.read_bytes()
    assert not (tmp_path / "s.sock").exists()


@pytest.mark.block_migration
def test_a_qemu_that_dies(tmp_path: Path) -> None:
    """QEMU is killed while it sends: replay reports how much was written, and that it is not complete."""
    image = tmp_path / "d.img"
    image.write_bytes(disks.noisy(64 * MIB))
    replay = Listening(f"unix:{tmp_path}/s", tmp_path / "out", "--device-size", str(64 * MIB))
    with qemu.source(tmp_path / "q", Drive("drive0", image)) as source:
        source.parameters(downtime_limit=0, max_bandwidth=8 * MIB)
        source.cmd("migrate", uri=replay.uri, blk=True)
        out = tmp_path / "out.partial"
        wait_until(lambda: out.exists() and out.stat().st_blocks > 0)
        source.process.kill()
    status, text, err = replay.end()
    assert status in (3, 4)
    assert len(err.splitlines()) == 1
    assert "truncated" in text + err
    assert "drive0: " in text
    assert "MiB written" in text
    assert not (tmp_path / "out").exists()


def test_a_qemu_that_refuses(tmp_path: Path) -> None:
    """A destination without the disk closes the connection."""
    image, uri = tmp_path / "d.img", f"unix:{tmp_path}/s"
    image.write_bytes(disks.noisy(64 * MIB))
    target = tmp_path / "dst"
    target.write_bytes(bytes(MIB))
    with qemu.destination(tmp_path / "q", Drive("other", target)) as destination:
        destination.cmd("migrate-incoming", uri=uri)
        done = send(image, uri, "--machine", qemu.MACHINE)
    assert done.returncode == 4
    assert "closed" in done.stderr
    assert "bytes" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_small_stream_that_is_refused(tmp_path: Path) -> None:
    """It fits into the socket's buffer, so only the destination's answer shows the failure."""
    size = MIB
    image, uri = tmp_path / "d.img", f"unix:{tmp_path}/s"
    image.write_bytes(bytes(size))
    write_bitmaps(f"{image}.bitmaps.json", BitmapFile(size, {"b": DirtyBitmap("b", 512)}))
    words = ["-M", "none", *qemu.drive_words(Drive("drive0", image)), "-incoming", "defer"]
    with qemu.running(tmp_path / "q", *words) as destination:
        # It has such a bitmap already, and so fails to load another.
        destination.cmd("block-dirty-bitmap-add", node="drive0", name="b", granularity=65536)
        destination.cmd("migrate-incoming", uri=uri)
        options = ["--bitmaps", "--bitmaps-only", "--for-qemu", "7.2"]
        command = [*BLKMIG, "send", str(image), "--to", uri, *options]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        destination.wait()
    assert done.returncode == 4, destination.log
    assert "has not loaded the stream" in done.stderr or "closed" in done.stderr
    assert len(done.stderr.splitlines()) == 1
