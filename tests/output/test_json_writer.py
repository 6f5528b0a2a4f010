"""Documents written in pieces have the text that json would write at once."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from blkmig_cli.output import documents
from blkmig_cli.output.json_writer import Items, write_json

VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=20,
)


def written(document: Any) -> str:
    texts: list[str] = []
    write_json(document, texts.append)
    assert all(len(text) < 1 << 17 for text in texts)
    return "".join(texts)


@given(VALUES)
def test_any_document(value: Any) -> None:
    assert written(value) == json.dumps(value, indent=1) + "\n"


@given(st.lists(VALUES, max_size=3))
def test_items_are_written_as_a_list(values: list[Any]) -> None:
    found = written({"a": Items(lambda: iter(values)), "b": [Items(lambda: values)]})
    assert found == json.dumps({"a": values, "b": [values]}, indent=1) + "\n"


def test_a_long_list_is_made_while_it_is_written() -> None:
    """A long list is not held as objects, but has the same text."""
    for number in (10, 10_000):
        ranges = [(at * 1024, 512) for at in range(number)]
        made = documents._lengths(ranges)
        assert isinstance(made, list) == (number == 10)
        expected = [{"start": start, "length": length} for start, length in ranges]
        assert written(made) == json.dumps(expected, indent=1) + "\n"
