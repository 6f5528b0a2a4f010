"""Disks and bitmaps that are not sent: what is said, to the last word, and which are sent all the same."""

import gzip
import io
import lzma
from typing import Any

import pytest

from blkmig_cli import limits
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.disk import Disk
from blkmig_cli.errors import BlkmigError, FailureError, IncompleteError, UsageError
from blkmig_cli.operations.send.estimate import estimate
from blkmig_cli.operations.send.identity import (
    Base,
    SendIdentity,
    check_id,
    creation_time,
    identity_of,
)
from blkmig_cli.operations.send.requirements import (
    check_bitmaps_fit,
    check_disks,
    check_images,
    name_fault,
    warnings_for,
)
from blkmig_cli.operations.send.stream import SendOptions, send_events
from blkmig_cli.operations.send.writing import write_disks
from blkmig_cli.transport.sinks import FileObjectSink
from blkmig_cli.wire.identity import DiskIdentity, Identity
from tests.support import zstd
from tests.support.feed import encoded
from tests.support.strategies import LaidOut, MemoryImage

MIB = 1 << 20
CHUNK = 2048
ID = "01234567-89ab-cdef-0123-456789abcdef"


class Sized(LaidOut):
    """A disk of a size, which is not read."""

    def is_zero(self, offset: int, length: int) -> bool:
        raise AssertionError("it was read")


def bitmap(name: str = "b", granularity: int = 65536, *dirty: int) -> DirtyBitmap:
    made = DirtyBitmap(name, granularity)
    for at in dirty:
        made.set_range(at, 1)
    return made


def disk(size: int, *bitmaps: DirtyBitmap, device: str = "d", **more: Any) -> Disk:
    return Disk(device, Sized(size), list(bitmaps), **more)


def said(made: list[Disk], /, **options: Any) -> tuple[type[BlkmigError], str] | None:
    try:
        check_disks(made, SendOptions(**options))
    except BlkmigError as error:
        return type(error), str(error)
    return None


V2: dict[str, Any] = {"dialect": "v2", "container": "none"}


@pytest.mark.parametrize(
    ("disks", "options", "text"),
    [
        ([disk(1000)], {}, "a disk of 1000 bytes, not a multiple of 512 (device 'd')"),
        ([disk(0, bitmap())], {"dialect": "v1"},
         "a disk of 0 bytes has no record for its bitmaps in dialect v1 (device 'd')"),
        ([disk(512, bitmap(), device="")], {},
         "a device without a name, and bitmaps, which find their disk by its name (device '')"),
        ([disk(512, device="x" * 256)], {}, f"device name '{'x' * 256}': over 255 bytes"),
        ([disk(512, device="x\0")], {},
         "device name 'x\\x00': it contains a NUL, which ends a name in QEMU"),
        ([disk(512, bitmap(""))], {}, "bitmap name '': it is empty (device 'd')"),
        ([disk(512, bitmap("x" * 256))], {},
         f"bitmap name '{'x' * 256}': over 255 bytes (device 'd')"),
        ([disk(512, bitmap("b", 1000))], {},
         "bitmap 'b': granularity 1000 is not a power of two from 512 bytes to 2 GiB (device 'd')"),
        ([disk(65536, bitmap("b", 65536, 65536))], {},
         "bitmap 'b': dirty up to byte 131072 of a disk of 65536 bytes (device 'd')"),
        ([disk(65536 + 512, bitmap("b", 65536, 65536))], {}, None),
        ([disk(512, bitmap("b", 65536, 600))], {}, None),
        ([disk(limits.DISK_MAX + 512)], {},
         f"a disk of {limits.DISK_MAX + 512} bytes, {limits.DISK_MAX} are the most (device 'd')"),
        ([disk(512, bitmap("a"), bitmap("b"))], V2, None),
    ],
)  # fmt: skip
def test_disks_that_are_not_sent(
    disks: list[Disk], options: dict[str, Any], text: str | None
) -> None:
    assert said(disks, **options) == (None if text is None else (FailureError, text))


@pytest.mark.parametrize(
    ("disks", "options", "text"),
    [
        ([disk(512), disk(512)], {}, "two disks have the same device"),
        ([disk(512)], {"machine": "x" * 4097}, "--machine: over 4096 bytes"),
        ([disk(512)], {"machine": "é" * 2049}, "--machine: over 4096 bytes"),
        ([disk(512, bitmap())], {"dialect": "classic"},
         "dialect classic has no place for bitmaps; leave the bitmaps out"),
        ([disk(512, bitmap())], {"container": "none"},
         "dialect qemu in --container none has no place for bitmaps; leave the bitmaps out"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit(disks: list[Disk], options: dict[str, Any], text: str) -> None:
    assert said(disks, **options) == (UsageError, text)


@pytest.mark.parametrize(
    ("dialect", "container", "fits"),
    [
        ("classic", "qemu", False), ("classic", "none", False), ("qemu", "none", False),
        ("qemu", "qemu", True), ("v1", "none", True), ("v2", "none", True), ("v1", "qemu", True),
    ],
)  # fmt: skip
def test_where_bitmaps_have_a_place(dialect: str, container: str, fits: bool) -> None:
    if fits:
        check_bitmaps_fit(dialect, container, "h")
        return
    with pytest.raises(UsageError):
        check_bitmaps_fit(dialect, container, "h")


def test_as_many_as_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DEVICES_MAX", 1)
    monkeypatch.setattr(limits, "BITMAPS_MAX", 1)
    two = [disk(512), disk(512, device="e")]
    assert said(two) == (FailureError, "2 devices, 1 are the most in qemu")
    assert said([disk(512, bitmap("a"), bitmap("b"))]) == (
        FailureError, "2 bitmaps, 1 are the most in qemu"
    )  # fmt: skip
    assert said([disk(512, bitmap("a"))]) is None


@pytest.mark.parametrize(("most", "fits"), [(16, True), (15, False)])
def test_bits_of_all_bitmaps(monkeypatch: pytest.MonkeyPatch, most: int, fits: bool) -> None:
    monkeypatch.setattr(limits, "BITS_MAX", most)
    disks = [disk(65536, bitmap()), disk(65536, bitmap(), device="e")]
    assert said(disks) == (None if fits else (FailureError, "bitmaps of over 0 MiB of bits"))


@pytest.mark.parametrize(("most", "fits"), [(6, True), (5, False)])
def test_entries_of_v2(monkeypatch: pytest.MonkeyPatch, most: int, fits: bool) -> None:
    """Each record may have all bitmaps."""
    monkeypatch.setattr(limits, "V2_ENTRIES_MAX", most)
    step = 8 * MIB * 512
    two = [disk(2 * step + 512, bitmap("a", 512), bitmap("b", 512))]
    assert said(two, **V2) == (
        None if fits else
        (FailureError, "2 bitmaps in 3 records, 5 entries are the most (device 'd')")
    )  # fmt: skip
    assert said(two) is None


@pytest.mark.parametrize(
    ("region", "dialect", "fits"),
    [
        ((5, CHUNK + 5), "qemu", True),
        ((5, CHUNK + 4), "qemu", False),
        ((5, CHUNK + 4), "classic", False),
        ((5, CHUNK + 5), "v1", False),
        ((0, CHUNK), "v1", True),
        ((0, CHUNK - 1), "v2", False),
        ((9 * CHUNK + 7, 9 * CHUNK + 9), "qemu", True),
        ((9 * CHUNK, 9 * CHUNK + 9), "v2", True),
    ],
)
def test_parts_that_no_record_carries(region: tuple[int, int], dialect: str, fits: bool) -> None:
    total = (9 * CHUNK + 9) * 512
    made = Disk("d", Sized(total, region), partial=True)
    start, end = region
    hint = "; see --dialect qemu" if dialect.startswith("v") else ""
    expected = (
        IncompleteError,
        f"sectors {start}-{end} are only a part of their chunks, which dialect {dialect} cannot "
        f"carry without the rest, and that is not in the stream (device 'd'){hint}",
    )
    assert said([made], dialect=dialect) == (None if fits else expected)
    assert said([Disk("d", Sized(total, region))], dialect=dialect) is None
    if dialect != "classic":
        assert said([made], dialect=dialect, disks=False) is None
    open_ended = Disk("d", Sized(total, region), partial=True, open_ended=True)
    assert (said([open_ended], dialect=dialect) is None) == (fits and end != total // 512)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", None),
        ("x" * 255, None),
        ("x" * 256, "over 255 bytes"),
        ("é" * 127, None),
        ("é" * 128, "over 255 bytes"),
        ("a\0", "it contains a NUL, which ends a name in QEMU"),
        ("\udcff", None),
        ("\udcc3\udca9", "it contains characters that are invalid in UTF-8"),
        ("\ud800", "it contains characters that are invalid in UTF-8"),
    ],
)
def test_names(name: str, fault: str | None) -> None:
    assert name_fault(name) == fault


STREAM = b"QEVM\0\0\0\3"


@pytest.mark.parametrize(
    ("head", "size", "text"),
    [
        (b"", 0, "memory is empty"),
        (b"", 511, "memory has 511 bytes, not a multiple of 512; "
         "extend it with: truncate -s 512 memory"),
        (b"", 1025, "memory has 1025 bytes, not a multiple of 512; "
         "extend it with: truncate -s 1536 memory"),
        (b"", 512, None),
        (STREAM, 512, "memory looks like a migration stream, not a disk image; use -f raw if it is one"),
        (b"LibvirtQemudSave", 512,
         "memory looks like a libvirt save image, not a disk image; use -f raw if it is one"),
        (b"LibvirtQemudPart", 512,
         "memory looks like a libvirt save image, not a disk image; use -f raw if it is one"),
        (gzip.compress(b"", mtime=0), 512,
         "memory looks like a gzip file, not a disk image; use -f raw if it is one"),
        (lzma.compress(b""), 512,
         "memory looks like a xz file, not a disk image; use -f raw if it is one"),
        (zstd.compress(b""), 512,
         "memory looks like a zstd file, not a disk image; use -f raw if it is one"),
        (b"QEV", 512, None),
    ],
)  # fmt: skip
def test_images(head: bytes, size: int, text: str | None) -> None:
    image: Any = MemoryImage(head.ljust(size, b"\0") if size >= len(head) else head[:size])
    if text is None:
        check_images({"d": image})
        return
    with pytest.raises(FailureError) as error:
        check_images({"e": MemoryImage(bytes(512)), "d": image}, {"e"})
    assert str(error.value) == text
    if "looks like" in text:
        check_images({"d": image}, {"d"})


# -- warnings


@pytest.mark.parametrize(
    ("size", "options", "version", "number"),
    [
        (MIB - 512, {}, None, 1),
        (MIB - 512, {"dialect": "classic"}, None, 0),
        (MIB - 512, {"disks": False}, None, 0),
        (MIB, {}, None, 0),
        (MIB - 512, {"machine": "pc"}, (7, 2), 1),
        (MIB, {"machine": "pc"}, (7, 2), 0),
        (MIB, {"machine": "pc"}, (1, 5), 2),
        (MIB, {"machine": "pc", "zero_blocks": False}, (1, 5), 1),
        (MIB, {}, (7, 2), 1),
        (MIB, {"machine": "pc", "disks": False}, (9, 1), 0),
        (MIB, {"machine": "pc"}, (9, 1), 1),
        (MIB, {"machine": "pc", "container": "none", "dialect": "classic"}, (7, 2), 1),
    ],
)
def test_warnings(
    size: int, options: dict[str, Any], version: tuple[int, int] | None, number: int
) -> None:
    assert len(list(warnings_for([disk(size)], SendOptions(**options), version))) == number


@pytest.mark.parametrize(("bitmaps", "number"), [(True, 1), (False, 0)])
def test_warnings_of_bitmaps(bitmaps: bool, number: int) -> None:
    made = [disk(MIB, *([bitmap()] if bitmaps else []))]
    found = list(warnings_for(made, SendOptions(machine="pc"), (2, 11)))
    assert len(found) == number


# -- the identity


@pytest.mark.parametrize(
    ("options", "selected", "full", "since", "incremental"),
    [
        ({}, None, True, None, False),
        ({"disks": False}, None, False, None, False),
        ({"skip_unallocated": True}, None, False, None, False),
        ({}, {}, True, None, True),
        ({}, {"d": "a"}, False, "a", True),
        ({}, {"e": "a"}, True, None, True),
    ],
)
@pytest.mark.parametrize("partial", [True, False])
@pytest.mark.parametrize("base", [None, "11111111-89ab-cdef-0123-456789abcdef"])
def test_the_identity_of_a_stream(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], selected: dict[str, str] | None,
    full: bool, since: str | None, incremental: bool, partial: bool, base: str | None,
) -> None:  # fmt: skip
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "60")
    made = [disk(1024, partial=partial)]
    wanted = SendIdentity(ID.upper(), base)
    found = identity_of(made, SendOptions(**options), wanted, selected, "m", "crash")
    assert found == Identity(
        ID, base, incremental or base is not None, "1970-01-01T00:01:00Z", "crash",
        {"d": DiskIdentity(1024, full and not partial, since, "m")},
    )  # fmt: skip


def test_a_random_id() -> None:
    one, other = (identity_of([], SendOptions(), SendIdentity(), None, None) for _ in range(2))
    assert one.id != other.id
    assert (one.consistency, one.incremental) == ("paused", False)
    with pytest.raises(UsageError) as error:
        identity_of([], SendOptions(), SendIdentity(ID, ID), None, None)
    assert str(error.value) == f"--id {ID} is the id of the base"
    with pytest.raises(UsageError) as none:
        check_id("--id", "x")
    assert str(none.value) == "--id: 'x' is not a UUID"


@pytest.mark.parametrize("value", ["x", "1" * 30])
def test_a_time_that_is_none(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", value)
    with pytest.raises(UsageError) as error:
        creation_time()
    assert str(error.value).startswith(f"SOURCE_DATE_EPOCH is '{value[:20]}")
    assert str(error.value).endswith(", not a number of seconds")


@pytest.mark.parametrize(
    ("known", "has"),
    [
        (None, False),
        (DiskIdentity(5, True), True),
        (DiskIdentity(5, False, "a"), True),
        (DiskIdentity(5, False, None, "a"), False),
    ],
)
def test_whether_a_base_has_a_disk(known: DiskIdentity | None, has: bool) -> None:
    disks = {} if known is None else {"d": known}
    assert Base(ID, Identity(ID, None, False, "", "crash", disks)).has_disk("d") is has
    assert not Base(ID).has_disk("d")


# -- the estimate, and progress


@pytest.mark.parametrize("zeros", [(), ((0, 3 * CHUNK),), ((0, CHUNK - 1),), ((0, 5), (5, CHUNK))])
@pytest.mark.parametrize("zero_blocks", [True, False])
def test_the_estimate(zeros: tuple[tuple[int, int], ...], zero_blocks: bool) -> None:
    """Nothing is read; zeros that are known take no room, if they are sent so."""
    image = Sized(3 * MIB, (0, 3 * CHUNK), zeros=zeros)
    options = SendOptions("classic", zero_blocks=zero_blocks)
    number = {0: 0, 1: 3 if zeros and zeros[0][1] == 3 * CHUNK else 0, 2: 1}[len(zeros)]
    whole = len(encoded(send_events([Disk("d", MemoryImage(b"\1" * 3 * MIB))], options)))
    expected = whole - (number * MIB if zero_blocks else 0)
    assert estimate([Disk("d", image)], options) == expected


def test_the_progress_of_disks() -> None:
    """In bytes of all disks, with the name of the one that is sent."""
    disks = [
        Disk("d", MemoryImage(b"\1" * 2 * MIB)),
        Disk("e", MemoryImage(bytes(2 * MIB) + b"\1" * MIB)),
    ]
    options, ticks, file = SendOptions("classic"), [], io.BytesIO()
    sink = FileObjectSink(file)
    write_disks(
        send_events(disks, options), disks, sink, lambda done, name=None: ticks.append((done, name))
    )  # fmt: skip
    sink.finish()
    assert file.getvalue() == encoded(send_events(disks, options))
    assert ticks == [(0, "d"), (MIB, "d"), (2 * MIB, "e"), (3 * MIB, "e"), (4 * MIB, "e")]
