"""The dialects of the block record: each is an object that selects flags, pieces and rules."""

from dataclasses import dataclass
from functools import cache

from .constants import CHUNK_SIZE, BlockFlag, without

_CLASSIC_FLAGS = BlockFlag.DEVICE_BLOCK | BlockFlag.EOS | BlockFlag.PROGRESS | BlockFlag.ZERO_BLOCK
_V1_FLAGS = _CLASSIC_FLAGS | BlockFlag.HAS_BLOCK | BlockFlag.HAS_BITMAPS
_V2_FLAGS = _V1_FLAGS | BlockFlag.SIZED_BITMAPS


# Flags have nine bits, and operations on enums are slow: each result is cached.


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """The flags and the rules of one dialect of the block record.

    ``data_flag``: the flag that announces data; None where every DEVICE_BLOCK without ZERO_BLOCK
    has data (QEMU 7.2, migration/block.c: block_load).
    """

    name: str
    flags: BlockFlag
    data_flag: BlockFlag | None

    @cache  # noqa: B019 (the dialects live as long as the program)
    def data_length(self, flags: int) -> int:
        """Return the bytes of data in a DEVICE_BLOCK with ``flags``; with ZERO_BLOCK there are none."""
        if flags & BlockFlag.ZERO_BLOCK:
            return 0
        return CHUNK_SIZE if self.data_flag is None or flags & self.data_flag else 0

    @cache  # noqa: B019
    def fault(self, flags: int) -> str | None:
        """Return why a word with ``flags`` is not a record of this dialect, or None if it is one."""
        unknown = without(flags, self.flags)
        if unknown:
            return f"flags {unknown:#x} are unknown in dialect {self.name}"
        if not flags & (BlockFlag.DEVICE_BLOCK | BlockFlag.PROGRESS | BlockFlag.EOS):
            return f"flags {flags:#x} are neither block, progress nor end"
        if self is V2 and flags & BlockFlag.DEVICE_BLOCK:
            return _v2_fault(flags)
        return None


def _v2_fault(flags: int) -> str | None:
    if flags & (BlockFlag.EOS | BlockFlag.PROGRESS):
        return f"flags {flags:#x}: a v2 block carries no end and no progress"
    if not flags & (BlockFlag.ZERO_BLOCK | BlockFlag.HAS_BLOCK | BlockFlag.HAS_BITMAPS):
        return f"flags {flags:#x}: a v2 block has data, zeros or bitmaps"
    if flags & BlockFlag.ZERO_BLOCK and flags & BlockFlag.HAS_BLOCK:
        return f"flags {flags:#x}: zero block and data exclude each other in v2"
    if bool(flags & BlockFlag.HAS_BITMAPS) != bool(flags & BlockFlag.SIZED_BITMAPS):
        return f"flags {flags:#x}: has-bitmaps and sized-bitmaps go together in v2"
    return None


CLASSIC = Dialect("classic", _CLASSIC_FLAGS, None)
V1 = Dialect("v1", _V1_FLAGS, BlockFlag.HAS_BLOCK)
V2 = Dialect("v2", _V2_FLAGS, BlockFlag.HAS_BLOCK)

#: By the names of ``--dialect``.  On reading, qemu is classic: its bitmaps have their own section.
DIALECTS = {"classic": CLASSIC, "v1": V1, "v2": V2, "qemu": CLASSIC}


@cache
def dialect_of(flags: int) -> Dialect | None:
    """Return the dialect of a DEVICE_BLOCK with ``flags``.

    None for a ZERO_BLOCK without further flags, which is the same in all dialects.
    """
    if flags & BlockFlag.SIZED_BITMAPS:
        return V2
    if flags & (BlockFlag.HAS_BLOCK | BlockFlag.HAS_BITMAPS):
        return V1
    return None if flags & BlockFlag.ZERO_BLOCK else CLASSIC
