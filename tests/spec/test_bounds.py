"""Specs and other documents in JSON and YAML: what they may say, and what is refused for its size."""

from io import BytesIO

import pytest

from blkmig_cli import limits
from blkmig_cli.errors import SpecError
from blkmig_cli.json_text import parse_json
from blkmig_cli.spec.files import read_spec
from blkmig_cli.spec.yaml_text import parse_yaml
from blkmig_cli.text import brief
from blkmig_cli.wire.events import Eos

MANY = b"[" + b"[]," * limits.JSON_PARTS_MAX + b"[]]"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (
            b"{a: &a {b: 1}, c: *a, d: [*a, *a]}",
            {"a": {"b": 1}, "c": {"b": 1}, "d": [{"b": 1}] * 2},
        ),
        (b"a: &a {b: 1}\nc: {<<: *a, d: 2}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
        (b"a: 0x10\nb: 1_000\nc: 1.5\nd: 1:30", {"a": 16, "b": 1000, "c": 1.5, "d": 90}),
        (b"a: " + b"0" * 39 + b"7", {"a": 7}),
        (b"a: '" + b"9" * 500 + b"'", {"a": "9" * 500}),
        (b"", None),
    ],
)
def test_yaml(text: bytes, value: object) -> None:
    assert parse_yaml(text) == value


def shared(lists: int) -> bytes:
    """Each list ten times the one before."""
    lines = [b"a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    for number in range(1, lists):
        ten = b",".join([b"*a%d" % (number - 1)] * 10)
        lines.append(b"a%d: &a%d [%s]" % (number, number, ten))
    return b"\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (shared(30), "has over 131072 values"),
        (b"a: &a [*a]", "alias 'a' is within its anchor, or has none"),
        (b"a: &a {<<: *a}", "alias 'a' is within its anchor, or has none"),
        (b"a: *b", "alias 'b' is within its anchor, or has none"),
        (b"[" * 70 + b"]" * 70, "nested too deep"),
        (b"- " * 70 + b"x", "nested too deep"),
        (b"a: " + b"9" * 41, "a number of 41 digits"),
        (b"a: 1" + b":59" * 2000, "a number of 6001 digits"),
        (b"a: 0x" + b"f" * 5000, "a number of 5002 digits"),
        (b"a: 1." + b"5" * 5000, "a number of 5002 digits"),
        (b"a: {", "while parsing a flow"),
        (b"a: !!python/object:os.system x", "could not determine a constructor"),
    ],
)
def test_yaml_that_is_refused(text: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        parse_yaml(text)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_alias_counts_as_what_it_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # The document, its two keys, a list of 3, and twice a list with that list.
    text = b"{a: &a [x, y, z], b: [*a, *a]}"
    monkeypatch.setattr(limits, "SPEC_NODES_MAX", 16)
    assert parse_yaml(text)
    monkeypatch.setattr(limits, "SPEC_NODES_MAX", 15)
    with pytest.raises(ValueError, match="over 15 values"):
        parse_yaml(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MANY, "65538 lists and objects in 196612 bytes"),
        (b"[" * 60_000 + b"]" * 60_000, "nested too deep"),
        (b'{"a": ' + b"9" * 41 + b"}", "a number of 41 digits"),
        (b"[1, ", "Expecting value"),
        (b"\xff", "can't decode"),
    ],
)
def test_json_that_is_refused(text: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)
    with pytest.raises(SpecError, match="line 2"):
        list(read_spec(BytesIO(b'{"blkmig-spec": 1}\n' + text)))


def test_strict_json() -> None:
    for text in (b'{"a": 1, "b": 2, "a": 1}', b"[NaN]", b"[-Infinity]"):
        with pytest.raises(ValueError, match=r"occurs twice|is not a number"):
            parse_json(text, strict=True)
    assert parse_json(b'{"a": 1, "a": 2}') == {"a": 2}
    assert parse_json(b'{"a": [{"b": 1}], "b": 1e5}', strict=True) == {"a": [{"b": 1}], "b": 1e5}


def test_a_larger_document_may_have_more_lists() -> None:
    text = MANY + b" " * (16 * limits.JSON_PARTS_MAX + 1)
    assert len(parse_json(text)) == limits.JSON_PARTS_MAX + 1


def test_a_document_is_json_first() -> None:
    """Where both could read it, its numbers and keys are those of JSON."""
    (event,) = read_spec(
        BytesIO(b'{"blkmig-spec": 1,\n "records": [{"type": "eos", "value": 77}]}')
    )
    assert isinstance(event, Eos)
    assert event.value == 77


def test_what_is_shown_of_a_value_is_short() -> None:
    deep: list[object] = ["x"] * 10
    for _ in range(30):
        deep = [deep] * 10
    values = [
        deep,
        "x" * 10**6,
        10**5000,
        -(10**5000),
        b"x" * 10**6,
        {"a": deep},
        {deep[0] is deep: 1},
    ]
    for value in values:
        assert len(brief(value)) <= 83, value
    assert brief(10**5000) == "a number of 16610 bits"
    assert brief({"a": [1, 2], "b": None}) == "{'a': [1, 2], 'b': None}"
    assert brief(1 << 64) == "18446744073709551616"
