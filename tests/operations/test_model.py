"""Random streams of every dialect, and a model of their disks and bitmaps: every command agrees with it.

``tests/support/model*.py`` is a second, slow implementation of the format, from its description alone.
BLKMIG_MODEL_EXAMPLES=20000 tries as many streams, other ones each time.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.support import model_readers, model_writers
from tests.support.model import Model
from tests.support.model_case import Case, Plan, auto_is_wrong
from tests.support.model_cases import CASES
from tests.support.model_streams import examples, streams
from tests.support.model_wire import encode

OPERATIONS: dict[str, Callable[..., None]] = {
    "replay": model_writers.replay,
    "validate": model_readers.validate,
    "validate-image": model_readers.validate_image,
    "map": model_readers.map_disks,
    "extract": model_readers.extract,
    "extract-bitmap": model_readers.extract_bitmap,
    "compare": model_readers.compare,
    "convert": model_writers.convert,
    "salvage": model_writers.salvage,
    "scrub": model_writers.scrub,
}
_INCOMPLETE = st.sampled_from(["", "--incremental", "--allow-incomplete"])
_ARGUMENTS = {
    "replay": (
        st.sampled_from(["file", "file", "stdin", "gzip", "xz", "zstd"]),
        st.sampled_from(["new", "existing"]),
        _INCOMPLETE,
    ),
    "validate": (st.sampled_from(["", "--incremental"]),),
    "validate-image": (st.sampled_from(["same", "differs", "elsewhere"]),),
    "map": (st.just(""),),
    "extract": (st.sampled_from(["", "--allow-incomplete"]),),
    "extract-bitmap": (st.just(""),),
    "compare": (
        st.sampled_from(["same", "differs", "elsewhere"]),
        st.sampled_from(["", "--incremental"]),
        st.sampled_from(["none", "same", "other"]),
    ),
    "convert": (
        st.sampled_from(["classic", "v1", "v2", "qemu"]),
        st.sampled_from(["same", "same", "qemu", "none"]),
        st.sampled_from(["translate", "normalize"]),
    ),
    "salvage": (st.sampled_from(["--allow-incomplete", "--incremental"]),),
    "scrub": (st.just(""),),
}
_FREQUENT = [*OPERATIONS, "replay", "replay", "convert", "validate"]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """A stream, whether options describe it, and some of the operations."""
    stream = draw(streams())
    hinted = draw(st.integers(0, 2)) > 0 or (stream.dialect == "v1" and draw(st.integers(0, 3)) > 0)
    spoken = auto_is_wrong(stream) or draw(st.integers(0, 3)) == 0
    chosen = draw(st.lists(st.sampled_from(_FREQUENT), min_size=2, max_size=4))
    operations = tuple(
        (name, *(draw(argument) for argument in _ARGUMENTS[name])) for name in chosen
    )
    return Plan(stream, hinted, spoken, operations)


def check(plan: Plan, folder: Path) -> None:
    """Hold every operation of ``plan`` to the model."""
    model = Model(plan.stream)
    if not any(disk.named for disk in model.disks.values()):
        return
    path, data = folder / "s.bin", encode(plan.stream)
    path.write_bytes(data)
    case = Case(plan, folder, model, data, path)
    if plan.spoken:
        case.dialect = [f"--dialect={plan.stream.dialect}"]
    for name, *arguments in plan.operations:
        OPERATIONS[name](case, *arguments)


ORDINARY = 200


@settings(
    max_examples=examples(ORDINARY),
    derandomize=examples(ORDINARY) == ORDINARY,
)
@given(plans())
def test_every_command_agrees_with_the_model(plan: Plan) -> None:
    for name, *_ in plan.operations:
        event(name)
    with TemporaryDirectory() as folder:
        check(plan, Path(folder))


@pytest.mark.parametrize("name", CASES)
def test_earlier_failures(name: str, tmp_path: Path) -> None:
    check(CASES[name], tmp_path)
