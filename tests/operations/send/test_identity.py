"""The identity of streams: given by send, shown, kept by convert and scrub, dropped by salvage."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Run, fails
from tests.support import qcow2, raw
from tests.support.peers import PATIENCE

MIB = 1 << 20
ID = "01234567-89ab-cdef-0123-456789abcdef"
OTHER = "11111111-89ab-cdef-0123-456789abcdef"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.img").write_bytes(b"\1" * (MIB + 512))
    Path("b.img").write_bytes(bytes(512))


def test_send_states_it_in_the_stream_and_the_manifest(run: Run) -> None:
    assert run("send", "a=a.img", "b=b.img", "--to", "s.bin", "--manifest", "s.json").status == 0
    found = run("validate", "s.bin", "--output", "json").report["identity"]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["created"])
    assert found | {"id": ID, "created": ""} == {
        "version": 1, "id": ID, "base": None, "incremental": False, "created": "",
        "consistency": "paused",
        "disks": {
            "a": {"size": MIB + 512, "full": True, "since": None, "mark": None},
            "b": {"size": 512, "full": True, "since": None, "mark": None},
        },
    }  # fmt: skip
    assert json.loads(Path("s.json").read_text())["blkmig"] == found
    shown = run("info", "s.bin")
    assert f"id {found['id']}" in shown.out
    assert run("info", "s.bin", "--output", "json").json["identity"] == found
    report = run("replay", "s.bin", "--dry-run", "--output", "json").report
    assert report["identity"] == found


@pytest.mark.parametrize("container", ["qemu", "none"])
def test_a_stream_can_be_made_again(
    run: Run, monkeypatch: pytest.MonkeyPatch, container: str
) -> None:
    words = ("send", "a.img", "--container", container)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    for name in ("s", "t"):
        run(*words, "--id", ID.upper(), "--to", f"{name}.bin", "--manifest", f"{name}.json")
    assert Path("s.bin").read_bytes() == Path("t.bin").read_bytes()
    assert Path("s.json").read_bytes() == Path("t.json").read_bytes()
    found = json.loads(Path("s.json").read_text())["blkmig"]
    assert (found["id"], found["created"]) == (ID, "1970-01-01T00:00:00Z")
    assert run(*words, "--no-identity", "--to", "n.bin", "--manifest", "n.json").status == 0
    assert b"blkmig" not in Path("n.bin").read_bytes() + Path("n.json").read_bytes()


def test_a_container_without_description_has_it_in_the_manifest(run: Run) -> None:
    words = ("--container", "none", "--to", "s.bin", "--manifest", "s.json", "--id", ID)
    assert run("send", "a=a.img", *words).status == 0
    assert run("validate", "s.bin", "--output", "json").report["identity"] is None
    report = run("validate", "s.bin", "--manifest", "s.json", "--output", "json").report
    assert report["identity"]["id"] == ID
    assert report["verdict"] == "whole"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--id", "x"], "--id: 'x' is not a UUID"),
        (["--no-identity", "--id", ID], "--no-identity excludes"),
        (["--no-identity", "--base", ID], "--no-identity excludes"),
        (["--base", ID], "--base is for a stream of changes"),
    ],
)
def test_options_that_make_no_sense(run: Run, words: list[str], said: str) -> None:
    fails(run("send", "a.img", "--to", "s.bin", *words), 2, said)
    assert not Path("s.bin").exists()


def test_the_id_of_the_base_and_another_format(run: Run) -> None:
    words = ["send", "a.img", "--to", "s.bin"]
    fails(run(*words, "-f", "b=raw"), 2, "no device 'b'")
    fails(run(*words, "-f", "a=raw"), 2, "no device 'a'; there is the device 'drive0'")
    assert run(*words, "-f", "drive0=raw").status == 0


@pytest.mark.parametrize("value", ["x", "", "1e9", "9" * 20, "-" + "9" * 20])
def test_a_time_that_is_none(run: Run, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", value)
    fails(run("send", "a.img", "--to", "s.bin"), 2, "SOURCE_DATE_EPOCH is ")


@pytest.mark.parametrize("words", [[], ["--normalize"], ["--dialect", "v2"]])
def test_convert_and_scrub_keep_it(run: Run, words: list[str]) -> None:
    assert run("send", "a=a.img", "--to", "s.bin").status == 0
    found = run("validate", "s.bin", "--output", "json").report["identity"]
    assert run("convert", "s.bin", *words, "--to", "c.bin").status == 0
    assert run("scrub", "c.bin", "--to", "d.bin").status == 0
    for name in ("c.bin", "d.bin"):
        report = run("validate", name, "--output", "json").report
        assert report["identity"] == found
        assert report["verdict"] == "whole"


def test_salvage_drops_it(run: Run) -> None:
    assert run("send", "a=a.img", "--to", "s.bin").status == 0
    assert run("salvage", "s.bin", "--to", "t.bin").status == 0
    report = run("validate", "t.bin", "--output", "json").report
    assert report["identity"] is None
    assert report["devices"][0]["size"] == MIB + 512


def stream(identity: object, *blocks: bytes) -> bytes:
    text = json.dumps({"devices": [], "blkmig": identity}).encode()
    made = raw.qemu(*blocks)
    return made[: made.rindex(b"\0") + 1] + b"\6" + len(text).to_bytes(4, "big") + text


def whole(disks: object, **more: object) -> dict[str, object]:
    return {"version": 1, "id": ID, "base": None, "incremental": False, "disks": disks,
            "created": "2026-01-31T23:59:59Z", "consistency": "crash"} | more  # fmt: skip


CHUNK = raw.block(0, 0, rest=b"\1" * MIB)
FULL = {"size": MIB, "full": True}
PART = {"size": 2 * MIB}


@pytest.mark.parametrize(
    ("identity", "verdict", "ids"),
    [
        (whole({"d": FULL}), "whole", set()),
        (whole({"d": FULL}, id="x"), "whole", {"identity"}),
        (whole({"d": FULL, "e": FULL}), "incomplete", {"missing-chunks"}),
        (whole({"d": PART}), "incomplete", {"missing-chunks"}),
        (whole({"d": PART}, incremental=True, base=OTHER), "whole", {"incremental"}),
        (whole({"d": PART, "e": PART}, incremental=True), "whole", {"incremental"}),
        (whole({"d": PART, "e": FULL}, incremental=True), "incomplete",
         {"incremental", "missing-chunks"}),
        (whole({"d": PART | {"full": True}}, incremental=True), "incomplete", {"missing-chunks"}),
    ],
)  # fmt: skip
def test_a_stream_is_whole_where_it_is_what_it_states(
    run: Run, identity: dict[str, object], verdict: str, ids: set[str]
) -> None:
    Path("s.bin").write_bytes(stream(identity, CHUNK))
    outcome = run("validate", "s.bin", "--output", "json")
    assert outcome.report["verdict"] == verdict
    assert {found["id"] for found in outcome.report["findings"]} == ids
    assert outcome.status == (0 if verdict == "whole" else 1)
    assert run("info", "s.bin").status == 0


def test_an_increment_without_changes_is_whole(run: Run) -> None:
    Path("s.bin").write_bytes(stream(whole({"d": PART}, incremental=True, base=OTHER)))
    report = run("validate", "s.bin", "--output", "json").report
    assert report["verdict"] == "whole", report
    assert f"changes since {OTHER}" in run("info", "s.bin").out


@qcow2.needs_qemu_utils
@pytest.mark.parametrize(
    "base", [OTHER, "s.bin", "s.json", "file:s.json", "exec:echo x >>n.txt; cat s.bin"]
)
def test_an_overlay_is_an_increment(run: Run, base: str) -> None:
    run("send", "a=a.img", "--to", "s.bin", "--manifest", "s.json", "--id", OTHER)
    qcow2.qemu_img("create", "-q", "-f", "qcow2", "-b", "a.img", "-F", "raw", "o.qcow2")
    words = ("send", "a=o.qcow2", "--skip-unallocated", "--to", "t.bin", "--id", ID)
    assert run(*words, "--base", base).status == 0
    os.mkfifo("p")
    feeder = subprocess.Popen(["sh", "-c", "cat s.bin > p"])
    assert run(*words, "--base", "p").status == 0
    assert feeder.wait(PATIENCE) == 0
    if base.startswith("exec"):
        assert Path("n.txt").read_text() == "x\n"  # it was run once
    report = run("validate", "t.bin", "--output", "json").report
    assert report["identity"]["base"] == OTHER
    assert report["identity"]["incremental"]
    assert report["verdict"] == "whole"
    fails(run(*words, "--base", ID), 2, "is the id of the base")
    fails(run("send", "a=a.img", *words[2:], "--base", base), 4, "has no backing file")
    run("send", "a=a.img", "--to", "n.bin", "--no-identity")
    fails(run(*words, "--base", "n.bin"), 4, "n.bin has no identity")
    fails(run(*words, "--base", "none.bin"), 4, "No such file")
    fails(run(*words[:-4], "--to", "s.bin", "--base", "s.bin"), 2, "s.bin")
