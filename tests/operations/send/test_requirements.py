"""Which disks and bitmaps can be sent: each limit, and one beyond it."""

from collections.abc import Callable
from typing import Any

import pytest

from blkmig_cli import limits
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.disk import Disk
from blkmig_cli.errors import BlkmigError, FailureError, UsageError
from blkmig_cli.operations.send.requirements import check_disks
from blkmig_cli.operations.send.stream import SendOptions
from tests.support.strategies import MemoryImage


class Sized(MemoryImage):
    """A disk of a size, without content."""

    def __init__(self, size: int) -> None:
        super().__init__(b"")
        self._size = size

    @property
    def size(self) -> int:
        return self._size


def disk(size: int, *bitmaps: DirtyBitmap, device: str = "d") -> Disk:
    return Disk(device, Sized(size), list(bitmaps))


def bitmap(name: str = "b", granularity: int = 65536) -> DirtyBitmap:
    return DirtyBitmap(name, granularity)


def many(number: int) -> Callable[[], list[Disk]]:
    return lambda: [disk(512, device=f"d{at}") for at in range(number)]


NONE: dict[str, Any] = {"container": "none"}
V2: dict[str, Any] = {"dialect": "v2", **NONE}
V1: dict[str, Any] = {"dialect": "v1", **NONE}
#: Disks and options: a reason, "" for none.
CASES: list[tuple[Callable[[], list[Disk]], dict[str, Any], type[BlkmigError], str]] = [
    (lambda: [disk(limits.DISK_MAX // 512 * 512)], {}, FailureError, ""),
    (lambda: [disk(limits.DISK_MAX // 512 * 512 + 512)], {}, FailureError, "are the most"),
    (lambda: [disk(limits.BARE_DISK_MAX)], {"dialect": "classic", **NONE}, FailureError, ""),
    (
        lambda: [disk(limits.BARE_DISK_MAX + 512)], {"dialect": "classic", **NONE}, FailureError,
        f"a disk of {limits.BARE_DISK_MAX + 512} bytes, {limits.BARE_DISK_MAX} are the most",
    ),
    (lambda: [disk(1000)], {}, FailureError, "a disk of 1000 bytes, not a multiple of 512"),
    (lambda: [disk(0, bitmap())], V2, FailureError, "a disk of 0 bytes has no record"),
    (lambda: [disk(0, bitmap())], {}, FailureError, ""),
    (lambda: [disk(0)], V2, FailureError, ""),
    (lambda: [disk(512, bitmap(), device="")], {}, FailureError, "a device without a name"),
    (lambda: [disk(512, bitmap(), device="")], V2, FailureError, ""),
    (lambda: [disk(512, bitmap(""))], {}, FailureError, "bitmap name '': it is empty"),
    (lambda: [disk(512, bitmap("x" * 256))], {}, FailureError, "bitmap name"),
    (lambda: [disk(512, bitmap("x" * 255))], {}, FailureError, ""),
    (lambda: [disk(512), disk(512)], {}, UsageError, "two disks have the same device"),
    (many(limits.DEVICES_MAX), {}, FailureError, ""),
    (many(limits.DEVICES_MAX + 1), {}, FailureError, "devices, "),
    (
        lambda: [disk(512, *(bitmap(f"b{at}") for at in range(limits.BITMAPS_MAX + 1)))], V1,
        FailureError, f"bitmaps, {limits.BITMAPS_MAX} are the most in v1",
    ),
    (
        lambda: [disk(512, *(bitmap(f"b{at}") for at in range(limits.BITMAPS_MAX)))], V1,
        FailureError, "",
    ),
    (lambda: [disk(512)], {"machine": "x" * limits.MACHINE_MAX}, FailureError, ""),
    (lambda: [disk(512)], {"machine": "x" * (limits.MACHINE_MAX + 1)}, UsageError, "--machine"),
    (
        lambda: [disk(limits.BITS_MAX * 8 * 512 + (1 << 30), bitmap(granularity=512))], {},
        FailureError, f"bitmaps of over {limits.BITS_MAX >> 20} MiB of bits",
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(CASES)))
def test_limits(case: int) -> None:
    disks, options, error, reason = CASES[case]
    if not reason:
        check_disks(disks(), SendOptions(**options))
        return
    with pytest.raises(error) as found:
        check_disks(disks(), SendOptions(**options))
    assert reason in str(found.value)
    assert found.value.device in ("d", "" if "without a name" in reason else None)
