"""Captures of TCP connections, written with struct alone."""

import struct
from collections.abc import Iterable

_HOST = 0x7F000001
_RAW_IP = 101


def pcap(streams: Iterable[tuple[int, int, bytes]], segment: int) -> bytes:
    """Return a capture of ``streams``: source port, target port, bytes in segments of that length."""
    out = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, _RAW_IP)]
    for source, target, data in streams:
        for at in range(0, len(data), segment):
            payload = data[at : at + segment]
            tcp = struct.pack(">HHIIBBHHH", source, target, 1 + at, 1, 0x50, 0x18, 65535, 0, 0)
            length = 20 + len(tcp) + len(payload)
            ip = struct.pack(">BBHHHBBHII", 0x45, 0, length, 0, 0, 64, 6, 0, _HOST, _HOST)
            packet = ip + tcp + payload
            out.append(struct.pack("<IIII", len(out), 0, len(packet), len(packet)) + packet)
    return b"".join(out)
