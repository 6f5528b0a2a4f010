"""Which QEMU can load what: the facts behind ``--for-qemu``.

From QEMU 0.12 to 9.0 block records load, from 2.12 on bitmaps in a section of their own; the other
versions are those at which a feature came or went, or a defect began or ended.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from blkmig_cli.text import escape, quote

Version = tuple[int, int]

BLOCKS_END = (9, 1)
_ZERO_BLOCKS = (1, 6)
_CONFIGURATION = (2, 4)
_RETURN_PATH = (2, 5)
_TAIL_FAILS = (2, 10)
_BITMAPS = (2, 12)
_OLD_MACHINE = re.compile(r"-(\d+)\.(\d+)$")


@dataclass(slots=True)
class Traits:
    """What a QEMU minds in a stream.

    ``dialect``, ``container``: as in reports; ``disks``: it has block records of these devices;
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
    """``7.2`` or ``7.2.1`` or ``9`` as (major, minor); raises ValueError."""
    found = re.fullmatch(r"(\d{1,3})(?:\.(\d{1,3})(?:\.\d{1,4})?)?", text)
    if found is None:
        raise ValueError(f"{text!r} is no version of QEMU, such as 7.2")
    return int(found[1]), int(found[2] or 0)


def answers(version: Version) -> bool:
    """Does this QEMU answer on a return path when it has loaded a stream?"""
    return version >= _RETURN_PATH


def objections(traits: Traits, version: Version) -> Iterator[str]:
    """Why a QEMU of ``version`` cannot load a stream of these traits: one sentence each."""
    name = f"QEMU {version[0]}.{version[1]}"
    if traits.container == "none":
        yield "no QEMU loads bare block records; use --container qemu"
    if traits.dialect == "v2" or (traits.dialect == "v1" and traits.bitmaps):
        yield f"no QEMU was ever released that reads dialect {traits.dialect}; use dialect qemu"
    elif traits.bitmaps and version < _BITMAPS:
        yield f"{name} has no dirty-bitmap section, which came with 2.12"
    if traits.container == "qemu" and version < _CONFIGURATION:
        yield f"{name} knows no configuration and no footers, which came with 2.4"
    if traits.disks:
        yield from _disks(traits, version, name)


def cut_tail(device: str, size: int) -> str:
    """What to say of a disk of ``size`` bytes whose last chunk is cut by its end."""
    return (
        f"device {quote(device)}: QEMU 2.10 to 9.0 cannot load a disk of {size} bytes sent so, "
        "unless its last chunk is zeros"
    )


def _disks(traits: Traits, version: Version, name: str) -> Iterator[str]:
    if version >= BLOCKS_END:
        yield f"{name} has no block section, which ended with 9.0; only bitmaps travel"
        return
    if traits.zero_blocks and version < _ZERO_BLOCKS:
        yield f"{name} knows no zero blocks, which came with 1.6; use --no-zero-blocks"
    for device in traits.cut:
        if version >= _TAIL_FAILS:
            yield (
                f"device {quote(device)}: {name} fails on data in a last chunk that the disk's end cuts"
            )
    if "" in traits.disks:
        yield "a disk without a name finds no place; give it one"
    if traits.machine == "none":
        yield "machine none has no disks; use --machine with the destination's, such as pc"
    old = _OLD_MACHINE.search(traits.machine or "")
    if old is not None and (int(old[1]), int(old[2])) < _CONFIGURATION:
        yield f"machine {escape(traits.machine or '')} knows no configuration and no footers"
