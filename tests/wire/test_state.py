"""Device state: how its end is found with and without footers, and what is said where it is not."""

import json
import struct
from typing import Any

import pytest

from blkmig_cli import limits
from blkmig_cli.errors import MalformedError, StreamError, TruncatedError, UndecidableError
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import (
    DeviceState,
    Event,
    Payload,
    StateMismatch,
    Undecoded,
    VmDescription,
)
from tests.support import raw
from tests.support.feed import in_file, piped

pytestmark = pytest.mark.usefixtures("engine")

HEAD = raw.HEADER + raw.configuration()
OLD = raw.HEADER + raw.start(1, "block", 1, raw.EOS) + raw.part(1, raw.EOS, kind=3)
WHY = "the end of this state is unknown"


def state(
    number: int, payload: bytes, name: str = "dev", kind: int = 4, instance: int = 0
) -> bytes:
    head = bytes([kind]) + struct.pack(">I", number) + raw.name(name)
    return head + struct.pack(">II", instance, 1) + payload


def described(*devices: tuple[str, int, int]) -> bytes:
    found = [{"name": n, "instance_id": i, "fields": [{"size": size}]} for n, i, size in devices]
    text = json.dumps({"devices": found}).encode()
    return raw.EOF + b"\6" + struct.pack(">I", len(text)) + text


def read(data: bytes, **options: Any) -> tuple[list[Event], StreamError | None]:
    """The events and the error, which are the same from a file and a pipe."""
    results: list[tuple[list[Event], StreamError | None]] = []
    for source in (in_file(data), piped(data)):
        found: list[Event] = []
        error = None
        try:
            for event in Decoder(source, **options):
                found.append(event)  # noqa: PERF402 (those before an error count)
        except StreamError as raised:
            error = raised
        results.append((found, error))
    assert results[0][0] == results[1][0]
    assert str(results[0][1]) == str(results[1][1])
    return results[0]


def sizes(data: bytes) -> list[tuple[int, str]]:
    found, error = read(data)
    assert error is None
    return [(e.length, e.sized_by) for e in found if isinstance(e, DeviceState)]


@pytest.mark.parametrize("length", [0, 1, 300])
def test_by_the_description(length: int) -> None:
    payload = b"\x55" * length
    assert sizes(OLD + state(3, payload) + described(("dev", 0, length))) == [
        (length, "description")
    ]


def test_each_by_its_name_and_instance() -> None:
    data = OLD + state(3, b"\x55" * 3) + state(4, b"\x55" * 4, instance=1)
    data += state(5, b"\x55" * 5, "other")
    text = described(("dev", 1, 4), ("other", 0, 5), ("dev", 0, 3))
    found, error = read(data + text)
    assert error is None
    states = [event for event in found if isinstance(event, DeviceState)]
    assert [each.length for each in states] == [3, 4, 5]
    assert isinstance(found[-1], VmDescription)
    assert found[-1].confirmed == {each.offset for each in states}


def test_with_footers_the_description_is_only_compared() -> None:
    """Also where there is no configuration, and the first section shows it."""
    blocks = raw.start(1, "block", 1, raw.EOS) + raw.footer(1)
    whole = state(3, b"\x55" * 9) + raw.footer(3)
    for head in (HEAD, HEAD + blocks, raw.HEADER + blocks):
        assert sizes(head + whole + described(("dev", 0, 9))) == [(9, "footer")]
        found, error = read(head + whole + described(("dev", 0, 8)))
        assert error is None
        assert isinstance(found[-1], VmDescription)
        (mismatch,) = found[-1].mismatches
        assert mismatch == StateMismatch(len(head + whole) - 14, "dev", 9, 8)


def test_the_first_section_of_an_unknown_kind() -> None:
    """With the description's size before a footer, or before what may be between sections."""
    whole = state(3, b"\x55" * 9)
    text = described(("dev", 0, 9))
    assert sizes(raw.HEADER + whole + raw.footer(3) + text) == [(9, "description")]
    assert sizes(raw.HEADER + whole + text) == [(9, "description")]
    assert sizes(raw.HEADER + whole + raw.footer(3) + described(("dev", 0, 8))) == [(9, "footer")]
    wrong = raw.HEADER + whole + raw.footer(4) + text
    found, error = read(wrong)
    assert isinstance(found[-1], Undecoded)
    assert error is None


UNKNOWN = {
    "no description": OLD + state(3, b"\x55" * 9) + raw.EOF,
    "another device": OLD + state(3, b"\x55" * 9) + described(("other", 0, 9)),
    "another instance": OLD + state(3, b"\x55" * 9) + described(("dev", 1, 9)),
    "another size": OLD + state(3, b"\x55" * 9) + described(("dev", 0, 8)),
    "an iterable one": OLD + state(3, b"\x55" * 9, kind=1) + described(("dev", 0, 9)),
    "too far": OLD + state(3, b"\x55" * 9) + described(("dev", 0, limits.DESCRIPTION_REACH + 1)),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_end(name: str) -> None:
    data = UNKNOWN[name]
    found, error = read(data)
    assert error is None
    start = len(OLD + state(3, b""))
    assert found[-1] == Undecoded(start, len(data) - start, "dev", WHY)


def test_an_unknown_end_while_blocks_are_open() -> None:
    for section in ("block", "dirty-bitmap"):
        payload = raw.EOS if section == "block" else b"\1"
        head = raw.HEADER + raw.start(1, section, 1, payload) + state(3, b"\x55" * 9)
        found, error = read(head)
        assert isinstance(found[-1], Undecoded)
        assert isinstance(error, UndecidableError)
        assert (error.offset, error.section) == (len(head) - 9, "dev")
    other = raw.HEADER + raw.start(1, "ram", 4, raw.word(0, 0x10)) + state(3, b"\x55" * 9)
    assert read(other)[1] is None


def test_a_footer_that_is_missing() -> None:
    blocks = raw.start(1, "block", 1, raw.EOS) + raw.footer(1)
    data = raw.HEADER + blocks + state(3, b"\x55" * 9)
    found, error = read(data)
    assert found[-1] == Undecoded(len(data) - 9, 9, "dev", WHY)
    assert isinstance(error, TruncatedError)
    assert error.message == (
        f"stream truncated at byte {len(data)}, inside a section's state: its footer is missing"
    )
    assert (error.offset, error.section) == (len(data), "dev")


def test_an_unknown_end_up_to_a_further_stream() -> None:
    data = OLD + state(3, b"\x55" * 9)
    found, error = read(data + raw.qemu(), chosen=True)
    assert error is None
    assert found[-1] == Undecoded(len(data) - 9, 9, "dev", WHY)


def test_a_description_that_is_not_there_after_all() -> None:
    """It was that of another stream."""
    end = raw.part(1, raw.EOS, kind=3)
    first = OLD + state(3, b"\x55" * 9) + end + raw.EOF
    second = OLD + state(3, b"\x55" * 9) + described(("dev", 0, 9))
    _, error = read(first + second, chosen=True)
    assert isinstance(error, MalformedError)
    assert error.message == ("device state was sized by a description that is not this stream's")
    assert (error.check, error.offset) == ("device-state", len(first))


@pytest.mark.parametrize("kind", [1, 4])
def test_state_of_other_kinds_is_not_compared(kind: int) -> None:
    """What is iterable is not in the description."""
    whole = state(3, b"\x55" * 9, kind=kind) + raw.footer(3)
    found, _ = read(HEAD + whole + described(("dev", 0, 9)))
    assert isinstance(found[-1], VmDescription)
    assert len(found[-1].confirmed) == (kind == 4)


def test_sections_of_other_versions_are_state() -> None:
    for name, version in (("block", 2), ("dirty-bitmap", 2), ("ram", 3)):
        data = HEAD + raw.start(3, name, version, b"\x55" * 9) + raw.footer(3) + raw.EOF
        assert sizes(data) == [(9, "footer")]


@pytest.mark.parametrize("options", [{}, {"keep_state": False}, {"keep_state": True}])
def test_bytes_of_state_from_a_pipe(options: dict[str, bool]) -> None:
    """They are held if this is asked for."""
    source = piped(HEAD + state(3, b"\x55" * 9) + raw.footer(3) + raw.EOF)
    decoder = Decoder(source, **options)  # type: ignore[arg-type]
    found = next(event for event in decoder if isinstance(event, DeviceState))
    payload = Payload(found.offset, found.length)
    if options.get("keep_state"):
        assert bytes(source.view(payload)) == b"\x55" * 9
    else:
        with pytest.raises(ValueError, match="after its event"):
            source.view(payload)
