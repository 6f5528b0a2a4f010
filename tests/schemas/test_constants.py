"""The numbers of the formats, as QEMU, libvirt and the NBD protocol have them."""

from enum import Enum

import pytest

from blkmig_cli.schemas import constants as c
from blkmig_cli.schemas import nbd

ENUMS: dict[type[Enum], str] = {
    c.SectionType: (
        "EOF=0 START=1 PART=2 END=3 FULL=4 SUBSECTION=5 VMDESCRIPTION=6 CONFIGURATION=7 COMMAND=8 "
        "FOOTER=126"
    ),
    c.Command: (
        "OPEN_RETURN_PATH=1 PING=2 POSTCOPY_ADVISE=3 POSTCOPY_LISTEN=4 POSTCOPY_RUN=5 "
        "POSTCOPY_RAM_DISCARD=6 PACKAGED=7 ENABLE_COLO=8 POSTCOPY_RESUME=9 RECV_BITMAP=10 "
        "SWITCHOVER_START=11"
    ),
    c.BlockFlag: (
        "DEVICE_BLOCK=1 EOS=2 PROGRESS=4 ZERO_BLOCK=8 HAS_BLOCK=16 HAS_BITMAPS=32 SIZED_BITMAPS=64"
    ),
    c.BitmapFlag: (
        "EOS=1 ZEROES=2 BITMAP_NAME=4 DEVICE_NAME=8 START=16 COMPLETE=32 BITS=64 EXTRA_FLAGS=128"
    ),
    c.BitmapAttribute: "ENABLED=1 PERSISTENT=2 AUTOLOAD=4",
    c.RamFlag: (
        "ZERO=2 MEM_SIZE=4 PAGE=8 EOS=16 CONTINUE=32 XBZRLE=64 HOOK=128 COMPRESS_PAGE=256 "
        "MULTIFD_FLUSH=512"
    ),
    c.SaveFormat: "RAW=0 GZIP=1 BZIP2=2 XZ=3 LZOP=4 ZSTD=5 SPARSE=6",
    nbd.HandshakeFlag: "FIXED_NEWSTYLE=1 NO_ZEROES=2",
    nbd.Option: (
        "ABORT=2 STARTTLS=5 GO=7 STRUCTURED_REPLY=8 LIST_META_CONTEXT=9 SET_META_CONTEXT=10"
    ),
    nbd.OptionReply: (
        "ACK=1 INFO=3 META_CONTEXT=4 ERR_UNSUP=2147483649 ERR_POLICY=2147483650 "
        "ERR_INVALID=2147483651 ERR_PLATFORM=2147483652 ERR_TLS_REQD=2147483653 "
        "ERR_UNKNOWN=2147483654 ERR_SHUTDOWN=2147483655 ERR_BLOCK_SIZE_REQD=2147483656 "
        "ERR_TOO_BIG=2147483657"
    ),
    nbd.Info: "EXPORT=0 BLOCK_SIZE=3",
    nbd.ExportFlag: "HAS_FLAGS=1 READ_ONLY=2 SEND_FLUSH=4 SEND_TRIM=32 SEND_WRITE_ZEROES=64",
    nbd.Command: "READ=0 WRITE=1 DISC=2 FLUSH=3 TRIM=4 WRITE_ZEROES=6 BLOCK_STATUS=7",
    nbd.ChunkFlag: "DONE=1",
    nbd.Chunk: ("NONE=0 OFFSET_DATA=1 OFFSET_HOLE=2 BLOCK_STATUS=5 ERROR=32769 ERROR_OFFSET=32770"),
    nbd.ErrorNumber: (
        "EPERM=1 EIO=5 ENOMEM=12 EINVAL=22 ENOSPC=28 EOVERFLOW=75 ENOTSUP=95 ESHUTDOWN=108"
    ),
    nbd.Allocation: "HOLE=1 ZERO=2",
}


@pytest.mark.parametrize("kind", ENUMS, ids=lambda kind: kind.__qualname__)
def test_names_and_numbers(kind: type[Enum]) -> None:
    assert " ".join(f"{each.name}={each.value}" for each in kind) == ENUMS[kind]


def test_sizes() -> None:
    assert (c.MAGIC.to_bytes(4, "big"), c.VERSION, c.VERSION_OBSOLETE) == (b"QEVM", 3, 2)
    assert (c.SECTOR_SIZE, c.CHUNK_SIZE, c.CHUNK_SECTORS) == (512, 1048576, 2048)
    assert (c.WORD_BITS, c.WORD_SIZE) == (64, 8)
    assert (c.GRANULARITY_MIN, c.GRANULARITY_MAX) == (512, 2147483648)
    assert c.PAGE_SIZE_DEFAULT == 4096
    assert (c.BLOCK_FLAG_BITS, c.BLOCK_FLAG_MASK) == (9, 511)
    assert (c.BITMAP_NAME_MAX, c.NAME_WRAP) == (1023, 256)
    assert (c.DIRTY_BITMAP_BITS_MAX, c.DIRTY_BITMAP_BITS_ALIGN) == (10240, 32)
    assert (c.V2_BITS_MAX, c.V2_BITMAPS_MAX) == (1048576, 65535)
    assert (c.START_ATTRIBUTES, c.V2_ATTRIBUTES, c.RETURN_PATH_SHUT) == (7, 3, 1)


def test_sections() -> None:
    assert (c.BLOCK_SECTION, c.BLOCK_VERSION) == ("block", 1)
    assert (c.DIRTY_BITMAP_SECTION, c.DIRTY_BITMAP_VERSION) == ("dirty-bitmap", 1)
    assert (c.RAM_SECTION, c.RAM_VERSION) == ("ram", 4)
    assert (c.CAP_IGNORE_SHARED, c.CAP_MAPPED_RAM) == ("x-ignore-shared", "mapped-ram")
    assert (c.SAVE_MAGIC, c.PARTIAL_MAGIC) == (b"LibvirtQemudSave", b"LibvirtQemudPart")
    assert c.SAVE_VERSIONS == (1, 2)


def test_nbd() -> None:
    assert nbd.GREETING_MAGIC.to_bytes(8, "big") == b"NBDMAGIC"
    assert nbd.OPTION_MAGIC.to_bytes(8, "big") == b"IHAVEOPT"
    assert nbd.OPTION_REPLY_MAGIC == 0x3E889045565A9
    assert nbd.REQUEST_MAGIC == 0x25609513
    assert nbd.SIMPLE_REPLY_MAGIC == 0x67446698
    assert nbd.STRUCTURED_REPLY_MAGIC == 0x668E33EF
    assert (nbd.PORT, nbd.NAME_MAX, nbd.BLOCK_MINIMUM_MAX) == (10809, 4096, 65536)
    assert (nbd.BLOCK_DEFAULT, nbd.PAYLOAD_DEFAULT) == (512, 33554432)
    assert (nbd.OPTION_ERROR, nbd.CHUNK_ERROR) == (1 << 31, 1 << 15)
    assert (nbd.DIRTY, nbd.OWN_LAYER) == (1, 1)
    assert nbd.BASE_ALLOCATION == "base:allocation"
    assert nbd.ALLOCATION_DEPTH == "qemu:allocation-depth"
    assert nbd.DIRTY_BITMAP == "qemu:dirty-bitmap:"


@pytest.mark.parametrize(
    ("value", "flags", "left"),
    [(0x1FF, c.BlockFlag.EOS, 0x1FD), (0x180, c.BlockFlag.EOS, 0x180), (3, c.BlockFlag(3), 0)],
)
def test_without_flags(value: int, flags: c.BlockFlag, left: int) -> None:
    """Unknown bits stay."""
    assert c.without(value, flags) == left
    assert type(c.without(c.BlockFlag(1), flags)) is int
