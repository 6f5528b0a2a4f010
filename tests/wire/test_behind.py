"""What is behind a stream: padding, a further stream, other bytes up to a limit."""

from collections.abc import Generator

import pytest

from blkmig_cli import limits
from blkmig_cli.errors import TruncatedError
from blkmig_cli.wire.behind import behind_end
from blkmig_cli.wire.events import Undecoded
from blkmig_cli.wire.schema_io import Reader
from tests.support import raw
from tests.support.feed import in_file, piped

PADDING = "padding between the stream's end and a further stream"
OTHER = "other bytes after the stream's end"
MOST = 1 << 20


def read(reader: Reader) -> tuple[list[Undecoded], int | None]:
    def returned() -> Generator[Undecoded, None, None]:
        found.append((yield from behind_end(reader)))

    found: list[int | None] = []
    events = list(returned())
    return events, found[0]


@pytest.mark.parametrize("source", [in_file, piped])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize(
    ("data", "length", "reason", "following"),
    [
        (b"", 0, None, None),
        (raw.HEADER, 0, None, 0),
        (raw.block(0, 8), 0, None, 0),
        (b"x", 1, OTHER, None),
        (bytes(1), 1, OTHER, None),
        (bytes(1) + raw.HEADER, 1, PADDING, 1),
        (bytes(5) + raw.block(0, 8), 15, OTHER, None),
        (bytes(5) + raw.HEADER[:7], 12, OTHER, None),
        (b"x" + raw.HEADER, 9, OTHER, None),
        *((bytes((1 << 16) + at) + raw.HEADER, (1 << 16) + at, PADDING, (1 << 16) + at)
          for at in (-1, 0, 1)),
        (bytes(3 << 16) + b"x" + bytes(9), (3 << 16) + 10, OTHER, None),
        (bytes(MOST) + raw.HEADER, MOST, PADDING, MOST),
        (bytes(MOST) + b"x", MOST, f"{OTHER}, of which 1 MiB were read", None),
        (bytes(MOST - 1) + b"x", MOST, OTHER, None),
        (bytes(MOST), MOST, OTHER, None),
        (b"x" * MOST, MOST, OTHER, None),
        (b"x" * (MOST + 1), MOST, f"{OTHER}, of which 1 MiB were read", None),
        (b"x" * (MOST - 1), MOST - 1, OTHER, None),
    ],
)  # fmt: skip
def test_behind(
    data: bytes,
    length: int,
    reason: str | None,
    following: int | None,
    keep: bool,
    source: type,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "BEHIND_MAX", MOST)
    reader = Reader(source(b"stream" + data), keep=keep)
    reader.skip(6)
    reader.section = "block"
    expected = [] if reason is None else [Undecoded(6, length, None, reason, behind=True)]
    assert read(reader) == (expected, None if following is None else 6 + following)
    assert reader.source.offset == 6 + (length if following is None else following)


@pytest.mark.parametrize("data", [b"", b"xyz", bytes(9)])
def test_damage_is_raised(data: bytes) -> None:
    """Before the bytes are said to be other ones; not where a further stream begins."""
    damage = TruncatedError("the archive is cut")
    source = piped(data)
    source.damage = damage
    with pytest.raises(TruncatedError) as error:
        read(Reader(source))
    assert error.value is damage
    source = piped(raw.HEADER)
    source.damage = damage
    assert read(Reader(source)) == ([], 0)
