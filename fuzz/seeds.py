"""Seeds: an abstract of each capture in some hundred bytes; small streams; and a dictionary.

An abstract has the first sections of every kind, and in each the first records of every kind, with
holes in place of their data.
"""

import contextlib
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.errors import StreamError
from blkmig_cli.wire.events import (
    Block,
    DeviceState,
    Event,
    Footer,
    Ram,
    SectionHeader,
    VmDescription,
)
from blkmig_cli.wire.runs.columns import Run
from blkmig_cli.schemas.constants import SectionType
from blkmig_cli.schemas.nbd import Option
from blkmig_cli.spec.records import KEY, VERSION, RecordWriter
from fuzz.common import HOLES, MAX_LENGTH, pieces
from tests.support import nbd_bytes as nbd
from tests.support import raw
from tests.support.feed import in_file

_CAPTURES = Path(__file__).parents[1] / "tests" / "captures"
_EACH = 2
_STATE = 16
_MARKS = {size: mark for mark, size in HOLES.items()}
_WORDS = [
    *HOLES,
    b"QEVM\0\0\0\3",
    b"\5block",
    b"\3ram",
    b"\x0cdirty-bitmap",
    raw.EOS,
    raw.footer(1),
    nbd.simple(1),
    nbd.hole_chunk(1, 0, 512),
    nbd.status_chunk(1, (512, 0)),
    nbd.ack(Option.GO),
]


def write_words(path: Path) -> None:
    """Write libFuzzer's dictionary of the parts of streams."""
    lines = ["".join(f"\\x{byte:02x}" for byte in word) for word in _WORDS]
    path.write_text("".join(f'"{line}"\n' for line in lines))


def write_seeds(target: str, folder: Path) -> None:
    """Write all seeds of a target to ``folder``."""
    for name, seed in _SEEDS.get(target, _streams)().items():
        (folder / name).write_bytes(seed[:MAX_LENGTH])


def _streams() -> dict[str, bytes]:
    seeds = _small()
    for packed in sorted(_CAPTURES.glob("*.bin.gz")):
        with gzip.open(packed) as file:
            content = file.read()
        sections = list(_sections(content))
        seeds[packed.stem] = b"".join(bytes_ for _, bytes_ in sections)
        seeds[f"{packed.stem}-ours"] = b"".join(bytes_ for ours, bytes_ in sections if ours)
    return seeds


def _sections(content: bytes) -> Iterator[tuple[bool, bytes]]:
    """Yield the objects of a capture's abstract, and whether each is a section of blocks or bitmaps."""
    held: list[bytes] = []
    kinds: Counter[object] = Counter()
    seen: Counter[object] = Counter()
    for event in _events(content):
        if isinstance(event, VmDescription):
            continue
        if isinstance(event, SectionHeader):
            held, kinds = [], Counter()
            name = None if event.kind == SectionType.FULL else event.section
        if event.section is None:
            yield True, _short(event, content)
            continue
        kind = (event.type, event.flags if isinstance(event, Ram) else 0)
        kinds[kind] += 1
        if kinds[kind] <= _EACH:
            held.append(_short(event, content))
        if isinstance(event, Footer):
            key = (name, frozenset(kinds))
            seen[key] += 1
            if seen[key] <= _EACH:
                yield event.section in ("block", "dirty-bitmap"), b"".join(held)


def _events(content: bytes) -> Iterator[Event]:
    """Yield all events of a capture, of repeated ones only the first."""
    decoder = Decoder(in_file(content))
    while True:
        try:
            piece = decoder.piece()
        except StopIteration:
            return
        yield from islice(piece, _EACH * len(piece.columns)) if isinstance(piece, Run) else [piece]


def _short(event: Event, content: bytes) -> bytes:
    """Return the bytes of an event, without data."""
    end = event.offset + event.length
    if isinstance(event, DeviceState):
        end = event.offset + min(event.length, _STATE)
    data = event.data if isinstance(event, Block | Ram) else getattr(event, "bits", None)
    if data is not None and data.length in _MARKS:
        return content[event.offset : data.offset] + _MARKS[data.length]
    return content[event.offset : end]


def _small() -> dict[str, bytes]:
    word = bytes(range(8))
    v1 = raw.v1(("b", word), ("c", word * 2))
    size = {"name": "timer", "instance_id": 0, "fields": [{"size": 8}]}
    described = json.dumps({"devices": [size], "page_size": 4096}).encode()
    zeros = [raw.block(sector, 8) for sector in (0, 2048, 4096)]
    return {
        "zeros": raw.qemu(raw.progress(0), *zeros * 8),
        "bare": b"".join(zeros) + raw.progress(100) + raw.EOS,
        "data": raw.qemu(*(raw.block(sector, 0, rest=b"<chunk>") for sector in (0, 2048) * 9)),
        "v1": raw.qemu(*(raw.block(sector, 0x28, rest=v1) for sector in (0, 2048, 4096) * 4)),
        "v2": raw.qemu(
            raw.block(0, 0x60, rest=raw.v2(4096, ("b", 1, 65536, word))),
            *(raw.block(sector, 0x68, rest=raw.v2(2048)) for sector in (0, 2048) * 9),
        ),
        "bitmaps": raw.qemu(
            bitmaps=raw.bitmap_start() + raw.bitmap_bits(0, 8192, word) + raw.COMPLETE
        ),
        "empty": raw.HEADER + raw.start(1, "block", 1, raw.EOS) + raw.footer(1)
        + (raw.part(1, raw.EOS) + raw.footer(1)) * 30 + raw.EOF,
        "described": raw.HEADER + raw.start(1, "timer", 1, bytes(8), kind=4) + raw.footer(1)
        + raw.EOF + b"\6" + len(described).to_bytes(4, "big") + described,
    }  # fmt: skip


def _specs() -> dict[str, bytes]:
    """Return each small stream as JSON Lines, a record of each type, and one as YAML."""
    seeds = {}
    for name, content in _small().items():
        source = in_file(pieces(content))
        writer, lines = RecordWriter(source, None), [f'{{"{KEY}": {VERSION}}}']
        with contextlib.suppress(StreamError):
            for event in Decoder(source):
                line = json.dumps(writer(event))
                if line not in lines and len(line) < MAX_LENGTH // 4:
                    lines.append(line)
        seeds[name] = "\n".join(lines).encode()
    seeds["yaml"] = (
        b"blkmig-spec: 1\nrecords:\n  - {type: eos}\n  - {type: raw, payload: {hex: 00}}\n"
    )
    return seeds


def _bitmap_files() -> dict[str, bytes]:
    bitmap = {
        "name": "b", "granularity": 65536, "recording": True, "persistent": False,
        "count": 65536, "dirty": [{"start": 0, "length": 65536}],
    }  # fmt: skip
    document = {"version": 1, "virtual-size": 1 << 20, "bitmaps": [bitmap]}
    return {"bitmaps": json.dumps(document).encode()}


def _manifests() -> dict[str, bytes]:
    entry = {"device": "d", "size": 1 << 20, "sha256": "a" * 64}
    bitmap = {
        "device": "d", "name": "b", "granularity": 65536, "recording": True, "persistent": None,
        "count": 65536, "sha256": "b" * 64,
    }  # fmt: skip
    document = {"version": 1, "devices": [entry], "bitmaps": [bitmap]}
    return {"manifest": json.dumps(document).encode()}


def _nbd_servers() -> dict[str, bytes]:
    """Return what servers say, behind a byte that selects what they have said before (fuzz/nbd.py)."""
    half = nbd.SIZE // 2
    status = nbd.status_chunk(1, (half, 3), (half, 0))
    reads = b"".join(nbd.hole_chunk(at, (at % 2) * half, half) for at in range(2, 9))
    simple = b"".join(nbd.simple(at, 5 * (at % 2)) for at in range(1, 9))
    bitmap = nbd.status_chunk(1, (half, 1), (half, 0), number=1)
    layers = nbd.status_chunk(1, (nbd.SIZE, 1), number=2, done=False) + status
    return {
        "hello": b"\0" + nbd.hello(),
        "hello-simple": b"\0" + nbd.hello_simple(),
        "blocks": b"\0" + nbd.hello(nbd.size_info(999_999), nbd.block_info(4096, 1 << 20)),
        "status": b"\1" + status + reads,
        "bitmap": b"\1" + bitmap,
        "layers": b"\2" + layers,
        "error": b"\1" + nbd.error_chunk(1, 5, b"why") + nbd.data_chunk(2, 0, b"abc"),
        "simple": b"\3" + simple,
        "writes": b"\x0b" + simple,
    }


_SEEDS = {
    "spec": _specs,
    "bitmapfile": _bitmap_files,
    "manifest": _manifests,
    "nbd": _nbd_servers,
}
