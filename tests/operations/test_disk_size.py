"""The size that a disk is taken to have: a table of what is known, and the size that follows."""

from typing import Any

import pytest

from blkmig_cli import limits
from blkmig_cli.contents.sizes import SizeBounds
from blkmig_cli.errors import FailureError
from blkmig_cli.operations.replay.disk_size import Decision, Evidence, decide_size
from blkmig_cli.text import human_size

MIB = 1 << 20
STATED = SizeBounds(2 * MIB, 2 * MIB, "stream")
BOUNDED = SizeBounds(MIB + 512, 3 * MIB, "progress")
NARROW = SizeBounds(MIB + 512, MIB + 4096, "progress")
OPEN = SizeBounds(MIB + 512, None, "none")


def decided(stream: SizeBounds, **known: Any) -> Decision:
    return decide_size(Evidence("d", "x", stream, MIB, known.pop("end", 2 * MIB), **known))


@pytest.mark.parametrize(
    ("stream", "known", "size"),
    [
        # An option before all else.
        (OPEN, {"option": 5 * MIB}, 5 * MIB),
        (BOUNDED, {"option": 2 * MIB, "image": 2 * MIB}, 2 * MIB),
        (BOUNDED, {"option": 2 * MIB, "image": 8 * MIB}, 2 * MIB),
        (STATED, {"option": 2 * MIB, "image": 8 * MIB}, 2 * MIB),
        (BOUNDED, {"option": 9 * MIB, "gaps": True}, 9 * MIB),
        (NARROW, {"largest": True}, MIB + 4096),
        (STATED, {"largest": True}, 2 * MIB),
        (BOUNDED, {"largest": True, "image": 5 * MIB // 2, "is_device": True}, 5 * MIB // 2),
        # What the stream states, then a manifest, then an image file.
        (STATED, {"end": 3 * MIB}, 2 * MIB),
        (STATED, {"manifest": 3 * MIB}, 2 * MIB),
        (STATED, {"image": 2 * MIB}, 2 * MIB),
        (STATED, {"image": 4 * MIB, "is_device": True}, 2 * MIB),
        (OPEN, {"manifest": MIB + 1024}, MIB + 1024),
        (OPEN, {"manifest": MIB + 1024, "image": 4 * MIB, "is_device": True}, MIB + 1024),
        (BOUNDED, {"image": 3 * MIB // 2}, 3 * MIB // 2),
        (OPEN, {"image": 9 * MIB}, 9 * MIB),
        (BOUNDED, {"image": 9 * MIB, "gaps": True}, 9 * MIB),
    ],
)
def test_the_size_that_is_taken(stream: SizeBounds, known: dict[str, Any], size: int) -> None:
    assert decided(stream, **known) == Decision(size)


@pytest.mark.parametrize(
    ("stream", "known"),
    [
        (OPEN, {}),
        (BOUNDED, {}),
        (SizeBounds(2 * MIB, 3 * MIB, "progress"), {}),
        (SizeBounds(MIB + 512, 2 * MIB, "progress"), {}),
        (BOUNDED, {"image": 2 * MIB, "is_device": True}),
        (OPEN, {"image": 9 * MIB, "is_device": True}),
    ],
)
def test_the_end_of_the_last_chunk(stream: SizeBounds, known: dict[str, Any]) -> None:
    assert decided(stream, **known) == Decision(2 * MIB, assumed=True)


@pytest.mark.parametrize(
    ("stream", "known", "words"),
    [
        (NARROW, {}, f"{MIB + 512} to {MIB + 4096} bytes"),
        (SizeBounds(2 * MIB + 512, 3 * MIB, "progress"), {}, f"{2 * MIB + 512} to {3 * MIB} bytes"),
        (SizeBounds(2 * MIB + 512, None, "none"), {}, f"at least {2 * MIB + 512} bytes"),
        (OPEN, {"image": 3 * MIB // 2, "is_device": True}, f"{MIB + 512} to {3 * MIB // 2} bytes"),
        (OPEN, {"largest": True}, "nothing in the stream bounds it"),
    ],
)
def test_what_stays_unknown(stream: SizeBounds, known: dict[str, Any], words: str) -> None:
    decision = decided(stream, **known)
    assert decision.size is None
    assert decision.finding is not None
    assert decision.finding.device == "d"
    assert (decision.finding.id, decision.finding.severity) == ("size-unknown", "error")
    assert words in decision.finding.message
    assert "--device-size d=SIZE" in decision.finding.message
    bounded = stream.most is not None or "image" in known
    assert ("--device-size d=max" in decision.finding.message) == bounded


@pytest.mark.parametrize(
    ("stream", "known"),
    [
        (BOUNDED, {"option": 3 * MIB + 512}),
        (BOUNDED, {"image": 3 * MIB + 512}),
        (STATED, {"image": 3 * MIB}),
        (STATED, {"image": 3 * MIB, "gaps": True}),
        (BOUNDED, {"manifest": 4 * MIB}),
        (OPEN, {"manifest": MIB}),
        (OPEN, {"manifest": 2 * MIB, "image": 3 * MIB}),
    ],
)
def test_what_contradicts_the_stream(stream: SizeBounds, known: dict[str, Any]) -> None:
    finding = decided(stream, **known).finding
    assert finding is not None
    assert (finding.id, finding.severity, finding.device) == ("size-mismatch", "error", "d")


@pytest.mark.parametrize(
    ("stream", "known", "words"),
    [
        (STATED, {"image": 2 * MIB - 512}, f"has {2 * MIB - 512} bytes, the disk {2 * MIB};"),
        (STATED, {"image": MIB, "is_device": True}, f"has {MIB} bytes, the disk {2 * MIB};"),
        (BOUNDED, {"image": MIB}, f"has {MIB} bytes, the disk at least {MIB + 512};"),
        (OPEN, {"image": MIB, "is_device": True}, f"the disk at least {MIB + 512};"),
        (OPEN, {"image": MIB, "option": 2 * MIB}, f"the disk {2 * MIB};"),
    ],
)
def test_images_that_are_too_small(stream: SizeBounds, known: dict[str, Any], words: str) -> None:
    with pytest.raises(FailureError) as error:
        decided(stream, **known)
    assert words in str(error.value).replace(" (device 'd')", "")
    assert error.value.device == "d"


def test_images_that_would_become_too_large() -> None:
    huge = 1 << 50
    with pytest.raises(FailureError, match="would grow to 1 PiB") as error:
        decided(OPEN, end=huge)
    assert (error.value.device, error.value.section) == ("d", "block")
    assert decided(OPEN, end=huge, option=huge) == Decision(huge)
    assert decided(OPEN, end=huge, image=huge) == Decision(huge)


EXACT = SizeBounds(MIB + 512, MIB + 512, "stream")
SPECIFY = "specify --device-size d=SIZE"
MAX = " or --device-size d=max"


@pytest.mark.parametrize(
    ("stream", "known", "said"),
    [
        (BOUNDED, {"option": 3 * MIB + 512},
         f"the disk has {MIB + 512} to {3 * MIB} bytes, --device-size says {3 * MIB + 512}"),
        (BOUNDED, {"manifest": 3 * MIB + 512},
         f"the disk has {3 * MIB + 512} bytes, the manifest says {3 * MIB + 512}"),
        (BOUNDED, {"manifest": MIB}, f"the disk has {MIB} bytes, the manifest says {MIB}"),
        (EXACT, {"image": MIB + 1024},
         f"the disk has {MIB + 512} bytes, x has {MIB + 1024}; "
         f"use --device-size {MIB + 512} to write only these"),
        (OPEN, {"manifest": 2 * MIB, "image": 2 * MIB + 512},
         f"the disk has {2 * MIB} bytes, x has {2 * MIB + 512}; "
         f"use --device-size {2 * MIB} to write only these"),
        (BOUNDED, {"image": 3 * MIB + 512},
         f"the disk has {MIB + 512} to {3 * MIB} bytes, x has {3 * MIB + 512}"),
        (NARROW, {},
         f"size of 'd' is unknown ({MIB + 512} to {MIB + 4096} bytes); {SPECIFY}{MAX}"),
        (OPEN, {"largest": True},
         f"size of 'd' is unknown (nothing in the stream bounds it); {SPECIFY}"),
        (SizeBounds(2 * MIB + 512, None, "none"), {},
         f"size of 'd' is unknown (at least {2 * MIB + 512} bytes); {SPECIFY}"),
    ],
)  # fmt: skip
def test_what_is_said(stream: SizeBounds, known: dict[str, Any], said: str) -> None:
    finding = decided(stream, **known).finding
    assert finding is not None
    assert finding.message == said


@pytest.mark.parametrize(
    ("stream", "known", "fits"),
    [
        # A stated size stands against an option only where the stream's checks have found nothing.
        (EXACT, {"option": MIB + 1024}, True),
        (BOUNDED, {"option": 3 * MIB}, True),
        (BOUNDED, {"manifest": 3 * MIB}, True),
        (BOUNDED, {"manifest": MIB + 512}, True),
        (BOUNDED, {"manifest": MIB}, False),
        (BOUNDED, {"image": 3 * MIB}, True),
        (BOUNDED, {"image": MIB + 512}, True),
        (EXACT, {"manifest": 9 * MIB}, True),
        (EXACT, {"image": MIB + 512}, True),
        # Where chunks may be missing, bounds count for nothing, but a statement does.
        (BOUNDED, {"manifest": 4 * MIB, "gaps": True}, True),
        (BOUNDED, {"image": 4 * MIB, "gaps": True}, True),
        (EXACT, {"image": 2 * MIB, "gaps": True}, False),
    ],
)
def test_sizes_at_the_bounds(stream: SizeBounds, known: dict[str, Any], fits: bool) -> None:
    assert (decided(stream, **known).finding is None) == fits


@pytest.mark.parametrize(
    ("stream", "known"),
    [
        (STATED, {"image": 2 * MIB - 512}),
        (OPEN, {"manifest": 2 * MIB, "image": MIB}),
        (OPEN, {"option": 2 * MIB, "image": MIB}),
    ],
)
def test_an_image_that_grows(stream: SizeBounds, known: dict[str, Any]) -> None:
    assert decided(stream, grows=True, **known) == Decision(2 * MIB)
    with pytest.raises(FailureError):
        decided(stream, **known)


def test_a_device_that_is_smaller_than_what_is_known() -> None:
    with pytest.raises(FailureError) as error:
        decided(OPEN, image=MIB, is_device=True)
    assert str(error.value) == (
        f"x has {MIB} bytes, the disk at least {MIB + 512} (device 'd'); enlarge the image"
    )
    fits = decided(OPEN, image=MIB + 512, is_device=True)
    assert fits.size is None
    assert fits.finding is not None


@pytest.mark.parametrize("more", [0, 512])
def test_the_largest_image_that_is_made_unasked(more: int) -> None:
    size = limits.GROWTH_MAX + more
    stream = SizeBounds(size, size, "stream")
    if not more:
        assert decided(stream) == Decision(size)
        return
    with pytest.raises(FailureError) as error:
        decide_size(Evidence("d", "x", stream, 4096, size, 77))
    assert str(error.value) == (
        f"x would grow to {human_size(size)} (at byte 77, section 'block', device 'd', sector 8); "
        "if this is intended, specify --device-size"
    )
    assert decided(stream, option=size) == Decision(size)
    # It may be known only that it is larger.
    with pytest.raises(FailureError, match="would grow"):
        decided(SizeBounds(size, None, "none"), end=MIB)


def test_a_device_without_a_name() -> None:
    finding = decide_size(Evidence("", "x", NARROW, MIB, 2 * MIB)).finding
    assert finding is not None
    assert "specify --device-size SIZE or --device-size max" in finding.message
