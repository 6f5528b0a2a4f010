"""Pages of RAM are taken in runs, which give what the schemas give."""

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Ram
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs.columns import Run, expand
from tests.support import raw
from tests.support.feed import in_file, piped
from tests.support.long import examples
from tests.support.strategies import damaged
from tests.wire.runs.test_scanner import pieces, same

ZERO, PAGE, EOS, CONTINUE, XBZRLE, HOOK = 0x02, 0x08, 0x10, 0x20, 0x40, 0x80
KIB = 1 << 10


def word(address: int, flags: int) -> bytes:
    return struct.pack(">Q", address | flags)


def page(address: int, flags: int, size: int = 4 * KIB, block: str = "pc.ram") -> bytes:
    head = word(address, flags) + (b"" if flags & CONTINUE else raw.name(block))
    if flags & ZERO:
        return head + b"\0"
    if flags & XBZRLE:
        return head + b"\1" + struct.pack(">H", 5) + b"delta"
    return head + bytes(size)


def memory(*parts: bytes, bits: int | None = None) -> bytes:
    """A stream of RAM, whose pages have 2**bits bytes, None: the usual 4 KiB."""
    head = raw.HEADER + raw.configuration()
    if bits is not None:
        name = raw.name("configuration/target-page-bits")
        head += b"\5" + name + struct.pack(">II", 1, bits)
    head += raw.start(2, "ram", 4, word(0, EOS)) + raw.footer(2)
    end = word(0, EOS)
    return head + b"".join(raw.part(2, part + end) + raw.footer(2) for part in parts) + raw.EOF


@st.composite
def memories(draw: st.DrawFn) -> bytes:
    """Pages of a few kinds in order or in none, in parts of any length, perhaps damaged."""
    dice = draw(st.randoms(use_true_random=False))
    bits = draw(st.sampled_from([None, None, 12, 10, 13, 16]))
    size = 4 * KIB if bits is None else 1 << bits
    kinds = draw(st.lists(st.sampled_from([ZERO, PAGE, XBZRLE]), min_size=1, max_size=3))
    repeats = draw(st.sampled_from([1, 1, 8, 30]))
    named = draw(st.sampled_from([0, 0, 0.1, 0.5]))
    reach = draw(st.sampled_from([1 << 10, 1 << 10, 1 << 52]))
    at = 0

    def pages() -> bytes:
        nonlocal at
        kind, out = dice.choice(kinds), b""
        for _ in range(dice.randint(1, repeats)):
            at = at + size if dice.random() < 0.9 else size * dice.randrange(reach)
            at %= 1 << 64
            flags = kind | (0 if dice.random() < named else CONTINUE)
            out += page(at, flags, size, dice.choice(["pc.ram", "vga"]))
        return out + (word(0, HOOK) if dice.random() < 0.05 else b"")

    groups = [pages() for _ in range(draw(st.sampled_from([2, 10, 40])))]
    first = dice.randint(0, len(groups))
    data = memory(b"".join(groups[:first]), b"".join(groups[first:]), bits=bits)
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        data = damaged(draw, data)
    return data


@pytest.mark.scaled
@settings(max_examples=examples(28, 1000))
@given(memories())
def test_pages(data: bytes) -> None:
    same(data, Hints())


#: The pages of a part, and the least number of them that are taken in runs.
TAKEN = {
    "zero": (b"".join(page(at << 12, ZERO | CONTINUE) for at in range(400)), 390),
    "data": (b"".join(page(at << 12, PAGE | CONTINUE) for at in range(100)), 95),
    "data-of-64-kib": (b"".join(page(at << 16, PAGE | CONTINUE, 1 << 16) for at in range(50)), 45),
    "named": (b"".join(page(at << 12, PAGE) for at in range(100)), 95),
    "to-the-last-address": (
        b"".join(page((1 << 63) - (400 - at << 12), ZERO | CONTINUE) for at in range(400)), 390),
    "in-any-order": (
        b"".join(page(dice.randrange(1 << 20) << 12, ZERO | dice.choice([0, CONTINUE]))
                 for dice in [random.Random(7)] for _ in range(800)), 600),
}  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
def test_pages_are_taken_in_runs(name: str) -> None:
    part, least = TAKEN[name]
    data = memory(part, bits=16 if "64" in name else None)
    found = list(pieces(Decoder(in_file(data))))
    assert sum(len(piece) for piece in found if isinstance(piece, Run)) >= least
    same(data, Hints())
    by_pipe = list(pieces(Decoder(piped(data, [1000, 13, 4096] * 500))))
    assert list(expand(by_pipe)) == list(expand(found))


def test_a_run_ends_where_flags_begin() -> None:
    """With pages of 64 KiB, lower bits of an address that are not 0 are flags, which are unknown."""
    pages = [page(at << 16, ZERO | CONTINUE) for at in range(100)]
    pages[60] = page((60 << 16) + 4096, ZERO | CONTINUE)
    data = memory(b"".join(pages), bits=16)
    decoder = Decoder(in_file(data))
    found = list(expand(pieces(decoder)))
    assert sum(isinstance(event, Ram) and event.is_page for event in found) == 60
    assert found[-1].offset + found[-1].length == data.index(pages[60])
    same(data, Hints())


def test_addresses_beyond_63_bits() -> None:
    pages = [page((1 << 63) + (at - 200 << 12), ZERO | CONTINUE) for at in range(400)]
    data = memory(b"".join(pages))
    found = [e for e in expand(pieces(Decoder(in_file(data)))) if isinstance(e, Ram) and e.is_page]
    assert [event.offset_in_block for event in found] == [
        (1 << 63) + (at - 200 << 12) for at in range(400)
    ]
    same(data, Hints())
