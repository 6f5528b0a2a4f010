"""A replay that was continued, and ends early again."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli.errors import UsageError
from blkmig_cli.operations.replay.replay import replay
from blkmig_cli.operations.replay.request import ReplayRequest, ReplayResult
from blkmig_cli.transport.source import open_stream
from blkmig_cli.wire.hints import Hints
from tests.support import raw
from tests.support.replays import MIB, data, filled, folder, put, source

__all__ = ["folder"]

NEW: Any = {"create": True}


def replayed(kind: str, **more: Any) -> ReplayResult:
    with open_stream(source(kind)) as stream:
        return replay(stream, ReplayRequest({"d": "x"}, **more))


FOUR = raw.qemu(*(data(2048 * at, at + 1) for at in range(4)))


def cut_at(chunk: int) -> bytes:
    return FOUR[: FOUR.index(raw.word(2048 * chunk, 1)) + 77]


def test_a_stream_that_is_cut_off_again() -> None:
    put(cut_at(1))
    assert replayed("pipe", **NEW).resumed == {}
    first = json.loads(Path("x.replay.json").read_text())["position"]
    put(cut_at(3))
    result = replayed("pipe", **NEW, resume=True)
    assert (result.accepted, result.written) == (False, {"d": 2 * MIB})
    assert (result.partial_images, result.resumed) == (["x.partial"], {"d": first})
    second = json.loads(Path("x.replay.json").read_text())
    assert (second["records"], second["received"]) == (3, 3 * MIB)
    put(FOUR)
    result = replayed("pipe", **NEW, resume=True)
    assert (result.written, result.resumed) == ({"d": MIB}, {"d": second["position"]})
    assert Path("x").read_bytes() == b"".join(map(filled, range(1, 5)))


def test_an_image_that_fails_when_it_is_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    put(cut_at(1))
    replayed("pipe", **NEW)
    first = json.loads(Path("x.replay.json").read_text())["position"]

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    put(FOUR)
    for kind in ("file", "pipe"):
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            result = replayed(kind, **NEW, resume=True)
        assert result.resumed == {"d": first}
        assert (result.accepted, result.partial_images) == (False, ["x.partial"])


def test_an_error_at_the_end_of_a_pipe() -> None:
    """What was received is on the images, up to the end."""
    put(FOUR)
    with pytest.raises(UsageError, match="--granularity: no bitmap 'z'") as error:
        replayed("pipe", **NEW, hints=Hints({}, {(None, "z"): 512}))
    assert error.value.__notes__ == ["x.partial is incomplete; use --resume to continue"]
    journal = json.loads(Path("x.replay.json").read_text())
    assert (journal["state"], journal["position"], journal["records"]) == (
        "incomplete", len(FOUR), 4
    )  # fmt: skip
    assert (journal["damaged"], journal["findings"], journal["end"]) == (False, [], 4 * MIB)
