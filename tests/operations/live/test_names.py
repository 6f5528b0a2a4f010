"""Names of what a run makes in QEMU, and of disks."""

import pytest

from blkmig_cli.errors import UsageError
from blkmig_cli.operations.live.disks import QemuDisk
from blkmig_cli.operations.live.remnants import Remnants, new_run, prefix_of, run_of
from blkmig_cli.system.qmp import parse_monitor


def test_names_of_a_run() -> None:
    run = new_run()
    assert run_of(f"{prefix_of(run)}track-0") == (run, "track-0")
    for name in ("blkmig-mine", "blkmig-0123456-a", "blkmig-0123456g-a", "daily", "", "x-blkmig-"):
        assert run_of(name) == ("", "")


def test_exports_of_data() -> None:
    prefix = prefix_of(new_run())
    left = Remnants([f"{prefix}data-0", f"{prefix}changes-0"], [])
    assert left.data == [f"{prefix}data-0"]


@pytest.mark.parametrize(
    ("drive", "qdev", "root", "name"),
    [
        ("drive0", "/machine/peripheral/a/virtio-backend", "#block1", "drive0"),
        ("", "/machine/peripheral/a/virtio-backend", "node", "a"),
        ("", "/machine/peripheral/a", "node", "a"),
        ("", "disk1", "node", "disk1"),
        ("", "/machine/peripheral-anon/device[0]/virtio-backend", "node", "node"),
        ("", "/machine/peripheral-anon/device[0]", "#block1", "/machine/peripheral-anon/device[0]"),
        ("", "", "#block1", "#block1"),
    ],
)
def test_the_name_of_a_disk(drive: str, qdev: str, root: str, name: str) -> None:
    assert QemuDisk(drive, qdev, root, root, 0).device == name


def test_monitors() -> None:
    assert parse_monitor("qmp:unix:/run/a=b:c") == "/run/a=b:c"
    for text in ("", "unix:/run/s", "qmp:/run/s", "qmp:unix:", "qmp:unix:a\0"):
        with pytest.raises(UsageError):
            parse_monitor(text)
