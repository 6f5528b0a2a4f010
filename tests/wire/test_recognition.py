"""Inputs that are not streams: the error names the kind and what to do, without waiting for more bytes."""

import os
import socket
import struct
import subprocess
import threading
from pathlib import Path

import pytest

from blkmig_cli.errors import NotAStreamError, TruncatedError
from blkmig_cli.transport.inputs import PipeInput
from blkmig_cli.wire.decoder import Decoder
from tests.conftest import Run, fails
from tests.support import raw
from tests.support.feed import events, in_file, piped


def at(place: int, data: bytes, size: int = 70_000, fill: bytes = b"\0") -> bytes:
    return (fill * place)[:place] + data + bytes(max(size - place - len(data), 0))


KINDS = {
    "qcow2": (b"QFI\xfb" + struct.pack(">I", 3) + bytes(500), "a qcow2"),
    "qed": (b"QED\0" + bytes(500), "a QED"),
    "vmdk 3": (b"COWD\1\0\0\0" + bytes(500), "a VMDK"),
    "vmdk": (b"KDMV\1\0\0\0" + bytes(500), "a VMDK"),
    "vmdk descriptor": (b"# Disk DescriptorFile\nversion=1\n", "a VMDK"),
    "vdi": (b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0") + b"\x7f\x10\xda\xbe", "a VDI"),
    "vhdx": (b"vhdxfile" + bytes(500), "a VHD"),
    "vhd": (b"conectix" + bytes(504), "a VHD"),
    "parallels": (b"WithoutFreeSpace" + bytes(500), "a Parallels"),
    "parallels, extended": (b"WithouFreSpacExt" + bytes(500), "a Parallels"),
    "luks": (b"LUKS\xba\xbe\0\2", "a LUKS"),
    "vma": (b"VMA\0\0\0\0\1" + bytes(500), "Proxmox backup (VMA); extract its disks"),
    "elf": (b"\x7fELF\2\1\1\0" + bytes(8) + b"\4\0", "an ELF file, such as a core dump"),
    "kdump": (b"KDUMP   " + bytes(500), "a kdump"),
    "makedumpfile": (b"makedumpfile\0" + bytes(500), "a kdump"),
    "pcap, big-endian": (b"\xa1\xb2\xc3\xd4\0\2\0\4" + bytes(500), "a packet capture"),
    "pcap, nanoseconds": (b"\x4d\x3c\xb2\xa1\2\0\4\0" + bytes(500), "a packet capture"),
    "pcap, both": (b"\xa1\xb2\x3c\x4d\0\2\0\4" + bytes(500), "a packet capture"),
    "pcap": (b"\xd4\xc3\xb2\xa1\2\0\4\0" + bytes(500), "a packet capture"),
    "pcapng": (b"\x0a\x0d\x0d\x0a\x1c\0\0\0", "a packet capture"),
    "bzip2": (b"BZh91AY&SY", "compressed with bzip2; bzip2 -dc FILE"),
    "lz4": (b"\x04\x22\x4d\x18\x64\x40\xa7\x01", "compressed with lz4; lz4 -dc FILE"),
    "lzop": (b"\x89LZO\0\r\n\x1a\n", "compressed with lzop; lzop -dc FILE"),
    "gzip": (b"\x1f\x8b\x08\0" + bytes(30), "compressed with gzip; gzip -dc FILE"),
    "xz": (b"\xfd7zXZ\0\0\4" + bytes(30), "compressed with xz; xz -dc FILE"),
    "zstd": (b"\x28\xb5\x2f\xfd\4\0" + bytes(30), "compressed with zstd; zstd -dc FILE"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4" + bytes(30), "a 7z archive"),
    "zip": (b"PK\3\4" + bytes(30), "a ZIP archive"),
    "tar": (at(257, b"ustar\0", fill=b"x"), "a tar archive"),
    "http": (b"HTTP/1.1 404 Not Found\r\n\r\n", "an HTTP message; save the body"),
    "http get": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "an HTTP message"),
    "http post": (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", "an HTTP message"),
    "http put": (b"PUT /x HTTP/1.1\r\nHost: x\r\n\r\n", "an HTTP message"),
    "ssh": (b"SSH-2.0-OpenSSH_9.2\r\n", "an SSH server"),
    "tls 1.0": (b"\x16\x03\0\2\0\1\0\1\xfc\3\0", "a TLS connection"),
    "tls 1.1": (b"\x16\x03\2\2\0\1\0\1\xfc\3\2", "a TLS connection"),
    "tls 1.2": (b"\x16\x03\3\2\0\1\0\1\xfc\3\3", "a TLS connection"),
    "tls": (b"\x16\x03\1\2\0\1\0\1\xfc\3\3", "a TLS connection; migrate without tls-creds"),
    "multifd": (b"\x11\x22\x33\x44\0\0\0\1" + bytes(56), "a multifd migration; migrate with"),
    "nbd": (b"NBDMAGICIHAVEOPT\0\3", "an NBD server"),
    "qmp": (b'{"QMP": {"version": {}}}\r\n', "a QMP monitor"),
    "spec": (b'{"blkmig-spec": 1}\n', "a spec; blkmig build"),
    "gpt": (at(512, b"EFI PART"), "a raw disk (GPT"),
    "gpt, 4096": (at(4096, b"EFI PART"), "a raw disk (GPT"),
    "mbr": (at(510, b"\x55\xaa", 512), "boot sector"),
    "ext4": (at(1080, b"\x53\xef"), "ext4"),
    "xfs": (b"XFSB\0\0\x10\0", "XFS"),
    "btrfs": (at(0x10040, b"_BHRfS_M", 0x20000), "btrfs"),
    "iso": (at(0x8001, b"CD001"), "ISO 9660"),
    "lvm": (at(512, b"LABELONE"), "LVM"),
    "swap": (at(4086, b"SWAPSPACE2"), "swap"),
    "text": (b"This is no stream, but a text.\n", "a migration stream but text"),
    "utf-8": ("Würfel, Gefäße, Äpfel\n".encode(), "a migration stream but text"),
    "zeros": (bytes(100_000), "begins with zeros; file:PATH,offset=N"),
    "later": (at(4096, raw.HEADER), "one may begin at byte 4096: file:PATH,offset=N"),
    "text, later": (at(4096, raw.HEADER, fill=b"#"), "one may begin at byte 4096"),
    "garbage": (b"\x80\xff" * 500, "(no QEVM magic or block record)"),
    "short garbage": (b"\x80\xff", "(no QEVM magic or block record)"),
    "short text": (b"hi", "but text"),
    "empty": (b"", "the input is empty"),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_kinds(name: str) -> None:
    data, words = KINDS[name]
    for source in (in_file(data), piped(data), piped(data, [1] * 70)):
        with pytest.raises(NotAStreamError) as error:
            next(Decoder(source))
        said, _, hint = str(error.value).partition("; ")
        name, *hints = words.split("; ")
        assert name in (hint if "file:PATH" in words or "may begin" in words else said)
        assert all(part in hint for part in hints)
        assert error.value.offset == 0
        assert error.value.check == "not-a-stream"


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("gzip", "xz", "zstd")])
def test_kinds_end_every_reader(run: Run, tmp_path: Path, name: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(KINDS[name][0])
    for command in ("dump", "validate", "map", "info"):
        fails(run(command, path), 3, "not a migration stream")


@pytest.mark.parametrize("tool", [["bzip2", "-c"], ["lz4", "-c"], ["lzop", "-c"]])
def test_real_tools(run: Run, tmp_path: Path, tool: list[str]) -> None:
    try:
        packed = subprocess.run(tool, input=raw.qemu(), capture_output=True, check=False).stdout
    except FileNotFoundError:
        pytest.skip(f"{tool[0]} is not installed")
    (tmp_path / "x").write_bytes(packed)
    outcome = run("validate", tmp_path / "x")
    assert outcome.status == 3
    assert "not a migration stream but" in outcome.err


@pytest.mark.parametrize("length", range(1, 8))
def test_what_may_be_left_of_a_stream_is_truncated(length: int) -> None:
    for start in (raw.HEADER, raw.progress(0), raw.block(2048, 8)):
        for source in (in_file(start[:length]), piped(start[:length])):
            with pytest.raises(TruncatedError) as error:
                next(Decoder(source))
            assert error.value.offset == length


@pytest.mark.parametrize("data", [b"hi", b"\x80", b"QE!", b"HTTP/1.", b"{}\n"])
def test_what_is_no_truncated_stream(data: bytes) -> None:
    _, error = events(in_file(data))
    assert error is not None
    assert error.startswith("NotAStreamError")


@pytest.mark.parametrize("name", ["http", "tls", "multifd", "nbd", "qmp"])
def test_a_peer_that_waits_for_an_answer(name: str) -> None:
    """It sends its first bytes, and then nothing: that is enough."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(KINDS[name][0])
        found: list[Exception] = []

        def read() -> None:
            try:
                next(Decoder(PipeInput(ours.recv_into)))
            except NotAStreamError as error:
                found.append(error)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        reader.join(20)
        assert found


def test_a_raw_disk_made_by_a_tool(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.touch()
    os.truncate(path, 8 << 20)
    try:
        subprocess.run(["mkfs.ext4", "-q", str(path)], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("mkfs.ext4 is not installed")
    fails(run("validate", path), 3, "ext4 file system (at byte 0); blkmig send")
