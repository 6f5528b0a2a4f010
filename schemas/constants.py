"""Constants of the formats: magics, section types, commands, flags, sizes and limits.

Every name is QEMU's where QEMU has one.  Sizes are in bytes unless the name says sectors.
"""

from enum import IntEnum, IntFlag

MAGIC = 0x5145564D  # "QEVM"
VERSION = 3
VERSION_OBSOLETE = 2

SECTOR_SIZE = 512
CHUNK_SIZE = 1 << 20
CHUNK_SECTORS = CHUNK_SIZE // SECTOR_SIZE
WORD_BITS = 64
WORD_SIZE = WORD_BITS // 8

GRANULARITY_MIN = 512
GRANULARITY_MAX = 1 << 31
PAGE_SIZE_DEFAULT = 4096


def without(value: int, flags: IntFlag) -> int:
    """Return ``value`` without the bits in ``flags``.

    Not ``value & ~flags``: the complement of an IntFlag holds named bits only, and would lose the
    unknown bits of ``value``.
    """
    return int(value) & ~int(flags)


class SectionType(IntEnum):
    """The first byte of each object in the container (QEMU, migration/savevm.h: QEMU_VM_*)."""

    EOF = 0x00
    START = 0x01
    PART = 0x02
    END = 0x03
    FULL = 0x04
    SUBSECTION = 0x05
    VMDESCRIPTION = 0x06
    CONFIGURATION = 0x07
    COMMAND = 0x08
    FOOTER = 0x7E


class Command(IntEnum):
    """The numbers of command sections (QEMU, migration/savevm.c: enum qemu_vm_cmd)."""

    OPEN_RETURN_PATH = 1
    PING = 2
    POSTCOPY_ADVISE = 3
    POSTCOPY_LISTEN = 4
    POSTCOPY_RUN = 5
    POSTCOPY_RAM_DISCARD = 6
    PACKAGED = 7
    ENABLE_COLO = 8
    POSTCOPY_RESUME = 9
    RECV_BITMAP = 10
    SWITCHOVER_START = 11


# The type of the last message on the return path (QEMU 7.2, migration/migration.c:
# migrate_send_rp_shut).
RETURN_PATH_SHUT = 1


class BlockFlag(IntFlag):
    """The low nine bits of a block record's first word; the others are the sector or a percentage.

    The first four are QEMU's (migration/block.c: BLK_MIG_FLAG_*).
    """

    DEVICE_BLOCK = 0x01
    EOS = 0x02
    PROGRESS = 0x04
    ZERO_BLOCK = 0x08
    HAS_BLOCK = 0x10
    HAS_BITMAPS = 0x20
    SIZED_BITMAPS = 0x40


BLOCK_FLAG_BITS = 9
BLOCK_FLAG_MASK = (1 << BLOCK_FLAG_BITS) - 1
BITMAP_NAME_MAX = 1023  # bytes (QEMU, include/block/dirty-bitmap.h: BDRV_BITMAP_MAX_NAME_SIZE)
# QEMU writes a name's length modulo this, then all of the name (QEMU 7.2, migration/block.c:
# blk_send).
NAME_WRAP = 256
BLOCK_SECTION = "block"
BLOCK_VERSION = 1


class BitmapFlag(IntFlag):
    """The flag byte of a chunk in the ``dirty-bitmap`` section.

    QEMU, migration/block-dirty-bitmap.c: DIRTY_BITMAP_MIG_FLAG_*.
    """

    EOS = 0x01
    ZEROES = 0x02
    BITMAP_NAME = 0x04
    DEVICE_NAME = 0x08
    START = 0x10
    COMPLETE = 0x20
    BITS = 0x40
    EXTRA_FLAGS = 0x80


class BitmapAttribute(IntFlag):
    """The properties of a bitmap: the flags of a START chunk and of a v2 entry.

    QEMU, migration/block-dirty-bitmap.c: DIRTY_BITMAP_MIG_START_FLAG_*.
    """

    ENABLED = 0x01
    PERSISTENT = 0x02
    AUTOLOAD = 0x04  # formerly; ignored


START_ATTRIBUTES = BitmapAttribute.ENABLED | BitmapAttribute.PERSISTENT | BitmapAttribute.AUTOLOAD
V2_ATTRIBUTES = BitmapAttribute.ENABLED | BitmapAttribute.PERSISTENT

DIRTY_BITMAP_SECTION = "dirty-bitmap"
DIRTY_BITMAP_VERSION = 1
# The most bytes of bits in one chunk that QEMU loads; it accepts lengths that are padded up to a
# multiple of DIRTY_BITMAP_BITS_ALIGN (QEMU 7.2, migration/block-dirty-bitmap.c: dirty_bitmap_load_bits).
DIRTY_BITMAP_BITS_MAX = 10 << 10
DIRTY_BITMAP_BITS_ALIGN = 32

V2_BITS_MAX = 1 << 20  # bytes of bits of one bitmap in one v2 record
V2_BITMAPS_MAX = 65535


class RamFlag(IntFlag):
    """The low bits of a RAM record's first word; exact values, apart from CONTINUE.

    QEMU, migration/ram.c: RAM_SAVE_FLAG_*.
    """

    ZERO = 0x02
    MEM_SIZE = 0x04
    PAGE = 0x08
    EOS = 0x10
    CONTINUE = 0x20
    XBZRLE = 0x40
    HOOK = 0x80
    COMPRESS_PAGE = 0x100
    MULTIFD_FLUSH = 0x200


RAM_SECTION = "ram"
RAM_VERSION = 4
CAP_IGNORE_SHARED = "x-ignore-shared"
CAP_MAPPED_RAM = "mapped-ram"

SAVE_MAGIC = b"LibvirtQemudSave"  # a save image (libvirt, src/qemu/qemu_saveimage.h)
PARTIAL_MAGIC = b"LibvirtQemudPart"  # one that libvirt had not finished writing
SAVE_VERSIONS = (1, 2)


class SaveFormat(IntEnum):
    """The compression of the stream in a libvirt save image (virQEMUSaveFormat)."""

    RAW = 0
    GZIP = 1
    BZIP2 = 2
    XZ = 3
    LZOP = 4
    ZSTD = 5
    SPARSE = 6  # not compressed: mapped RAM
