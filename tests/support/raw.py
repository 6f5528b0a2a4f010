"""Streams written with struct alone, independent of the code under test."""

import struct

CHUNK = 1 << 20
HEADER = b"QEVM" + struct.pack(">I", 3)
EOF = b"\0"
EOS = struct.pack(">Q", 2)


def name(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return bytes([len(raw)]) + raw


def configuration(machine: str = "none") -> bytes:
    return b"\x07" + struct.pack(">I", len(machine)) + machine.encode()


def start(number: int, section: str, version: int, payload: bytes = b"", kind: int = 1) -> bytes:
    head = (
        bytes([kind]) + struct.pack(">I", number) + name(section) + struct.pack(">II", 0, version)
    )
    return head + payload


def part(number: int, payload: bytes, kind: int = 2) -> bytes:
    return bytes([kind]) + struct.pack(">I", number) + payload


def footer(number: int) -> bytes:
    return b"\x7e" + struct.pack(">I", number)


def word(upper: int, flags: int) -> bytes:
    return struct.pack(">Q", upper << 9 | flags)


def progress(percent: int) -> bytes:
    return word(percent, 4)


def block(sector: int, flags: int, device: str = "d", rest: bytes = b"") -> bytes:
    return word(sector, flags | 1) + name(device) + rest


def v1(*bitmaps: tuple[str, bytes]) -> bytes:
    return struct.pack(">I", len(bitmaps)) + b"".join(name(n) + bits for n, bits in bitmaps)


def v2(sectors: int, *bitmaps: tuple[str | bytes, int, int, bytes]) -> bytes:
    entries = [name(n) + struct.pack(">BII", f, g, len(b)) + b for n, f, g, b in bitmaps]
    return struct.pack(">II", sectors, len(bitmaps)) + b"".join(entries)


def qemu(
    *records: bytes, bitmaps: bytes | None = None, machine: str = "none", blocks: bool = True
) -> bytes:
    """Return a stream with ``records`` in one part, and a dirty-bitmap section's payload.

    Without ``blocks`` it has no block section, as QEMU of 9.1 and later want it.
    """
    out = HEADER + configuration(machine)
    if blocks:
        out += start(1, "block", 1, EOS) + footer(1)
    if bitmaps is not None:
        out += start(2, "dirty-bitmap", 1, b"\x01") + footer(2)
    if blocks:
        out += part(1, b"".join(records) + EOS) + footer(1)
        out += part(1, progress(100) + EOS, kind=3) + footer(1)
    if bitmaps is not None:
        out += part(2, bitmaps + b"\x01", kind=3) + footer(2)
    return out + EOF


def bitmap_start(
    device: str = "d", bitmap: str = "b", granularity: int = 65536, flags: int = 1
) -> bytes:
    return b"\x1c" + name(device) + name(bitmap) + struct.pack(">IB", granularity, flags)


def bitmap_bits(sector: int, sectors: int, bits: bytes) -> bytes:
    return b"\x40" + struct.pack(">QIQ", sector, sectors, len(bits)) + bits


COMPLETE = b"\x20"
