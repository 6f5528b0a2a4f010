"""A file, a pipe and a compressed file give the same events, errors and reports."""

import functools
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli.wire.events import Event
from tests.conftest import CAPTURES, Run, get_capture
from tests.support import raw
from tests.support.feed import BySchemas, NarrowPipe, events, in_file, piped
from tests.support.long import examples

#: Captures with few events; the others hold hundreds of thousands of empty parts.
SMALL = [
    "classic-incremental-5.2",
    "classic-ram-compress",
    "classic-tail",
    "classic-zero-two-drives-pc",
    "v1-bitmaps-only",
    "v1-blocks-and-bitmaps",
]


@functools.cache
def stream(name: str) -> tuple[bytes, list[Event]]:
    """The bytes of a capture, and its events."""
    data = gzip.decompress((CAPTURES / f"{name}.bin.gz").read_bytes())
    found, error = events(in_file(data))
    assert error is None
    return data, found


@st.composite
def places(draw: st.DrawFn, name: str) -> int:
    """A byte of a capture, mostly near the start or the end of an object."""
    data, found = stream(name)
    if draw(st.integers(0, 4)) == 0:
        return draw(st.integers(0, len(data) - 1))
    # Half of them among the devices at the end, which are few.
    last = draw(st.sampled_from([len(found), min(len(found), 80)]))
    event = found[draw(st.integers(len(found) - last, len(found) - 1))]
    edge = event.offset + draw(st.sampled_from([0, event.length]))
    return min(max(edge + draw(st.integers(-12, 24)), 0), len(data) - 1)


@st.composite
def mutations(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """A capture's name, what was done to it, and the bytes that came of it."""
    name = draw(st.sampled_from(SMALL))
    data, _ = stream(name)
    kind = draw(st.sampled_from(["flip", "set", "cut", "repeat", "remove", "swap", "append"]))
    first, second = sorted((draw(places(name)), draw(places(name))))
    if kind == "flip":
        changed = data[:first] + bytes([data[first] ^ (1 << draw(st.integers(0, 7)))])
        changed += data[first + 1 :]
    elif kind == "set":
        changed = data[:first] + draw(st.binary(min_size=1, max_size=9))
        changed += data[len(changed) :]
    elif kind == "cut":
        changed = data[:second]
    elif kind == "repeat":
        changed = data[:second] + data[first:]
    elif kind == "remove":
        changed = data[:first] + data[second:]
    elif kind == "swap":
        middle = (first + second) // 2
        changed = data[:first] + data[middle:second] + data[first:middle] + data[second:]
    else:
        changed = data + draw(st.sampled_from([data[first:second], data, bytes(second)]))
    return name, f"{kind} {first} {second}", changed


@pytest.mark.scaled
@settings(max_examples=examples(8, 300))
@given(mutations())
def test_events_and_errors(mutation: tuple[str, str, bytes]) -> None:
    _, _, data = mutation
    expected = events(in_file(data), chosen=True)
    assert events(piped(data), chosen=True) == expected
    assert events(piped(data, [4099] * 200 + [1] * 200, NarrowPipe), chosen=True) == expected
    assert events(in_file(data, BySchemas), chosen=True) == expected


@pytest.mark.scaled
@settings(max_examples=examples(8, 150))
@given(mutation=mutations())
def test_reports(mutation: tuple[str, str, bytes], run: Run, tmp_path: Path) -> None:
    _, _, data = mutation
    (tmp_path / "s").write_bytes(data)
    (tmp_path / "s.gz").write_bytes(gzip.compress(data, 1))
    outcomes = []
    for name in (f"{tmp_path}/s", f"exec:cat {tmp_path}/s", f"{tmp_path}/s.gz"):
        outcome = run("validate", name, "--output", "json")
        reports = outcome.json["streams"]
        for report in reports:
            report["stream"] = report["stream"].removeprefix(name)
        outcomes.append((outcome.status, reports))
    assert outcomes[1] == outcomes[0]
    assert outcomes[2] == outcomes[0]


@pytest.mark.parametrize("name", SMALL)
def test_undamaged_captures(run: Run, unpacked: Path, name: str) -> None:
    """The report of a pipe is that of the file."""
    path = get_capture(name, unpacked).path
    outcomes = []
    for source in (f"{path}", f"exec:cat {path}"):
        outcome = run("validate", source, "--output", "json")
        outcomes.append((outcome.status, outcome.report | {"stream": None}))
        found = [finding["id"] for finding in outcome.report["findings"]]
        assert "resynchronised" not in found
        assert "device-state" not in found
    assert outcomes[0] == outcomes[1]
    records = [
        run("dump", source, "--output", "jsonl").out for source in (path, f"exec:cat {path}")
    ]
    assert records[0] == records[1]


@pytest.mark.parametrize("name", ["classic-tail", "classic-ram-compress"])
@pytest.mark.parametrize("less", [-2, 2])
def test_device_state_that_is_shorter_or_longer_than_described(
    run: Run, tmp_path: Path, name: str, less: int
) -> None:
    """Two bytes less, or more, than the description says: an error, but the disks are all there."""
    data, found = stream(name)
    state = next(event for event in reversed(found) if event.type == "device-state")
    middle = state.offset + state.length // 2
    changed = data[:middle] + (data[middle + 2 :] if less < 0 else b"\x55" * 2 + data[middle:])
    path, disk = tmp_path / "s", tmp_path / "disk"
    path.write_bytes(changed)
    truth = json.loads((CAPTURES / f"{name}.json").read_text())
    sizes = [f"--device-size={key}={d['size']}" for key, d in truth["devices"].items()]
    outcomes = []
    for source in (path, f"exec:cat {path}"):
        outcome = run("validate", source, *sizes, "--output", "json")
        errors = [f for f in outcome.report["findings"] if f["severity"] == "error"]
        assert [(f["id"], f["offset"]) for f in errors] == [("device-state", state.offset)]
        assert outcome.report["complete"] is True
        outcomes.append((outcome.status, errors))
        assert not disk.exists()
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0] == 1


def test_a_footer_in_device_state() -> None:
    """What looks like the end of a state is taken for it, everywhere, and found at the end."""
    state = b"abcd" + raw.footer(3) + raw.part(1, raw.EOS) + raw.footer(1) + raw.part(3, b"efgh")
    head = raw.HEADER + raw.configuration() + raw.start(1, "block", 1, raw.EOS) + raw.footer(1)
    text = {"devices": [{"name": "dev", "instance_id": 0, "fields": [{"size": len(state)}]}]}
    description = json.dumps(text).encode()
    data = head + raw.start(3, "dev", 1, state, kind=4) + raw.footer(3) + raw.EOF
    data += b"\6" + len(description).to_bytes(4, "big") + description
    found, error = events(in_file(data))
    assert error is None
    (mismatch,) = found[-1].mismatches  # type: ignore[attr-defined]
    assert (mismatch.length, mismatch.described) == (4, len(state))
    assert events(piped(data)) == (found, error)
