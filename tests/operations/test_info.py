"""``info``: the bytes add up, the verdict is validate's, and what it proposes works."""

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings

from blkmig_cli.contents.accounts import Accounts
from blkmig_cli.errors import StreamError
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.runs.columns import Run as Rows
from tests.conftest import Capture, Run, each_record, fails
from tests.support import raw
from tests.support.feed import in_file
from tests.support.long import examples
from tests.support.strategies import Repetitive, repetitive

MIB = 1 << 20
HOSTILE = "../\x1b[31m$(reboot)'"


def filled(sector: int, device: str = "d", byte: int = 7) -> bytes:
    return raw.block(sector, 0, device, bytes([byte]) * MIB)


def put(folder: Path, content: bytes, name: str = "s.bin") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.scaled
@settings(max_examples=examples(12, 100))
@given(repetitive())
def test_every_byte_is_of_one_kind_in_runs_as_in_events(made: Repetitive) -> None:
    found = []
    for by_runs in (True, False):
        accounts, end = Accounts(), 0
        decoder = Decoder(in_file(made.data), hints=made.hints)
        try:
            while True:
                piece = decoder.piece() if by_runs else next(decoder)
                if isinstance(piece, Rows):
                    accounts.feed_run(piece, decoder.source)
                    end = piece.end
                else:
                    accounts.feed(piece, decoder.source)
                    end = piece.offset + piece.length
        except (StopIteration, StreamError):
            pass
        accounts.settle({"d": 20 * MIB - 512})
        assert accounts.total == end == sum(s.size for s in accounts.sections.values())
        assert min(accounts.kinds.values()) >= 0
        found.append((accounts.kinds, accounts.sections))
    assert found[0] == found[1]


def test_captures(capture: Capture, run: Run) -> None:
    outcome = run("info", capture.path, *capture.hints(), "--output", "json")
    assert outcome.status == 0
    found = outcome.json
    assert sum(found["bytes"].values()) == found["size"] == capture.path.stat().st_size
    assert sum(section["bytes"] for section in found["sections"]) == found["size"]
    validated = run("validate", capture.path, *capture.hints(), "--output", "json").report
    assert {key: found[key] for key in validated} == validated
    data = sum(MIB * (disk["chunks"] - disk["zero-chunks"]) for disk in found["devices"])
    assert found["bytes"]["data"] + found["bytes"]["padding"] == data
    people = run("info", capture.path, *capture.hints())
    assert people.out.startswith(f"{capture.path}: ")
    for word in [*capture.truth["devices"], "next: "]:
        assert word in people.out
    assert len(people.out.splitlines()) <= 24
    detailed = run("info", capture.path, *capture.hints(), "-v").out
    assert all(line in detailed for line in people.out.splitlines()[:2])
    for word in ("\nBYTES ", "\nSECTION "):
        assert word in detailed
        assert word not in people.out


def test_what_is_proposed_works(
    capture: Capture, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if capture.path.stat().st_size > 60 * MIB:
        return
    monkeypatch.chdir(tmp_path)
    found = run("info", capture.path, *capture.hints(), "--output", "json").json
    commands = [step["command"] for step in found["next"] if step["command"]]
    assert commands
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "blkmig"
        if "SIZE" in command:
            continue
        assert run(*words[1:], "-q").status == 0, command  # the hints are in the command
    disks = [device for device in found["devices"] if device["chunks"]]
    assert len(list(tmp_path.glob("*.img"))) == len(disks)


def test_padding(run: Run, tmp_path: Path) -> None:
    path = put(tmp_path, raw.qemu(filled(0), filled(2048, byte=1), filled(2048)))
    words = ["info", path, "--device-size", MIB + 4096, "--output", "json"]
    found = run(*words).json
    assert found["bytes"]["data"] == MIB + 2 * 4096
    assert found["bytes"]["padding"] == 2 * (MIB - 4096)
    assert any("blkmig scrub" in (step["command"] or "") for step in found["next"])
    heads = found["bytes"]["records"] / found["bytes"]["data"]
    assert found["metadata-per-data"] == pytest.approx(heads)


def test_a_damaged_stream_shows_what_is_sound(run: Run, tmp_path: Path) -> None:
    path = put(tmp_path, raw.qemu(filled(0), filled(2048))[: -MIB // 2])
    outcome = run("info", path)
    fails(outcome, 3, "truncated")
    assert "damaged" in outcome.out
    assert "blkmig salvage" in outcome.out
    assert "1 MiB" in outcome.out
    outcome = run("info", put(tmp_path, b"no stream at all", "n"))
    assert outcome.status == 3
    assert "next" not in outcome.out


@pytest.mark.parametrize(
    ("word", "text"),
    [
        (b'"paused"', ""),
        (b'"frozen"', " with the guest's file systems frozen"),
        (b'"crash" ', " while the guest was running"),
    ],
)
def test_when_a_stream_was_made(run: Run, tmp_path: Path, word: bytes, text: str) -> None:
    image, stream = put(tmp_path, bytes(MIB), "d.img"), tmp_path / "s.bin"
    assert run("send", image, "--to", stream).status == 0
    put(tmp_path, stream.read_bytes().replace(b'"paused"', word))
    identity = run("info", stream, "--output", "json").json["identity"]
    line = f"  id {identity['id']}, created {identity['created']}{text}\n"
    assert line in run("info", stream).out.replace("\n  created", " created")


def test_a_pipe(run: Run, tmp_path: Path) -> None:
    data = raw.qemu(filled(0))
    piped = run("info", f"exec:cat {put(tmp_path, data)}", "--output", "json").json
    assert piped["size"] == len(data)
    whole = run("info", tmp_path / "s.bin", "--output", "json").json
    assert piped["bytes"] == whole["bytes"]


def test_names_are_hostile(run: Run, tmp_path: Path) -> None:
    path = put(tmp_path, raw.qemu(filled(0, HOSTILE)), "a b'c.bin")
    outcome = run("info", path, "--output", "json")
    (command,) = [step["command"] for step in outcome.json["next"] if "replay" in step["command"]]
    words = shlex.split(command)
    assert words[2] == str(path)
    assert words[3:] == ["--image", "31m_reboot.img", "--create"]
    assert "\x1b" not in run("info", path).out
    both = put(tmp_path, raw.qemu(filled(0, HOSTILE), filled(0, "e")))
    steps = run("info", both, "--output", "json").json["next"]
    assert steps[-1] == {
        "why": "names of its devices cannot be written on a command line",
        "command": None,
    }
    files = put(tmp_path, raw.qemu(filled(0, "a b"), filled(0, "a?b")))
    command = run("info", files, "--output", "json").json["next"][-1]["command"]
    assert shlex.split(command)[4:7:2] == ["a b=a_b.img", "a?b=a_b-2.img"]


def test_a_name_that_no_terminal_shows_is_a_word_for_the_shell(run: Run, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"s\xff'\n.bin")
    path.write_bytes(raw.qemu(filled(0)))
    found = json.loads(run("info", path, "--output", "json").out)
    command = found["next"][-1]["command"]
    assert command.isascii()
    assert command.isprintable()
    words = ["bash", "-c", f"printf %s {command.split()[2]}"]
    echoed = subprocess.run(words, capture_output=True, check=True).stdout
    assert os.fsdecode(echoed) == str(path)


def test_what_is_proposed_overwrites_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that something has, or whose journal or bitmaps are there, are not proposed."""
    monkeypatch.chdir(tmp_path)
    path = put(tmp_path, raw.qemu(filled(0), filled(0, "e")))
    taken = ["d.img", "d-2.img.replay.json", "e.img.partial", "salvaged.bin"]
    for name in taken:
        put(tmp_path, b"mine", name)
    (command,) = [
        step["command"]
        for step in run("info", path, "--output", "json").json["next"]
        if "replay" in step["command"]
    ]
    words = shlex.split(command)
    assert words[4:7:2] == ["d=d-3.img", "e=e-2.img"]
    size = ["--device-size", "1M"]
    assert run(*words[1:], *size, "-q").status == 0
    assert all((tmp_path / name).read_bytes() == b"mine" for name in taken)
    damaged = put(tmp_path, path.read_bytes()[:-40], "damaged")
    (step,) = run("info", damaged, "--output", "json").json["next"]
    assert shlex.split(step["command"])[-1] == "salvaged-2.bin"


def test_an_incomplete_or_impossible_replay_is_proposed_as_such(run: Run, tmp_path: Path) -> None:
    gap = put(tmp_path, raw.qemu(filled(0), filled(4096)))
    steps = run("info", gap, "--output", "json").json["next"]
    assert any("--allow-incomplete" in (step["command"] or "") for step in steps)
    past = ["--device-size", "1M", "--output", "json"]
    steps = run("info", gap, *past).json["next"]
    assert not any("replay" in (step["command"] or "") for step in steps)


def proposed(run: Run, *words: object) -> list[str]:
    """The commands that info proposes."""
    steps = run("info", *words, "--output", "json").json["next"]
    return [step["command"] for step in steps if step["command"]]


def test_options_are_in_what_is_proposed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is no multiple of a chunk gets its own size, not that of its chunks."""
    monkeypatch.chdir(tmp_path)
    path = put(tmp_path, raw.qemu(filled(0), filled(2048, byte=1)))
    options = ["--device-size", f"d={MIB + 4096}", "--dialect", "classic", "--container", "qemu"]
    commands = proposed(run, "s.bin", *options)
    words = "--dialect classic --container qemu --device-size d=1028K"
    assert commands == [
        f"blkmig scrub s.bin {words} --to clean.bin",
        f"blkmig replay s.bin {words} --image d=d.img --create",
    ]
    for command in commands:
        assert run(*shlex.split(command)[1:], "-q").status == 0
    assert (tmp_path / "d.img").stat().st_size == MIB + 4096
    assert (tmp_path / "clean.bin").stat().st_size == path.stat().st_size


@pytest.mark.parametrize(
    ("option", "proposal"),
    [
        ("2M", "2M"),
        ("d=2097664", "d=2097664"),
        ("d=1G", "d=1G"),
        ("max", "max"),
    ],
)
def test_sizes_are_proposed_as_they_are_typed(
    run: Run, tmp_path: Path, option: str, proposal: str
) -> None:
    path = put(tmp_path, raw.qemu(raw.progress(0), filled(0), raw.progress(50), filled(2048)))
    replay = proposed(run, path, "--device-size", option)[-1]
    assert f" --device-size {proposal} --image " in replay


def test_granularities_are_in_what_is_proposed(run: Run, unpacked: Path) -> None:
    path = unpacked / "v1-blocks-and-bitmaps.bin"
    names = ("coarse", "bitmap0")
    hints = [f"--granularity={name}=64K" for name in names]
    for command in proposed(run, path, *hints):
        assert all(f" --granularity {name}=64K" in command for name in names)


def test_all_unknown_sizes_are_asked_for_at_once(run: Run, tmp_path: Path) -> None:
    path = put(tmp_path, raw.qemu(filled(0, "a"), filled(0, "b c")))
    sizes = "--device-size a=SIZE --device-size 'b c'=SIZE"
    assert f"blkmig validate {path} {sizes}" in proposed(run, path)


def test_unnamed_devices_can_be_replayed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = put(tmp_path, raw.qemu(filled(0, ""), filled(0, "e")))
    (command,) = [
        step["command"]
        for step in run("info", path, "--output", "json").json["next"]
        if "replay" in step["command"]
    ]
    assert shlex.split(command)[3:7] == ["--image", "=disk.img", "--image", "e=e.img"]
    assert run(*shlex.split(command)[1:], "--device-size", "1M", "-q").status == 0
    assert (tmp_path / "disk.img").read_bytes() == bytes([7]) * MIB


def test_many_devices_are_named_quickly(run: Run, tmp_path: Path) -> None:
    """As many as a stream may have, all of one harmless name."""
    names = [chr(0x4E00 + at) for at in range(2000)]
    path = put(tmp_path, raw.qemu(*[raw.block(0, 8, name) for name in names]))
    command = run("info", path, "--output", "json").json["next"][-1]["command"]
    assert command.count("--image") == 2000
    assert "disk-2000.img" in command


@each_record
def test_dirty_ranges_are_those_of_qemu(capture: Capture, run: Run) -> None:
    """All of them, in info's JSON as in validate's."""
    report = run("info", capture.path, *capture.hints(), "--output", "json").json
    shown = {(one["device"], one["name"]): one for one in report["bitmaps"]}
    assert set(shown) == {(one["device"], one["name"]) for one in capture.truth["bitmaps"]}
    for one in capture.truth["bitmaps"]:
        found = shown[one["device"], one["name"]]
        assert (found["dirty"], found["dirty-omitted"]) == (one["dirty"], 0)
