"""Payloads that are not in a stream: how long they are, and how long they say they are."""

from typing import Any

from blkmig_cli.transport.payloads import FileRange, Fill, ImageRange, Literal, literal
from tests.support.strategies import MemoryImage


def test_literals() -> None:
    assert literal(b"abc") == Literal(0, 3, None, b"abc")
    assert literal(b"abc", 7) == Literal(0, 3, 7, b"abc")
    assert [literal(b"abc").on_wire, literal(b"abc", 7).on_wire] == [3, 7]


def test_what_is_not_stated() -> None:
    image: Any = MemoryImage(b"")
    assert Fill(0, 5).byte == 0
    assert FileRange(0, 5).path == ""
    assert ImageRange(0, 5, image=image).padding == 0
    assert Literal(0, 0).data == b""
