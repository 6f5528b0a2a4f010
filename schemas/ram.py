"""Records of the ``ram`` section, version 4, described as far as is needed to skip them.

Source: QEMU 7.2, migration/ram.c (ram_load_precopy); QEMU 10.0, migration/ram.c (parse_ramblock).
"""

from construct import Construct, Int8ub, Int16ub, Int32ub, Int64ub, Struct

from .constants import RamFlag
from .framing import CountedString

#: ``offset | flags``; the page size bounds the flag bits.
RamWord = Struct("word" / Int64ub)

#: After the word of a record that carries a page, unless CONTINUE: the RAM block's name.
BlockName = Struct("block" / CountedString)

#: The fields after the block's name; then ``length`` bytes follow, or a page for PAGE.
RECORD_HEADS: dict[RamFlag, Construct] = {
    RamFlag.ZERO: Struct("fill" / Int8ub),
    RamFlag.PAGE: Struct(),
    RamFlag.XBZRLE: Struct("encoding" / Int8ub, "length" / Int16ub),
    RamFlag.COMPRESS_PAGE: Struct("length" / Int32ub),
}

#: Records that consist of their word only.
BARE_RECORDS = frozenset({RamFlag.EOS, RamFlag.HOOK, RamFlag.MULTIFD_FLUSH})

#: MEM_SIZE: one per RAM block, until their lengths add up to the total in the word.
MemSizeEntry = Struct("block" / CountedString, "length" / Int64ub)

#: Follows an entry if postcopy was advised and the block's page size is not the host's.
MemSizePageSize = Struct("page_size" / Int64ub)

#: Follows an entry with the capability x-ignore-shared.
MemSizeAddress = Struct("address" / Int64ub)

#: Follows an entry with the capability mapped-ram; the next record is at pages_offset + length.
MappedRamHeader = Struct(
    "version" / Int32ub,
    "page_size" / Int64ub,
    "bitmap_offset" / Int64ub,
    "pages_offset" / Int64ub,
)

#: Data of command 3 when RAM is to be postcopied: the OR of the blocks' page sizes, and the target's
#: page size (QEMU 7.2, migration/savevm.c: loadvm_postcopy_handle_advise).
PostcopyAdvise = Struct("page_sizes" / Int64ub, "target_page_size" / Int64ub)
