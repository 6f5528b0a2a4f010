"""Recognising a stream and its container by the bytes at some place of an input.

Other kinds of input that are known by their first bytes are named in the error, with a hint.
"""

from typing import Literal

from blkmig_cli import limits
from blkmig_cli.dataclass import dataclass
from blkmig_cli.errors import NotAStreamError
from blkmig_cli.schemas import block as block_schema
from blkmig_cli.schemas import framing as schema
from blkmig_cli.schemas.constants import MAGIC, SECTOR_SIZE, VERSION, BlockFlag, without
from blkmig_cli.schemas.dialects import DIALECTS, V2
from blkmig_cli.wire.schema_io import Input, build

#: How a stream in QEMU's container begins.
HEADER = build(schema.FileHeader, MAGIC, VERSION)

_WORD = block_schema.RecordWord.sizeof()
_MAGIC = HEADER[:4]
_ENDS = BlockFlag.EOS | BlockFlag.PROGRESS
# Bytes after a stream's end that are searched for a stream of bare records.
_NEAR = 512
# Bytes of the start that are searched for a stream which begins later.
_WINDOW = 1 << 16


def container_of(head: bytes) -> Literal["qemu", "none"] | None:
    """Return the container of the stream that begins with the eight bytes ``head``; None for no stream.

    Bare records begin with any record whose flags and numbers are plausible.
    """
    if head[: len(_MAGIC)] == _MAGIC:
        return "qemu"
    if len(head) < _WORD:
        return None
    upper, flags = block_schema.split_word(int.from_bytes(head, "big"))
    if V2.flags & flags != flags:
        return None
    if flags & BlockFlag.DEVICE_BLOCK:
        return "none" if upper * SECTOR_SIZE < limits.BARE_DISK_MAX else None
    return "none" if flags & _ENDS and upper <= 100 else None


def may_be_cut(head: bytes) -> bool:
    """Return whether ``head``, fewer than eight bytes, may be a truncated stream."""
    return HEADER.startswith(head) or head[0] << 56 < limits.BARE_DISK_MAX


def stream_behind(source: Input) -> bool:
    """Return whether a further stream begins where ``source`` is, right after the end of one.

    The test for bare records is stricter than at an input's start, where a stream is expected: there
    must be a block record of a device with a printable name, preceded by progress and ends only.
    """
    data = source.peek(_WORD)
    if data[: len(_MAGIC)] == _MAGIC:
        return True
    if container_of(data) is None:
        return False
    data = source.peek(_NEAR)
    for at in range(0, len(data) - _WORD, _WORD):
        upper, flags = block_schema.split_word(int.from_bytes(data[at : at + _WORD], "big"))
        if flags & BlockFlag.DEVICE_BLOCK:
            size = data[at + _WORD]
            name = data[at + _WORD + 1 : at + _WORD + 1 + size]
            known = any(dialect.fault(flags) is None for dialect in DIALECTS.values())
            named = 0 < len(name) == size and name.isascii() and name.decode().isprintable()
            return known and named and upper * SECTOR_SIZE < limits.BARE_DISK_MAX
        if not flags & _ENDS or without(flags, _ENDS) or upper > 100:
            return False
    return False


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of input that is not a stream: its name, a hint, and its magics.

    ``marks``: offsets and bytes; any of them is sufficient.
    """

    name: str
    hint: str
    marks: tuple[tuple[int, bytes], ...]


_AS_IMAGE = "blkmig send makes a stream of a disk; compare and validate --image take an image"
_UNPACK = "unpack it, and pipe that into blkmig: {} -dc FILE | blkmig ... -"
_DUMP = "a dump of a guest's memory holds no disks"

_KINDS = (
    _Kind("a qcow2 or qcow image", _AS_IMAGE, ((0, b"QFI\xfb"),)),
    _Kind("a QED image", _AS_IMAGE, ((0, b"QED\0"),)),
    _Kind("a VMDK image", _AS_IMAGE, ((0, b"KDMV"), (0, b"COWD"), (0, b"# Disk DescriptorFile"))),
    _Kind("a VDI image", _AS_IMAGE, ((64, b"\x7f\x10\xda\xbe"),)),
    _Kind("a VHD or VHDX image", _AS_IMAGE, ((0, b"conectix"), (0, b"vhdxfile"))),
    _Kind("a Parallels image", _AS_IMAGE, ((0, b"WithoutFreeSpace"), (0, b"WithouFreSpacExt"))),
    _Kind("a LUKS volume", _AS_IMAGE, ((0, b"LUKS\xba\xbe"),)),
    _Kind(
        "a Proxmox backup (VMA)", "extract its disks with: vma extract FILE DIR", ((0, b"VMA\0"),)
    ),
    _Kind("an ELF file, such as a core dump", _DUMP, ((0, b"\x7fELF"),)),
    _Kind("a kdump file", _DUMP, ((0, b"KDUMP   "), (0, b"makedumpfile\0"))),
    _Kind(
        "a packet capture (pcap)",
        "extract the payload of the TCP connection first, as with tshark -z follow,tcp,raw,0",
        (
            (0, b"\xd4\xc3\xb2\xa1"),
            (0, b"\xa1\xb2\xc3\xd4"),
            (0, b"\x4d\x3c\xb2\xa1"),
            (0, b"\xa1\xb2\x3c\x4d"),
            (0, b"\x0a\x0d\x0d\x0a"),
        ),
    ),
    _Kind("compressed with bzip2", _UNPACK.format("bzip2"), ((0, b"BZh"),)),
    _Kind("compressed with lz4", _UNPACK.format("lz4"), ((0, b"\x04\x22\x4d\x18"),)),
    _Kind("compressed with lzop", _UNPACK.format("lzop"), ((0, b"\x89LZO\0\r\n\x1a\n"),)),
    _Kind("compressed with gzip", _UNPACK.format("gzip"), ((0, b"\x1f\x8b"),)),
    _Kind("compressed with xz", _UNPACK.format("xz"), ((0, b"\xfd7zXZ\0"),)),
    _Kind("compressed with zstd", _UNPACK.format("zstd"), ((0, b"\x28\xb5\x2f\xfd"),)),
    _Kind("a ZIP archive", "extract the stream from it first", ((0, b"PK\3\4"),)),
    _Kind("a 7z archive", "extract the stream from it first", ((0, b"7z\xbc\xaf\x27\x1c"),)),
    _Kind(
        "an HTTP message",
        "save the body alone, as curl -f -o FILE URL does",
        ((0, b"HTTP/"), (0, b"GET /"), (0, b"POST /"), (0, b"PUT /")),
    ),
    _Kind(
        "a TLS connection",
        "migrate without tls-creds, or let QEMU receive it",
        ((0, b"\x16\x03\0"), (0, b"\x16\x03\1"), (0, b"\x16\x03\2"), (0, b"\x16\x03\3")),
    ),
    _Kind(
        "a channel of a multifd migration",
        "migrate with the capability multifd off",
        ((0, b"\x11\x22\x33\x44"),),
    ),
    _Kind("an NBD server", "name it as an image: nbd://HOST/EXPORT", ((0, b"NBDMAGIC"),)),
    _Kind("an SSH server", "use SSH to forward a port, or exec:ssh HOST ...", ((0, b"SSH-"),)),
    _Kind("a QMP monitor", "give the address that QEMU migrates to", ((0, b'{"QMP":'),)),
    _Kind("a spec", "blkmig build makes a stream of it", ((0, b'{"blkmig-spec":'),)),
    _Kind("a tar archive", "extract the stream from it first", ((257, b"ustar"),)),
    _Kind("a raw disk (GPT partition table)", _AS_IMAGE, ((512, b"EFI PART"), (4096, b"EFI PART"))),
    _Kind("an LVM physical volume", _AS_IMAGE, ((512, b"LABELONE"),)),
    _Kind("a raw disk or file system (boot sector)", _AS_IMAGE, ((510, b"\x55\xaa"),)),
    _Kind("an ext2, ext3 or ext4 file system", _AS_IMAGE, ((1080, b"\x53\xef"),)),
    _Kind("an XFS file system", _AS_IMAGE, ((0, b"XFSB"),)),
    _Kind("a btrfs file system", _AS_IMAGE, ((0x10040, b"_BHRfS_M"),)),
    _Kind("an ISO 9660 image", _AS_IMAGE, ((0x8001, b"CD001"),)),
    _Kind("a swap area", _AS_IMAGE, ((4086, b"SWAPSPACE2"),)),
)
_TEXT = 64
_AT_START = max(len(mark) for kind in _KINDS for at, mark in kind.marks if at == 0)
_ANYWHERE = max(at + len(mark) for kind in _KINDS for at, mark in kind.marks)


def not_a_stream(source: Input) -> NotAStreamError:
    """Return the error for ``source``, at whose offset no stream begins."""
    offset = source.offset
    # In small steps: a peer that waits for an answer sends only its first bytes.
    head, kind = source.peek(1), None
    for size in (len(HEADER), _AT_START, _ANYWHERE):
        if kind is None:
            head = source.peek(size)
            kind = _kind_of(head)
    if not head:
        return NotAStreamError("not a migration stream: the input is empty", offset=offset)
    if kind is not None:
        message = f"not a migration stream but {kind.name}"
        return NotAStreamError(message, offset=offset, hint=kind.hint)
    message = "not a migration stream (no QEVM magic or block record)"
    hint, later = None, head.find(HEADER, 1, _WINDOW)
    if later >= 0:
        hint = (
            f"one may begin at byte {source.origin + offset + later}: file:PATH,offset=N reads it"
        )
    elif _is_text(head):
        message = "not a migration stream but text"
    elif not any(head):
        hint = "it begins with zeros; file:PATH,offset=N reads a stream that begins later"
    return NotAStreamError(message, offset=offset, hint=hint)


def _kind_of(head: bytes) -> _Kind | None:
    return next((kind for kind in _KINDS if _shows(kind, head)), None)


def _shows(kind: _Kind, head: bytes) -> bool:
    return any(head.startswith(mark, at) for at, mark in kind.marks)


def _is_text(head: bytes) -> bool:
    text = head[:_TEXT].decode("utf-8", "replace")
    return all(char.isprintable() or char in "\t\n\r\f\ufffd" for char in text) and (
        "\ufffd" not in text[:-1]
    )
