"""Hints: which of several values is taken for a device or a bitmap."""

import pytest

from blkmig_cli.wire.hints import Hints

NOTHING = Hints()


def test_nothing_is_known() -> None:
    assert not NOTHING.names_any
    assert not NOTHING.takes_most("d")
    for known in (NOTHING.option_size, NOTHING.image_size, NOTHING.size):
        assert known("d") is None
    assert NOTHING.granularity("d", "b") is None


@pytest.mark.parametrize(
    ("hints", "names"),
    [
        (Hints({None: 512}), False),
        (Hints({"d": 512}), True),
        (Hints({None: 512, "d": 512}), True),
        (Hints(largest={None}), False),
        (Hints(largest={"d"}), True),
        (Hints({}, {(None, "b"): 512}), True),
        (Hints(images={"d": 512}), False),
    ],
)
def test_options_that_name_a_device_or_a_bitmap(hints: Hints, names: bool) -> None:
    assert hints.names_any is names


@pytest.mark.parametrize(
    ("hints", "most"),
    [
        (Hints(largest={"d"}), True),
        (Hints(largest={"e"}), False),
        (Hints(largest={None}), True),
        (Hints({"d": 512}, largest={None}), False),
        (Hints({"e": 512}, largest={None}), True),
        (Hints({"d": 512}, largest={"d"}), True),
    ],
)
def test_as_large_as_the_stream_allows(hints: Hints, most: bool) -> None:
    """A size for the device comes before ``max`` for all."""
    assert hints.takes_most("d") is most


@pytest.mark.parametrize(
    ("hints", "option", "image", "size"),
    [
        (Hints({None: 512}), 512, None, 512),
        (Hints({None: 512, "d": 1024}), 1024, None, 1024),
        (Hints({"e": 512}), None, None, None),
        (Hints(images={None: 512}), None, 512, 512),
        (Hints(images={None: 512, "d": 1024}), None, 1024, 1024),
        (Hints(images={"e": 512}), None, None, None),
        (Hints({None: 512}, images={"d": 1024}), 512, 1024, 512),
        (Hints({"e": 512}, images={"d": 1024}), None, 1024, 1024),
        (Hints({None: 512}, images={"d": 1024}, largest={"d"}), None, None, None),
        (Hints({"d": 512}, images={"d": 1024}, largest={None}), 512, 1024, 512),
        (Hints(images={"d": 1024}, largest={None}), None, None, None),
        (Hints(images={"d": 1024}, largest={"e"}), None, 1024, 1024),
    ],
)
def test_sizes(hints: Hints, option: int | None, image: int | None, size: int | None) -> None:
    """That of an option comes first; that of the device before that of all."""
    assert (hints.option_size("d"), hints.image_size("d"), hints.size("d")) == (option, image, size)


@pytest.mark.parametrize(
    ("known", "granularity"),
    [
        ({("d", "b"): 512}, 512),
        ({(None, "b"): 1024}, 1024),
        ({(None, "d/b"): 2048}, 2048),
        ({("d", "b"): 512, (None, "b"): 1024, (None, "d/b"): 2048}, 512),
        ({(None, "b"): 1024, (None, "d/b"): 2048}, 1024),
        ({("e", "b"): 512}, None),
        ({("d", "c"): 512}, None),
        ({(None, "e/b"): 512}, None),
    ],
)
def test_granularities(known: dict[tuple[str | None, str], int], granularity: int | None) -> None:
    assert Hints({}, known).granularity("d", "b") == granularity
