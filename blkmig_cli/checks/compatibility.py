"""Which versions of QEMU can load which streams, for ``--for-qemu``.

Block records can be loaded by QEMU 0.12 to 9.0, bitmaps in their own section by 2.12 and later; the
other versions are those in which a feature was added or removed, or a defect was introduced.
"""

import re
from collections.abc import Iterator
from dataclasses import field

from blkmig_cli.dataclass import dataclass
from blkmig_cli.text import brief, escape, quote

Version = tuple[int, int]

BLOCKS_END = (9, 1)  # migration/block.c was removed
_ZERO_BLOCKS = (1, 6)  # migration/block.c: BLK_MIG_FLAG_ZERO_BLOCK
_CONFIGURATION = (2, 4)  # migration/savevm.c: QEMU_VM_CONFIGURATION, QEMU_VM_SECTION_FOOTER
_RETURN_PATH = (2, 5)  # migration/savevm.c: MIG_CMD_OPEN_RETURN_PATH
# migration/block.c, block_load: writes all of a chunk that the disk's end cuts
_TAIL_FAILS = (2, 10)
_BITMAPS = (2, 12)  # migration/block-dirty-bitmap.c
_OLD_MACHINE = re.compile(r"-(\d+)\.(\d+)$")


@dataclass(slots=True)
class Traits:
    """The properties of a stream that decide whether a QEMU can load it.

    ``dialect``, ``container``: as in reports; ``disks``: the devices that have block records;
    ``cut``: those of them whose last chunk has data and is cut by the disk's end.
    """

    dialect: str
    container: str
    machine: str | None = None
    disks: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    zero_blocks: bool = False
    bitmaps: bool = False


def parse_version(text: str) -> Version:
    """Return ``7.2`` or ``7.2.1`` or ``9`` as (major, minor); raises ValueError."""
    found = re.fullmatch(r"(\d{1,3})(?:\.(\d{1,3})(?:\.\d{1,4})?)?", text, re.ASCII)
    if found is None:
        raise ValueError(f"invalid version of QEMU {brief(text)}: expected e.g. 7.2")
    return int(found[1]), int(found[2] or 0)


def answers(version: Version) -> bool:
    """Return whether this QEMU answers on a return path when it has loaded a stream."""
    return version >= _RETURN_PATH


def objections(traits: Traits, version: Version) -> Iterator[str]:
    """Yield the reasons why QEMU ``version`` cannot load a stream of these traits, as sentences."""
    name = f"QEMU {version[0]}.{version[1]}"
    if traits.container == "none":
        yield "no QEMU loads bare block records; use --container qemu"
    if traits.dialect == "v2" or (traits.dialect == "v1" and traits.bitmaps):
        yield f"no released QEMU reads dialect {traits.dialect}; use --dialect qemu"
    elif traits.bitmaps and version < _BITMAPS:
        yield f"{name} does not know the dirty-bitmap section, which is new in 2.12"
    if traits.container == "qemu" and version < _CONFIGURATION:
        yield f"{name} does not know the configuration and footers, which are new in 2.4"
    if traits.disks:
        yield from _disks(traits, version, name)


def cut_tail(device: str, size: int) -> str:
    """Return the warning for a disk of ``size`` bytes whose last chunk is cut by its end."""
    return (
        f"device {quote(device)}: QEMU 2.10 to 9.0 cannot load a disk of {size} bytes in this way, "
        "unless its last chunk is zeros"
    )


def _disks(traits: Traits, version: Version, name: str) -> Iterator[str]:
    if version >= BLOCKS_END:
        yield f"{name} has no block section (removed in 9.1), and loads bitmaps only"
        return
    if traits.zero_blocks and version < _ZERO_BLOCKS:
        yield f"{name} does not know zero blocks, which are new in 1.6; use --no-zero-blocks"
    for device in traits.cut:
        if version >= _TAIL_FAILS:
            yield (
                f"device {quote(device)}: {name} fails on data in a last chunk that the disk's end cuts"
            )
    if "" in traits.disks:
        yield "a disk without a name cannot be matched to a drive; give it a name"
    if traits.machine == "none":
        yield "machine none has no disks; use --machine with the destination's, such as pc"
    old = _OLD_MACHINE.search(traits.machine or "")
    if old is not None and (int(old[1]), int(old[2])) < _CONFIGURATION:
        yield f"machine {escape(traits.machine or '')} does not know the configuration and footers"
