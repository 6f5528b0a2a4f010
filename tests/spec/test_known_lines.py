"""Lines of a spec that are encoded like an earlier line give the same bytes as when parsed."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli.errors import SpecError
from blkmig_cli.spec import files
from blkmig_cli.spec.files import read_spec
from blkmig_cli.spec.known_lines import KnownLines
from tests.support.feed import encoded
from tests.support.long import examples

HEADER = json.dumps({"blkmig-spec": 1}).encode() + b"\n"

_sectors = st.one_of(
    st.integers(0, 1 << 20), st.sampled_from([(1 << 55) - 1, 1 << 55, 10**16 - 1, 10**16, 1 << 64])
)
_blocks = st.builds(
    lambda device, sector, flags, tail: (
        f'{{"type": "block", "device": {json.dumps(device)}, "sector": {sector}, '
        f'"flags": {flags}{tail}}}\n'
    ).encode(),
    st.sampled_from(["d", "e", ', "sector": 5, ', "\\", "é"]),
    st.one_of(_sectors, st.sampled_from(["01", "-1", "1e3", "2.0", "null", ""])),
    st.sampled_from(['["device-block", "zero-block"]', "9", "1"]),
    st.sampled_from(
        [
            "",
            "",
            ', "sector": 7',
            ', "\\u0073ector": 7',
            ', "data": {"fill": 0, "length": 100}',
            ", ",
        ]
    ),
)
_others = st.sampled_from([
    b'{"type": "eos"}\n', b'{"type": "eos", "value": 2}\n', b'{"type": "section-part", "id": 1}\n',
    b'{"type": "section-footer", "id": 1}\n', b'{"type": "progress", "percent": 3}\n', b"\n", b" \n",
    b'{"type": "raw", "payload": {"base64": "AAE="}}\n', b'{"type": "none"}\n', b"{\n",
])  # fmt: skip


def built(lines: list[bytes], *, known: bool) -> tuple[bytes, str | None]:
    """The bytes of a spec, up to what is wrong with it."""
    found: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch:
        if not known:
            patch.setattr(KnownLines, "encoded", lambda _, line: None)
            patch.setattr(KnownLines, "encoded_lines", lambda _, text, start: (start, 0, b""))
        try:
            spec = io.BytesIO(HEADER + b"".join(lines))
            found.extend(encoded([event]) for event in read_spec(spec))
        except (SpecError, ValueError) as error:
            return b"".join(found), str(error)
    return b"".join(found), None


@pytest.mark.scaled
@settings(max_examples=examples(70, 1500))
@given(st.lists(st.one_of(_blocks, _blocks, _others), max_size=12), st.integers(1, 300), st.data())
def test_known_lines_give_what_parsing_gives(
    lines: list[bytes], size: int, data: st.DataObject
) -> None:
    """Also where lines are read in pieces of ``size`` bytes, and a line's end is missing."""
    if lines:
        lines = data.draw(st.lists(st.sampled_from(lines), max_size=30)) + lines
        lines[-1] = lines[-1][: data.draw(st.sampled_from([None, -1]))]
    expected = built(lines, known=False)
    assert built(lines, known=True) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_BYTES_AT_ONCE", size)
        assert built(lines, known=True) == expected


def test_several_lines_at_once() -> None:
    """Numbers of any length; the line that cannot be known ends them, and is named."""
    sectors = [0, 7, 2048, (1 << 53) - 1, 9_999_999_999_999_999, 3, 3, 10]
    line = (
        '{"type": "block", "device": "d", "sector": %d, "flags": ["device-block", "zero-block"]}\n'
    )
    lines = [(line % sector).encode() for sector in sectors * 50]
    assert built([*lines, b"{\n"], known=True) == built([*lines, b"{\n"], known=False)
    made, fault = built([*lines, b"{\n"], known=True)
    assert fault is not None
    assert fault.startswith("line 402: not JSON")
    assert [
        int.from_bytes(made[at : at + 8], "big") >> 9 for at in range(0, len(made), 10)
    ] == sectors * 50


def test_like_lines_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    line = (
        '{"type": "block", "device": "d", "sector": %d, "flags": ["device-block", "zero-block"]}\n'
    )
    text = HEADER + b"".join(
        (line % (2048 * at)).encode() + b'{"type": "eos"}\n' for at in range(9000)
    )
    events = list(read_spec(io.BytesIO(text)))
    assert len(events) < 20
    assert len(encoded(events)) == 9000 * (8 + 2 + 8)
