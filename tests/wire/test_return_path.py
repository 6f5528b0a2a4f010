"""The answer on the return path: its last message states whether the stream was loaded."""

import struct

import pytest

from blkmig_cli.wire.return_path import loaded


def message(kind: int, data: bytes) -> bytes:
    return struct.pack(">HH", kind, len(data)) + data


GOOD, BAD = message(1, bytes(4)), message(1, b"\0\0\0\1")
PONG = message(2, struct.pack(">I", 7))


@pytest.mark.parametrize(
    ("answer", "good"),
    [
        (GOOD, True),
        (BAD, False),
        (b"", False),
        (PONG, False),
        (PONG + GOOD, True),
        (PONG * 2 + BAD, False),
        (message(3, bytes(12)) + GOOD, True),
        (message(3, b"") + GOOD, True),
        (GOOD + BAD, True),
        (BAD + GOOD, False),
        (GOOD[:-1], False),
        (PONG + GOOD[:-1], False),
        (message(1, bytes(8)), False),
        (message(1, bytes(8)) + GOOD, True),
        (message(1, bytes(2)) + bytes(2), False),
        (message(2, bytes(4)), False),
        (message(0, bytes(4)), False),
    ],
)
def test_answers(answer: bytes, good: bool) -> None:
    assert loaded(answer) is good
