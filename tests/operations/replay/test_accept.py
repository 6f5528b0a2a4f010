"""Accepting images without their stream: what their journals say becomes the report."""

from pathlib import Path
from typing import Any

import pytest

from blkmig_cli import limits
from blkmig_cli.checks.catalogue import Finding
from blkmig_cli.disks.neighbours import neighbours_of
from blkmig_cli.errors import FailureError, StreamError
from blkmig_cli.operations.replay.accept import accept
from blkmig_cli.operations.replay.journal import Entry, State, Stop, read_journal, write_journal
from blkmig_cli.operations.replay.replay import replay
from blkmig_cli.operations.replay.request import ReplayRequest, ReplayResult
from blkmig_cli.text import human_size
from blkmig_cli.wire.hints import Hints
from tests.conftest import Run
from tests.support.replays import MIB, folder, here, refused

__all__ = ["folder"]

GAP = Finding("missing-chunks", "error", "a gap")
CUT = Finding("truncated", "error", "cut off")
SIZE = Finding("size-unknown", "error", "whatever")
UNKNOWN = Finding(
    "completeness-unknown",
    "warning",
    "the stream was not read again, and nothing shows whether the images are complete",
    None,
    None,
)


def stop(*findings: Finding, **known: Any) -> Stop:
    """By default, of a disk of 1 to 3 MiB, whose last chunk ends at 2 MiB."""
    bounds: dict[str, Any] = {
        "least": MIB,
        "most": 3 * MIB,
        "end": 2 * MIB,
        "damaged": False,
        "bitmaps": (),
    }
    return Stop(**(bounds | known), findings=findings)


def left(
    name: str,
    ended: Stop | None,
    *,
    state: State = "incomplete",
    new: bool = True,
    size: int | None = None,
    device: str | None = "d",
    length: int = MIB,
) -> None:
    """Leave an image as a replay would, with its journal."""
    Path(f"{name}.partial" if new else name).write_bytes(b"\1" * length)
    write_journal(neighbours_of(name), Entry(state, new, size, stop=ended, device=device))


def accepted(*names: str, images: dict[str | None, str] | None = None, **more: Any) -> ReplayResult:
    images = images or {None: names[0]}
    return replay(None, ReplayRequest(images, resume=True, allow_incomplete=True, **more))


def took(name: str, size: int, bounds: str) -> str:
    return (
        f"{name}: took {size} bytes, the end of the last chunk ({bounds} bytes); see --device-size"
    )


@pytest.mark.parametrize("device", ["d", None])
@pytest.mark.parametrize("named", ["d", None])
def test_the_device_of_a_finding(device: str | None, named: str | None) -> None:
    """That of the image, as it is specified, or else as the journal has it."""
    left("x", stop(GAP, SIZE, CUT), device=device)
    result = accepted(images={named: "x"})
    name = named or device
    assert list(result.report.findings) == [
        Finding("missing-chunks", "warning", "a gap", None, name),
        Finding("truncated", "warning", "cut off", None, name),
    ]
    assert result.accepted
    assert result.report.complete is False
    assert result.report.failure is None
    assert result.warnings == [took("x", 2 * MIB, f"{MIB} to {3 * MIB}")]
    assert Path("x").read_bytes() == b"\1" * MIB + bytes(MIB)
    assert set(here()) == {"x", "x.replay.json"}


def test_a_specified_device_stands_before_that_of_the_journal() -> None:
    left("x", stop(GAP))
    (found,) = accepted(images={"e": "x"}).report.findings
    assert found.device == "e"


def test_without_a_finding_it_is_unknown_whether_the_image_is_complete() -> None:
    left("x", stop(SIZE, most=None))
    result = accepted("x")
    assert (result.report.stream, result.report.complete) == ("-", None)
    assert list(result.report.findings) == [UNKNOWN]
    assert result.warnings == [took("x", 2 * MIB, f"at least {MIB}")]


def test_the_first_damage_is_the_failure() -> None:
    left("w", stop(GAP), device="c")
    left("x", stop(CUT, GAP, damaged=True))
    left("y", stop(Finding("malformed", "error", "another"), damaged=True), device="e")
    result = accepted(images={"c": "w", "d": "x", "e": "y"})
    failure = result.report.failure
    assert isinstance(failure, StreamError)
    assert (failure.message, failure.check) == ("cut off", "truncated")
    assert failure.offset is None
    assert [(found.id, found.device) for found in result.report.findings] == [
        ("missing-chunks", "c"),
        ("truncated", "d"),
        ("missing-chunks", "d"),
        ("malformed", "e"),
    ]
    assert result.accepted
    assert result.exit_status == 3


def test_damage_without_a_finding() -> None:
    left("x", stop(damaged=True))
    result = accepted("x")
    failure = result.report.failure
    assert isinstance(failure, StreamError)
    assert (failure.message, failure.check) == ("the stream was damaged", "malformed")
    assert list(result.report.findings) == [UNKNOWN]


def test_a_size_that_is_unknown_keeps_all_images_incomplete() -> None:
    left("x", stop(end=4 * MIB))
    left("y", stop(), device="e")
    before = here()
    result = accepted(images={"d": "x", "e": "y"})
    assert not result.accepted
    assert result.partial_images == ["x.partial", "y.partial"]
    assert here() == before
    (found,) = result.report.findings
    assert (found.id, found.severity, found.device) == ("size-unknown", "error", "d")
    assert f"({MIB} to {3 * MIB} bytes)" in found.message
    assert result.report.complete is False


@pytest.mark.parametrize("most", [3 * MIB, None])
def test_the_largest_size(most: int | None) -> None:
    left("x", stop(most=most))
    left("y", stop(), device="e")
    result = accepted(images={"d": "x", "e": "y"}, hints=Hints(largest={"d"}))
    assert result.accepted == (most is not None)
    if most is not None:
        assert (Path("x").stat().st_size, Path("y").stat().st_size) == (most, 2 * MIB)
        assert result.warnings == [took("y", 2 * MIB, f"{MIB} to {3 * MIB}")]


@pytest.mark.parametrize(
    ("size", "accepts"), [(MIB, True), (3 * MIB, True), (3 * MIB + 512, True), (9 * MIB, True)]
)
def test_a_specified_size(size: int, accepts: bool) -> None:
    """Chunks may be missing, so that the bounds from progress do not hold."""
    left("x", stop())
    result = accepted("x", hints=Hints({None: size}))
    assert (result.accepted, result.warnings) == (accepts, [])
    assert Path("x").stat().st_size == size


@pytest.mark.parametrize("length", [MIB, 2 * MIB, 3 * MIB, 3 * MIB + 512])
def test_an_existing_image_has_its_size(length: int) -> None:
    left("x", stop(GAP), new=False, length=length)
    result = accepted("x")
    assert (result.accepted, result.warnings) == (True, [])
    entry = read_journal(neighbours_of("x"))
    assert entry is not None
    assert (entry.state, entry.size, entry.stop) == ("finished", length, stop(GAP))
    assert [found.id for found in accepted("x").report.findings] == [GAP.id]
    assert Path("x").read_bytes() == b"\1" * length


def test_bitmaps_that_are_only_in_the_stream() -> None:
    left("x", stop(bitmaps=("b", "c\n")))
    assert accepted("x").warnings[1:] == [
        "x: without the stream, its bitmaps are not written: b, c\\x0a"
    ]


def test_an_image_with_all_its_bytes() -> None:
    """The replay ended before it had its name; of the bitmaps nothing is known."""
    left("x", None, state="written", size=MIB)
    result = accepted("x")
    assert result.accepted
    assert result.warnings == ["x: without the stream, its bitmaps are not written, if it has any"]
    assert list(result.report.findings) == [UNKNOWN]
    assert Path("x").read_bytes() == b"\1" * MIB
    before = here()
    result = accepted("x")
    assert (result.accepted, result.warnings) == (True, [])
    assert here() == before


def test_a_finished_image_beside_an_incomplete_one() -> None:
    left("x", stop())
    accepted(images={"d": "x"})
    left("y", stop(bitmaps=("b",)), device="e")
    result = accepted(images={"d": "x", "e": "y"})
    assert result.accepted
    assert result.warnings == [
        took("y", 2 * MIB, f"{MIB} to {3 * MIB}"),
        "y: without the stream, its bitmaps are not written: b",
    ]


def test_what_is_not_incomplete(run: Run) -> None:
    words = ["replay", "--resume", "--allow-incomplete", "--image", "x"]
    Path("x").write_bytes(bytes(MIB))
    outcome = run(*words)
    refused(outcome, 4, "blkmig: x is not an incomplete image; name a STREAM\n", here())
    left("x", None, state="writing", new=False)
    refused(
        run(*words),
        4,
        "x.replay.json: the replay was interrupted before the end of its stream; "
        "specify the STREAM again to continue it; x is incomplete; use --resume to continue\n",
        here(),
    )


def test_a_device_without_a_name() -> None:
    left("x", stop(end=4 * MIB), device=None)
    (found,) = accepted("x").report.findings
    assert found.message.startswith("size of '' is unknown (")
    assert "--device-size SIZE or --device-size max" in found.message


def test_a_disk_that_would_be_too_large() -> None:
    most = limits.GROWTH_MAX + 512
    left("x", stop(least=most, most=None, end=most))
    with pytest.raises(FailureError) as error:
        accepted("x")
    assert str(error.value) == (
        f"x would grow to {human_size(most)} (section 'block', device 'd', sector 0); "
        "if this is intended, specify --device-size"
    )


class Export:
    """Stands for an NBD export of 8 MiB, on which the replay of a smaller disk ended."""

    path = "nbd://h/x"
    existing_size = 8 * MIB
    is_device = True
    size = None
    finished = False
    incomplete_path = None

    def __init__(self, ended: Stop) -> None:
        self.journal = Entry("incomplete", False, None, stop=ended, device="d")
        self.neighbours = neighbours_of("x")
        self.done: list[object] = []

    def decide(self, size: int, *, assumed: bool) -> None:
        self.done += [size, assumed]

    def accept(self) -> None:
        self.done.append("accept")


class Exports(dict[str | None, Export]):
    """Destinations."""

    def __iter__(self) -> Any:
        return iter(self.values())


def test_a_device_that_is_larger_than_its_disk() -> None:
    """Its size is only a limit."""
    export = Export(stop())
    found: Any = Exports({None: export})
    assert accept(ReplayRequest({None: export.path}), found).accepted
    assert export.done == [2 * MIB, True, "accept"]
    export = Export(stop(end=9 * MIB, most=None))
    found = Exports({None: export})
    assert not accept(ReplayRequest({None: export.path}), found).accepted
    assert export.done == []
