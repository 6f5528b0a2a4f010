"""Formats of images: told by suffix and content, never by content alone."""

from pathlib import Path

import pytest

from blkmig_cli.disks.formats import (
    check_format,
    format_of,
    keeps_bitmaps,
    new_format,
    other_format,
    suffix_format,
)
from blkmig_cli.disks.qemu.create import create
from blkmig_cli.disks.qemu.placement import Placement
from blkmig_cli.errors import FailureError, UsageError

QCOW2, QCOW = b"QFI\xfb\0\0\0\3".ljust(512, b"\0"), b"QFI\xfb\0\0\0\1".ljust(512, b"\0")
RAW, LUKS = bytes(512), b"LUKS\xba\xbe".ljust(512, b"\0")


@pytest.mark.parametrize(
    ("path", "head", "stated", "found"),
    [
        ("a.qcow2", QCOW2, None, "qcow2"),
        ("a.QCOW2", QCOW2, None, "qcow2"),
        ("a.qcow", QCOW, None, "qcow"),
        ("a.vhdx", b"vhdxfile", None, "vhdx"),
        ("a.vdi", b"<<< Oracle VM VirtualBox Disk Image >>>\n", None, "vdi"),
        ("a.vmdk", b"KDMV\1\0\0\0", None, "vmdk"),
        ("a.vmdk", b"COWD\1\0\0\0", None, "vmdk"),
        ("a.vmdk", b"# Disk DescriptorFile\n", None, "vmdk"),
        ("a", RAW, None, "raw"),
        ("a.img", RAW, None, "raw"),
        ("a.iso", RAW, None, "raw"),
        ("a", b"", None, "raw"),
        ("a", QCOW2, "qcow2", "qcow2"),
        ("a.img", QCOW2, "qcow2", "qcow2"),
        ("a.qcow2", RAW, "raw", "raw"),
        ("a.qcow2", QCOW2, "raw", "raw"),
        ("a", LUKS, "raw", "raw"),
    ],
)
def test_a_format_is_told(path: str, head: bytes, stated: str | None, found: str) -> None:
    assert format_of(path, head, stated) == found


@pytest.mark.parametrize(
    ("path", "head", "message"),
    [
        ("a", QCOW2, "a looks like qcow2; use -f qcow2 if it is, or -f raw if it is raw"),
        ("a.img", QCOW2, "a.img looks like qcow2; use -f qcow2 if it is, or -f raw"),
        ("a.qcow", QCOW2, "a.qcow looks like qcow2; use -f qcow2 if it is"),
        ("a.qcow2", QCOW, "a.qcow2 looks like qcow; use -f qcow if it is"),
        ("a.vmdk", RAW, "a.vmdk does not look like vmdk; use -f vmdk if it is, or -f raw"),
        ("a.raw", LUKS, "a.raw looks like luks, which is not supported; use -f raw if it is raw"),
    ],
)
def test_where_suffix_and_content_differ(path: str, head: bytes, message: str) -> None:
    with pytest.raises(FailureError) as caught:
        format_of(path, head, None)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"QED\0", "qed"), (b"conectix", "vpc"), (b"WithoutFreeSpace", "parallels"),
        (b"WithouFreSpacExt", "parallels"), (LUKS, "luks"), (QCOW, "qcow"), (QCOW2, "qcow2"),
        (b"vhdxfile", "vhdx"), (b"<<< ", "vdi"), (RAW, None), (b"", None), (b"QFI", None),
    ],
)  # fmt: skip
def test_content_of_another_format(head: bytes, name: str | None) -> None:
    assert other_format(head) == name


@pytest.mark.parametrize(
    ("name", "created"),
    [("bochs", False), ("cloop", False), ("dmg", False), ("parallels", False), ("qcow", True),
     ("qcow2", True), ("qed", True), ("vdi", True), ("vhdx", True), ("vmdk", True), ("vpc", True),
     ("raw", True)],
)  # fmt: skip
def test_each_format(name: str, created: bool) -> None:
    assert check_format(name) == name
    assert format_of("a", RAW, name) == name
    if created:
        assert new_format("a", name) == name
    else:
        with pytest.raises(FailureError, match=f"^a: images of format {name} cannot be created$"):
            new_format("a", name)


@pytest.mark.parametrize(
    ("suffix", "name"),
    [(".qcow2", "qcow2"), (".qcow", "qcow"), (".vmdk", "vmdk"), (".vdi", "vdi"), (".VHDX", "vhdx"),
     (".raw", "raw"), (".img", "raw"), (".iso", None), ("", None), (".img.gz", None)],
)  # fmt: skip
def test_suffixes(suffix: str, name: str | None) -> None:
    assert suffix_format(f"some.where/a{suffix}") == name
    assert new_format(f"a{suffix}", None) == (name or "raw")


def test_the_format_of_a_new_image() -> None:
    assert new_format("a.qcow2", None) == "qcow2"
    assert new_format("a.qcow2", "raw") == "raw"
    assert new_format("a.img", None) == new_format("a", None) == "raw"
    assert new_format("a", "vmdk") == "vmdk"
    with pytest.raises(FailureError, match="images of format dmg cannot be created"):
        new_format("a", "dmg")


def test_names_of_formats() -> None:
    assert check_format("vpc") == "vpc"
    for name in ("nbd", "file", "luks", "", "qcow3"):
        with pytest.raises(UsageError, match="unknown format"):
            check_format(name)


def test_which_images_have_a_place_for_bitmaps() -> None:
    assert keeps_bitmaps("qcow2")
    assert keeps_bitmaps("qcow2", ["cluster_size=2M,compat=1.1"])
    assert not keeps_bitmaps("qcow2", ["cluster_size=2M", "lazy_refcounts=off, compat=0.10"])
    assert not keeps_bitmaps("vmdk")


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("echo first >&2; echo 'qemu-img: last' >&2; exit 1", "x.vdi: qemu-img create: last"),
        ("exit 3", "x.vdi: qemu-img create: it failed"),
    ],
)
def test_a_program_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, text: str
) -> None:
    """The error is its last line."""
    program = tmp_path / "qemu-img"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(FailureError, match=f"^{text}$"):
        create("x.vdi", "vdi", 512, ())
    with pytest.raises(FailureError, match=r"^x\.vdi: qemu-img map: (last|failed)$"):
        list(Placement("x.vdi", {}).extents())


@pytest.mark.parametrize(
    "name",
    ["raw", "bochs", "cloop", "dmg", "parallels", "qcow", "qcow2", "qed", "vdi", "vhdx", "vmdk", "vpc"],
)  # fmt: skip
def test_formats_that_can_be_read(name: str) -> None:
    assert check_format(name) == name
    with pytest.raises(UsageError, match=f"-f: unknown format '{name}x'"):
        check_format(f"{name}x")
