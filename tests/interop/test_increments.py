"""A real QEMU loads increments onto disks that hold their base, and what was folded."""

from pathlib import Path

import pytest

from tests.conftest import Run
from tests.interop import qemu
from tests.interop.disks import MIB
from tests.interop.qemu import Drive
from tests.interop.test_send import FIRMWARE, same
from tests.support import qcow2
from tests.support.qcow2 import qemu_img

SIZE = 6 * MIB + 5 * 512


@pytest.mark.block_migration
def test_increments_and_folded_streams_are_loaded(run: Run, tmp_path: Path) -> None:
    disk, streams = tmp_path / "d.qcow2", []
    qemu_img("create", "-q", "-f", "qcow2", disk, SIZE)
    for number, command in enumerate(
        ("write -P 1 0 4M", "write -z 1M 1M", f"write -P 2 {SIZE - 1024} 1k")
    ):
        qcow2.write(disk, command)
        streams.append(tmp_path / f"{number}.bin")
        since = ["--since", f"b{number - 1}", "--base", streams[-2]] if number else []
        words = ["--mark", f"b{number}", "--machine", FIRMWARE, "--bitmaps", "--to", streams[-1]]
        words = [word for word in words if number or word != "--bitmaps"]
        assert run("send", disk, *since, *words).status == 0
    folded = tmp_path / "folded.bin"
    assert run("fold", *streams, "--machine", FIRMWARE, "--to", folded).status == 0
    target = tmp_path / "target"
    target.write_bytes(b"\x5a" * SIZE)
    for number, stream in enumerate([*streams, folded]):
        if stream == folded:
            target.write_bytes(b"\x5a" * SIZE)
        with qemu.destination(tmp_path / f"q{number}", Drive("drive0", target)) as destination:
            destination.capabilities("dirty-bitmaps")
            assert destination.load(f"exec:cat {stream}") == "completed", destination.log
            if number >= 2:
                digests = qcow2.digests(disk, ["b0", "b1"])
                for name, digest in digests.items():
                    assert destination.sha256("drive0", name) == digest
        if number >= 2:
            same(target, "raw", disk, "qcow2")
