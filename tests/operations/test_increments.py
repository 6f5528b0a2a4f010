"""Chains of increments of raw disks, whose bitmaps a model keeps: each state, any fold, no other order."""

import filecmp
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, write_bitmaps
from tests.conftest import Run, fails
from tests.support.long import examples

MIB = 1 << 20
SECTOR = 512
DIALECTS = st.sampled_from(["qemu", "qemu", "classic", "v1", "v2"])


@dataclass
class Disk:
    """A disk, and what was written to it since the last stream."""

    content: bytearray
    dirty: list[tuple[int, int]] = field(default_factory=list)
    before: int = 0  # its size at that time


@dataclass
class Chain:
    """The streams of a chain, and the disks' content at each."""

    streams: list[Path]
    states: list[dict[str, bytes]] = field(repr=False)


@st.composite
def writes(draw: st.DrawFn, disk: Disk) -> None:
    """Change a disk: data, zeros, growth."""
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(disk.content) // SECTOR - 1)) * SECTOR
        length = draw(st.sampled_from([SECTOR, 5 * SECTOR, MIB, 2 * MIB]))
        length = min(length, len(disk.content) - start)
        byte = draw(st.sampled_from([0, 0, 1, 2, 3, 255]))
        disk.content[start : start + length] = bytes([byte]) * length
        disk.dirty.append((start, length))
    if draw(st.integers(0, 4)) == 0:
        grown = draw(st.integers(1, 3 * MIB // SECTOR)) * SECTOR
        # The bitmap tells nothing of what was added.
        disk.content += bytes([draw(st.sampled_from([0, 7]))]) * grown


@st.composite
def chains(draw: st.DrawFn, folder: Path, run: Run, most: int = 10) -> Chain:
    """Make disks and the streams of a chain, from a full one on."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    names = draw(st.sampled_from([["a"], ["a", "b"]]))
    disks = {
        name: Disk(bytearray(draw(st.integers(1, 4 * MIB // SECTOR)) * SECTOR)) for name in names
    }
    chain = Chain([], [])
    for number in range(draw(st.integers(2, most + 1))):
        added = f"new{number}"
        if number and draw(st.integers(0, 9)) == 0:
            disks[added] = Disk(bytearray(b"\5" * (MIB + SECTOR)))
        for disk in disks.values():
            draw(writes(disk))
        for name, disk in disks.items():
            image = folder / f"{name}.img"
            image.write_bytes(disk.content)
            bitmap = DirtyBitmap("b", draw(st.sampled_from([SECTOR, 1 << 16, 4 * MIB])))
            for start, length in disk.dirty:
                bitmap.set_range(start, length)
            if name != added:
                write_bitmaps(f"{image}.bitmaps.json", BitmapFile(len(disk.content), {"b": bitmap}))
        stream = folder / f"{number}.bin{draw(st.sampled_from(['', '', '.gz']))}"
        words = ["--since", "b", "--base", chain.streams[-1]] if number else []
        images = [f"{name}={folder / name}.img" for name in disks]
        words += ["--dialect", draw(DIALECTS), "--to", stream]
        sent = run("send", *images, *words)
        assert sent.status == 0, sent.err
        chain.streams.append(stream)
        chain.states.append({name: bytes(disk.content) for name, disk in disks.items()})
        for disk in disks.values():
            disk.dirty = []
    return chain


def restore(run: Run, folder: Path, streams: list[Path], states: list[dict[str, bytes]]) -> Path:
    """Replay streams in order into new images, and check each state; return their folder."""
    target = folder / "restored"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for stream, state in zip(streams, states, strict=True):
        for device, content in state.items():
            image = target / device
            words = ["--device", device, "--image", f"{device}={image}", "-q"]
            words += [] if image.exists() else ["--create"]
            replayed = run("replay", stream, *words)
            assert replayed.status == 0, replayed.err
            assert image.stat().st_size == len(content)
            assert image.read_bytes() == content or not "the states differ"
    return target


@pytest.mark.scaled
@settings(max_examples=examples(2, 150))
@given(st.data())
def test_a_chain_gives_each_state_and_its_folds_agree(
    run: Run, tmp_path: Path, data: st.DataObject
) -> None:
    folder = tmp_path / "chain"
    chain = data.draw(chains(folder, run))
    restore(run, folder, chain.streams, chain.states)
    *_, last = chain.states
    # Some of the streams folded, at a random place, then all of what is left.
    first = data.draw(st.integers(0, len(chain.streams) - 1))
    end = data.draw(st.integers(first + 1, len(chain.streams)))
    folded = folder / "folded.bin"
    words = ["--dialect", data.draw(DIALECTS), "--to", folded, "-q"]
    assert run("fold", *chain.streams[first:end], *words).status == 0
    assert run("validate", folded, "--output", "json").report["verdict"] == "whole"
    streams = [*chain.streams[:first], folded, *chain.streams[end:]]
    states = [*chain.states[:first], chain.states[end - 1], *chain.states[end:]]
    restored = restore(run, folder, streams, states)
    whole = folder / "whole.bin"
    assert run("fold", *streams, "--to", whole).status == 0
    bases = [word for stream in streams[:-1] for word in ("--base", stream)]
    for device in last:
        image = restored / device
        assert run("compare", whole, f"{device}={image}", "--strict", "-q").status == 0
        compared = run("compare", streams[-1], f"{device}={image}", "--strict", "-q", *bases)
        assert compared.status == 0, compared.err
        out = folder / "extracted"
        words = ["--device", device, "--to", out, *bases]
        assert run("extract", streams[-1], *words).status == 0
        assert filecmp.cmp(out, image, shallow=False)


@pytest.mark.scaled
@settings(max_examples=examples(5, 150))
@given(st.data())
def test_any_other_order_is_refused_and_changes_nothing(
    run: Run, tmp_path: Path, data: st.DataObject
) -> None:
    folder = tmp_path / "chain"
    chain = data.draw(chains(folder, run, most=4))
    held = data.draw(st.integers(0, len(chain.streams) - 1))
    target = restore(run, folder, chain.streams[: held + 1], chain.states[: held + 1])
    other = data.draw(st.integers(1, len(chain.streams) - 1))
    for device, content in chain.states[held].items():
        if other == held + 1 or (other != held and other and device not in chain.states[other]):
            continue
        identity = run("validate", chain.streams[other], "--output", "json").report["identity"]
        if identity["disks"].get(device, {"full": True})["full"]:
            continue
        image = target / device
        words = ["--device", device, "--image", f"{device}={image}"]
        source = data.draw(
            st.sampled_from([str(chain.streams[other]), f"exec:cat {chain.streams[other]}"])
        )
        replayed = run("replay", source, *words)
        assert replayed.status == (0 if other == held else 1), replayed.err
        assert ("holds this increment already" if other == held else "wrong-base") in replayed.out
        assert image.read_bytes() == content or not "the image was changed"
    wrong = data.draw(st.permutations(chain.streams))
    if wrong != chain.streams:
        assert run("fold", *wrong, "--to", folder / "no.bin").status == 1
        assert not (folder / "no.bin").exists()


def test_streams_without_description_are_folded_with_their_manifests(
    run: Run, tmp_path: Path
) -> None:
    image, size = tmp_path / "d.img", 3 * MIB + SECTOR
    state, streams, manifests = bytearray(size), list[Path](), list[Path]()
    for number in range(3):
        stream, manifest = tmp_path / f"{number}.bin", tmp_path / f"{number}.json"
        state[number * MIB : number * MIB + 2 * SECTOR] = bytes([number + 1]) * (2 * SECTOR)
        image.write_bytes(state)
        bitmap = DirtyBitmap("b", SECTOR)
        bitmap.set_range(number * MIB, 2 * SECTOR)
        write_bitmaps(f"{image}.bitmaps.json", BitmapFile(size, {"b": bitmap}))
        words = ["--since", "b", "--base", manifests[-1]] if number else []
        container = ["--dialect", "v2", "--container", "none"]
        outcome = run(
            "send", f"d={image}", "--to", stream, "--manifest", manifest, *container, *words
        )
        assert outcome.status == 0, outcome.err
        streams.append(stream)
        manifests.append(manifest)
    full, out = tmp_path / "full.bin", tmp_path / "out.img"
    named = [word for manifest in manifests for word in ("--manifest", manifest)]
    assert run("fold", *streams, *named, "--to", full).status == 0
    assert run("replay", full, "--image", out, "--create").status == 0
    assert out.read_bytes() == state or not "the states differ"
    full.unlink()
    fails(run("fold", *streams, "--to", full), 1, "has no identity")
    fails(run("fold", *streams, *named[:4], "--to", full), 2, "2 times for 3 streams")
    swapped = [*named[:2], *named[4:], *named[2:4]]
    fails(run("fold", *streams, *swapped, "--to", full), 1, "has the base")
    with_description = tmp_path / "described.bin"
    assert run("send", f"d={image}", "--to", with_description).status == 0
    fails(run("fold", with_description, *named[:2], "--to", full), 1, "has the id")
    fails(run("fold", *streams, *named, "--to", manifests[1]), 2, "1.json")
    assert not full.exists()


def test_the_target_of_a_fold_is_checked_before_anything_is_read(run: Run, tmp_path: Path) -> None:
    damaged, other = tmp_path / "damaged.bin", tmp_path / "other.bin"
    damaged.write_bytes(b"no stream")
    other.write_bytes(b"nor this")
    said = "are the same file"
    for target in (damaged, other):
        fails(run("fold", damaged, other, "--to", target), 2, said)
    fails(run("fold", damaged, other, "--to", tmp_path / "new.bin"), 3, "not a migration stream")
    assert not (tmp_path / "new.bin").exists()
