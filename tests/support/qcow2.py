"""qcow2 images made with qemu-img and qemu-io, and their bitmaps read without QEMU or blkmig.

The bitmaps are read from the file itself (QEMU, docs/interop/qcow2.txt: Bitmaps extension).
"""

import json
import re
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

TOOLS = ("qemu-img", "qemu-io", "qemu-storage-daemon")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
#: Marks tests that need QEMU's tools.
needs_qemu_utils = pytest.mark.skipif(
    bool(MISSING), reason=f"no {', '.join(MISSING)} (package qemu-utils)"
)
_BITMAPS = 0x23852875
_IN_USE, _AUTO = 1, 2


@dataclass(frozen=True)
class Stored:
    """A bitmap in a file; ``dirty``: its ranges (start, length) in bytes."""

    granularity: int
    recording: bool
    in_use: bool
    dirty: tuple[tuple[int, int], ...]


def stored_bitmaps(path: Path) -> dict[str, Stored]:
    """Return the bitmaps in a qcow2 file of version 3, by name."""
    data = path.read_bytes()
    cluster = 1 << struct.unpack_from(">I", data, 20)[0]
    (size,) = struct.unpack_from(">Q", data, 24)
    at = struct.unpack_from(">I", data, 100)[0]
    while True:
        kind, length = struct.unpack_from(">II", data, at)
        if kind == _BITMAPS:
            break
        if kind == 0:
            return {}
        at += 8 + -(-length // 8) * 8
    count, _, _, place = struct.unpack_from(">IIQQ", data, at + 8)
    found = {}
    for _ in range(count):
        table, entries, flags, _, bits, name_size, extra = struct.unpack_from(
            ">QIIBBHI", data, place
        )
        name = data[place + 24 + extra :][:name_size].decode()
        packed = b""
        for entry in struct.unpack_from(f">{entries}Q", data, table):
            offset = entry & ((1 << 56) - 1) & ~511
            filler = b"\xff" if entry & 1 else b"\0"
            packed += data[offset : offset + cluster] if offset else filler * cluster
        ranges = _ranges(packed, 1 << bits, size)
        found[name] = Stored(1 << bits, bool(flags & _AUTO), bool(flags & _IN_USE), ranges)
        place += -(-(24 + extra + name_size) // 8) * 8
    return found


def _ranges(packed: bytes, granularity: int, size: int) -> tuple[tuple[int, int], ...]:
    found: list[list[int]] = []
    dirty = (
        granule
        for byte in re.finditer(rb"[^\0]", packed, re.DOTALL)
        for granule in range(byte.start() * 8, byte.start() * 8 + 8)
        if byte[0][0] >> granule % 8 & 1
    )
    for granule in dirty:
        start, end = granule * granularity, min((granule + 1) * granularity, size)
        if found and found[-1][1] == start:
            found[-1][1] = end
        elif start < size:
            found.append([start, end])
    return tuple((start, end - start) for start, end in found)


def qemu_img(*words: object) -> str:
    """Run qemu-img, which must succeed; return its output."""
    return _run("qemu-img", *words)


def _run(*words: object) -> str:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def write(path: Path, *commands: str) -> None:
    """Run qemu-io commands on a qcow2 image."""
    _run(
        "qemu-io",
        "-f",
        "qcow2",
        "-d",
        "unmap",
        path,
        *(word for text in commands for word in ("-c", text)),
    )


def check(path: Path) -> None:
    """Check that the metadata of a qcow2 image is intact, without leaks."""
    _run("qemu-img", "check", "-q", "-f", "qcow2", path)


def same(path: Path, image_format: str, other: Path, other_format: str = "raw") -> None:
    """Check that two images have the same content and size."""
    _run("qemu-img", "compare", "-f", image_format, "-F", other_format, path, other)
    assert virtual_size(path, image_format) == virtual_size(other, other_format)


def virtual_size(path: Path, image_format: str) -> int:
    """Return the size of a disk in bytes."""
    found = json.loads(_run("qemu-img", "info", "--output", "json", "-f", image_format, path))
    return int(found["virtual-size"])


def digests(path: Path, names: list[str]) -> dict[str, str]:
    """Return QEMU's SHA-256 of the bits of each bitmap (QMP: x-debug-block-dirty-bitmap-sha256)."""
    requests: list[dict[str, object]] = [{"execute": "qmp_capabilities"}]
    node = {"driver": "file", "filename": str(path)}
    options = {"driver": "qcow2", "node-name": "d", "read-only": True, "file": node}
    requests.append({"execute": "blockdev-add", "arguments": options})
    requests += [
        {
            "execute": "x-debug-block-dirty-bitmap-sha256",
            "arguments": {"node": "d", "name": name},
            "id": name,
        }
        for name in names
    ]
    requests.append({"execute": "quit"})
    done = subprocess.run(
        ["qemu-storage-daemon", "--chardev", "stdio,id=m", "--monitor", "chardev=m"],
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return {found["id"]: found["return"]["sha256"] for found in answers if "id" in found}
