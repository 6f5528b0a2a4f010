"""``make bench``: measures the speed of blkmig and of comparable tools in one run.

Usage: python -m benchmarks [--rounds N] [--size MIB] [--scale X] [--json FILE] [--growth [N]]
                            [--folder DIR] [--disk-folder DIR] [--disk-size MIB]
"""

import argparse
import gzip
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import streams
from benchmarks.measure import BLKMIG, Row, Work, command, machine, memory, rounds
from benchmarks.streams import MIB, V1, V2, ZERO
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, write_bitmaps
from blkmig_cli.schemas.block import DeviceName, RecordWord
from tests.interop import qemu
from tests.interop.qemu import Drive
from tests.support.dask import dask_cluster


def qemu_save(folder: Path, image: Path, target: Path) -> Work:
    """Return QEMU's migrate -b into a file, as work to measure without QEMU's start."""

    def work() -> float:
        target.unlink(missing_ok=True)
        with qemu.source(folder / "q", Drive("drive0", image)) as source:
            source.capabilities("zero-blocks")
            source.parameters(downtime_limit=0, max_bandwidth=1 << 40)
            start = time.perf_counter()
            source.save(f"exec:cat > {target}", blk=True)
            seconds = time.perf_counter() - start
        if target.stat().st_size < image.stat().st_size * 3 // 4:
            raise RuntimeError("QEMU abandoned its bulk phase")
        return seconds

    return work


def qemu_load(folder: Path, stream: Path, image: Path, size: int) -> Work:
    """Return QEMU's load of a stream onto a new image, as work to measure without QEMU's start."""

    def work() -> float:
        image.unlink(missing_ok=True)
        with open(image, "wb") as file:
            file.truncate(size)
        with qemu.destination(folder / "q", Drive("drive0", image)) as destination:
            start = time.perf_counter()
            if destination.load(f"exec:cat {stream}") != "completed":
                raise RuntimeError(destination.log)
            return time.perf_counter() - start

    return work


def whole_disks(folder: Path, size: int, number: int) -> Iterator[Row]:
    """Measure send and replay of a disk, against QEMU, dd and qemu-img."""
    disk, stream, made = folder / "disk.img", folder / "s.bin", folder / "made"
    streams.disk(disk, size)
    send = command([*BLKMIG, "send", disk, "--machine", "pc", "--to", stream], fresh=str(stream))
    onto = ["--image", made, "--create", "--device-size", size]
    replay = command([*BLKMIG, "replay", stream, *onto], fresh=str(made))
    send()  # the stream for the first work that runs
    piped = command(
        [*BLKMIG, "send", disk, "|", *BLKMIG, "replay", "-", *onto], fresh=str(made), shell=True
    )
    copy = folder / "copy"
    dd = command(["dd", f"if={disk}", f"of={copy}", "bs=1M"], fresh=str(copy))
    cp = command(["cp", "--sparse=never", disk, copy], fresh=str(copy))
    convert = command(
        ["qemu-img", "convert", "-f", "raw", "-O", "raw", disk, copy], fresh=str(copy)
    )
    works = {"send": send, "replay": replay, "piped": piped, "dd": dd, "cp": cp}
    if qemu.QEMU_IMG is not None:
        works["convert"] = convert
    if qemu.has_block_migration():
        works["save"] = qemu_save(folder, disk, folder / "q.bin")
        works["load"] = qemu_load(folder, stream, folder / "q.img", size)
    taken = dict(zip(works, rounds(number, *works.values()), strict=True))
    slower = max(("send", "replay"), key=lambda name: statistics.median(taken[name]))
    for name, ours, peer, theirs, must, aim in (
        ("send", "send", "QEMU migrate -b", "save", 0.7, 0.5),
        ("send", "send", "dd bs=1M", "dd", 1.1, 0.9),
        ("send", "send", "cp", "cp", None, None),
        ("replay", "replay", "QEMU's load", "load", 0.7, 0.4),
        ("replay", "replay", "qemu-img convert", "convert", 1.5, 1.1),
        ("send | replay", "piped", "the slower alone", slower, 1.4, 1.1),
    ):
        if theirs in taken:
            row = Row(f"{name} {size // MIB} MiB", "s", must, aim, peer=peer)
            row.ours, row.theirs = taken[ours], taken[theirs]
            yield row
    for path in (disk, stream, made, copy, folder / "q.bin", folder / "q.img"):
        path.unlink(missing_ok=True)


def rate(name: str, unit: str, words: list[object], amount: float, number: int,
         must: float, aim: float) -> Row:  # fmt: skip
    """Measure a command that handles ``amount`` of ``unit``."""
    row = Row(name, unit, must, aim, more=True)
    (taken,) = rounds(number, command(words))
    row.ours = [amount / seconds for seconds in taken]
    return row


def reading(folder: Path, scale: float, number: int) -> Iterator[Row]:
    """Measure validate and dump on streams of one kind of record."""
    chunks = int((1 << 20) * scale)
    data = streams.stream(folder / "data.bin", streams.sparse_data(chunks))
    yield rate("validate data chunks", "GiB/s", [*BLKMIG, "validate", data], chunks / 1024, number,
               200, 900)  # fmt: skip
    for what in (["validate"], ["dump", "--output", "jsonl"]):
        row = Row(f"memory of {what[0]}, {chunks / (1 << 20):.3g} TiB", "MB", 120, 60)
        row.ours = [memory([*BLKMIG, *what, data])]
        yield row
    row = Row("memory of replay (dry run)", "MB", 120, 60)
    row.ours = [memory([*BLKMIG, "replay", data, "--dry-run"])]
    yield row
    data.unlink()
    nothing = streams.stream(folder / "nothing.bin", streams.records(ZERO, 1))
    for name, record, millions, must, aim in (
        ("validate zero blocks", ZERO, 10.0, 10, 40),
        ("validate v1 with 3 bitmaps", V1, 8.0, 5, 8),
        ("validate v2 with 3 bitmaps", V2, 8.0, 5, 8),
    ):
        count = int(millions * 1e6 * scale)
        path = streams.stream(folder / "records.bin", streams.records(record, count))
        words: list[object] = [*BLKMIG, "validate", path]
        if record is V1:
            words += ["--device-size", count * MIB]
            for bitmap in ("bitmap0", "daily", "weekly"):
                words += ["--granularity", f"{bitmap}=65536"]
        if record is ZERO:
            yield rate(name, "M/s", words, count / 1e6, number, must, aim)
            yield from scanning(path, count, number)
        else:
            row = Row(f"{name}, start-up off", "M/s", must, aim, more=True)
            taken, idle = rounds(number, command(words), command([*BLKMIG, "validate", nothing]))
            start_up = statistics.median(idle)
            row.ours = [count / 1e6 / max(seconds - start_up, 1e-3) for seconds in taken]
            yield row
        path.unlink()
    count = int(1e6 * scale)
    path = streams.stream(folder / "records.bin", streams.records(ZERO, count))
    yield rate("dump --output jsonl", "M/s", [*BLKMIG, "dump", "--output", "jsonl", path],
               count / 1e6, number, 0.15, 0.5)  # fmt: skip
    path.unlink()


def scanning(path: Path, count: int, number: int) -> Iterator[Row]:
    """Measure the time per record, start-up included, against construct's parse of the same schemas."""
    few = min(count, 50_000)
    content = path.read_bytes()[: 200 + few * len(ZERO)]
    begin = content.index(ZERO)

    def bare() -> float:
        start = time.perf_counter()
        at = begin
        for _ in range(few):
            RecordWord.parse(content[at : at + 8])
            DeviceName.parse(content[at + 8 : at + len(ZERO)])
            at += len(ZERO)
        return (time.perf_counter() - start) / few

    ours, theirs = rounds(number, command([*BLKMIG, "validate", path]), bare)
    row = Row("scan zero blocks", "us", None, None, peer="bare construct")
    row.ours = [seconds / count * 1e6 for seconds in ours]
    row.theirs = [seconds * 1e6 for seconds in theirs]
    yield row


def paths(
    folder: Path, what: str, count: int, number: int, *, judged: bool = True
) -> Iterator[Row]:
    """Measure every command on ``count`` zero blocks, and kinds of input, against validate of the file.

    ``judged``: there are goals for this many.
    """
    path = streams.stream(folder / "z.bin", streams.records(ZERO, count))
    packed, spec, made = folder / "z.bin.gz", folder / "z.spec", folder / "z.out"
    with open(path, "rb") as source, gzip.open(packed, "wb") as target:
        shutil.copyfileobj(source, target)
    with open(spec, "wb") as target:
        subprocess.run([*BLKMIG, "dump", path, "--spec"], stdout=target, check=True)
    sized = ["--device-size", count * MIB]
    onto = ["--image", made, "--create", *sized]
    works: dict[str, tuple[list[object], float, float]] = {
        "validate, gzip": (["validate", packed], 2, 1.3),
        "validate, pipe": (["validate", f"exec:cat {path}"], 2, 1.3),
        "info": (["info", path], 2.5, 1.5),
        "map": (["map", path], 2.5, 1.5),
        "dump": (["dump", path], 2.5, 1.5),
        "dump --spec": (["dump", path, "--spec"], 2.5, 1.5),
        "dump jsonl": (["dump", path, "--output", "jsonl"], 3, 2),
        "dump json": (["dump", path, "--output", "json"], 4, 2),
        "build": (["build", spec, "--to", made], 4, 2),
        "convert to v2": (["convert", path, "--dialect", "v2", "--to", made, *sized], 2.5, 1.5),
        "salvage --to": (["salvage", path, "--to", made], 2.5, 1.5),
        "extract": (["extract", path, "--to", made, *sized], 2.5, 1.5),
        "scrub": (["scrub", path, "--to", made, *sized], 2.5, 1.5),
        "compare": (["compare", path, path, *sized], 2.5, 1.5),
        "replay, gzip": (["replay", packed, *onto], 3, 1.5),
        "replay, pipe": (["replay", f"exec:cat {path}", *onto], 3, 1.5),
    }
    all_works = [command([*BLKMIG, *words], fresh=str(made)) for words, _, _ in works.values()]
    plain, *taken = rounds(number, command([*BLKMIG, "validate", path]), *all_works)
    for (name, (_, must, aim)), ours in zip(works.items(), taken, strict=True):
        row = Row(f"{what}: {name}", "s", peer="validate of the file")
        if judged:
            row.must, row.aim = must, aim
        row.ours, row.theirs = ours, plain
        yield row
    for file in folder.glob("z.*"):
        file.unlink()


def holes(folder: Path, scale: float, number: int) -> Iterator[Row]:
    """Measure a disk of 3 TiB that is one hole."""
    disk, stream, made = folder / "h.img", folder / "h.bin", folder / "h.out"
    size = int((3 << 40) * scale) >> 20 << 20
    with open(disk, "wb") as file:
        file.truncate(size)
    onto = ["--image", made, "--create", "--device-size", size]
    works = {
        "send": command([*BLKMIG, "send", disk, "--to", stream], fresh=str(stream)),
        "validate": command([*BLKMIG, "validate", stream]),
        "convert to v2": command([*BLKMIG, "convert", stream, "--dialect", "v2", "--to", made,
                                  "--device-size", size], fresh=str(made)),
        "replay": command([*BLKMIG, "replay", stream, *onto], fresh=str(made)),
    }  # fmt: skip
    for name, ours in zip(works, rounds(number, *works.values()), strict=True):
        row = Row(f"hole: {name}", "s", 6, 2)
        row.ours = ours
        yield row
    for path in folder.glob("h.*"):
        path.unlink()


def formats(folder: Path, size: int, number: int) -> Iterator[Row]:
    """Measure send of a qcow2 image, and replay onto a new one, against qemu-img convert."""
    if qemu.QEMU_IMG is None or shutil.which("qemu-storage-daemon") is None:
        return
    disk, image, stream = folder / "f.img", folder / "f.qcow2", folder / "f.bin"
    made, copy = folder / "f.made.qcow2", folder / "f.copy"
    streams.disk(disk, size)
    convert: list[object] = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk]
    command([*convert, image])()
    send = command([*BLKMIG, "send", image, "--to", stream], fresh=str(stream))
    send()  # the stream for replay
    onto = ["--image", made, "--create", "--device-size", size]
    replay = command([*BLKMIG, "replay", stream, *onto], fresh=str(made))
    unpack: list[object] = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, copy]
    for name, ours, theirs, must, aim in (
        ("qcow2 to stream", send, command(unpack, fresh=str(copy)), 1.5, 1.0),
        ("stream to qcow2", replay, command([*convert, copy], fresh=str(copy)), 2.0, 1.5),
    ):
        row = Row(f"{name}, {size // MIB} MiB", "s", must, aim, peer="qemu-img convert")
        row.ours, row.theirs = rounds(number, ours, theirs)
        yield row
    for path in folder.glob("f.*"):
        path.unlink()


def synced(folder: Path, size: int, number: int) -> Iterator[Row]:
    """Measure replay onto a file system that keeps what it is given, with fsync on both sides."""
    disk, stream, made = folder / "disk.img", folder / "s.bin", folder / "made"
    streams.disk(disk, size)
    command([*BLKMIG, "send", disk, "--to", stream])()
    onto = ["--image", made, "--create", "--device-size", size]
    replay = command([*BLKMIG, "replay", stream, *onto], fresh=str(made))
    copy = ["qemu-img", "convert", "-t", "writeback", "-f", "raw", "-O", "raw", disk, made]
    row = Row(f"with fsync: replay {size // MIB} MiB", "s", 1.25, 1.0)
    if qemu.QEMU_IMG is None:
        (row.ours,) = rounds(number, replay)
    else:
        row.peer = "qemu-img convert"
        row.ours, row.theirs = rounds(number, replay, command(copy, fresh=str(made)))
    yield row
    for path in (disk, stream, made):
        path.unlink()


# Copies the chunks of a file whose numbers are in argv[3:] to another file, onto stable storage.
_COPY = """
import os, sys
source, target = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)
for chunk in sys.argv[3:]:
    os.write(target, os.pread(source, 1 << 20, int(chunk) << 20))
os.fsync(target)
"""


def increments(folder: Path, scale: float, number: int) -> Iterator[Row]:
    """Measure increments of a 10 GiB disk against copying the chunks that they touch, and a fold."""
    size, base = max(int(10240 * scale), 100) * MIB, "01234567-89ab-cdef-0123-456789abcdef"
    disk, image, out = folder / "i.img", folder / "i.qcow2", folder / "i.bin"
    with disk.open("wb") as file:
        file.truncate(size)
        for chunk in range(0, size // MIB, 20):
            os.pwrite(file.fileno(), b"\1" * MIB, chunk * MIB)
    marked = {percent: range(3, size // MIB, 100 // percent) for percent in (1, 10)}
    sources: dict[str, Path] = {"raw": disk}
    if qemu.QEMU_IMG is not None and shutil.which("qemu-storage-daemon") is not None:
        command(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, image])()
        sources["qcow2"] = image
    write_bitmaps(folder / "i.none.json", BitmapFile(size, {"b": DirtyBitmap("b", 65536)}))
    for percent, chunks in marked.items():
        bitmap = DirtyBitmap("b", 65536)
        for chunk in chunks:
            bitmap.set_range(chunk * MIB, MIB)
        write_bitmaps(folder / "i.json", BitmapFile(size, {"b": bitmap}))
        copied = [sys.executable, "-c", _COPY, disk, folder / "i.copy", *chunks]
        with disk.open("r+b") as file:
            for chunk in chunks:
                os.pwrite(file.fileno(), b"\2" * MIB, chunk * MIB)
        for name, source in sources.items():
            if name == "qcow2":
                command(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, source])()
            words = [*BLKMIG, "send", source, "--since", "b", "--base", base, "--to", out]
            send, empty = (
                command([*words, "--bitmaps-from", folder / bitmaps], fresh=str(out))
                for bitmaps in ("i.json", "i.none.json")
            )
            made = str(folder / "i.copy")
            copy = command(copied, fresh=made)
            changed = [*words, "--bitmaps-from", folder / "i.json"]
            cold = command(changed, fresh=str(out), uncached=source)
            cold_copy = command(copied, fresh=made, uncached=disk)
            ours, theirs, nothing, ours_cold, theirs_cold = rounds(
                number, send, copy, empty, cold, cold_copy
            )
            start_up = statistics.median(nothing)
            for what, seconds, others in (
                (f"{size >> 30} GiB", ours, theirs),
                ("that of none off", [max(each - start_up, 1e-3) for each in ours], theirs),
                ("not cached", ours_cold, theirs_cold),
            ):
                row = Row(f"increment of {percent} %, {name}, {what}", "s", 1.5)
                row.ours, row.theirs, row.peer = seconds, others, "copy of its chunks"
                yield row
    full, last, folded = folder / "i.full", folder / "i.last", folder / "i.folded"
    command([*BLKMIG, "send", disk, "--id", base, "--to", full])()
    words = ["--since", "b", "--bitmaps-from", folder / "i.json", "--base", full, "--to", last]
    command([*BLKMIG, "send", disk, *words])()
    name = f"fold of a base and an increment, {full.stat().st_size // MIB} MiB"
    row = Row(name, "s", peer="dd bs=1M, with fsync")
    fold = command([*BLKMIG, "fold", full, last, "--to", folded], fresh=str(folded))
    words = ["dd", f"if={full}", f"of={folded}", "bs=1M", "conv=fsync"]
    copy = command(words, fresh=str(folded))
    row.ours, row.theirs = rounds(number, fold, copy)
    yield row
    for path in folder.glob("i.*"):
        path.unlink()


def many(folder: Path, scale: float, number: int) -> Iterator[Row]:
    """Measure validate of small captures by one process, by two, and by a Dask cluster if it is installed."""
    amount = max(int(1000 * scale), 4)
    place = folder / "many"
    place.mkdir()
    captures = [streams.packed(name) for name in streams.SMALL]
    for at in range(amount):
        capture = captures[at % len(captures)]
        (place / f"{at:04}.bin.gz").write_bytes(capture.read_bytes())
    words = [*BLKMIG, "validate", place, "--summary"]
    works = {"one": command([*words, "--jobs", 1]), "two processes": command([*words, "--jobs", 2])}
    with ExitStack() as stack:
        if importlib.util.find_spec("distributed") is not None:
            address = stack.enter_context(dask_cluster(folder))
            works["two Dask workers"] = command([*words, "--cluster", address])
        taken = dict(zip(works, rounds(number, *works.values()), strict=True))
    for peer, must in (("two processes", 1.7), ("two Dask workers", None)):
        if peer in taken:
            name = f"validate captures by one process, {amount:,}"
            row = Row(name, "s", must, more=True, peer=peer)
            row.ours, row.theirs = taken["one"], taken[peer]
            yield row
    shutil.rmtree(place)


def small(folder: Path, number: int) -> Iterator[Row]:
    """Measure start-up, and a capture of empty parts."""
    path = streams.capture(folder, "bitmaps-5.2")
    for name, words, must, aim in (
        ("validate bitmaps-5.2", ["validate", path], 0.8, 0.3),
        ("blkmig --help", ["--help"], 0.15, 0.08),
    ):
        row = Row(name, "s", must, aim)
        (row.ours,) = rounds(number, command([*BLKMIG, *words]))
        yield row
    plain, packed = streams.capture(folder, "bitmaps-10.0"), streams.packed("bitmaps-10.0")
    row = Row("validate bitmaps-10.0, gzip", "s", 2, 1.2, peer="the plain capture")
    row.theirs, row.ours = rounds(
        number, *(command([*BLKMIG, "validate", found]) for found in (plain, packed))
    )
    yield row


def growth(folder: Path, scale: float, size: int, times: int) -> Iterator[dict[str, object]]:
    """Measure seconds and memory for amounts that are doubled ``times`` times."""
    for step in range(times + 1):
        count = int((1 << 18) * scale) << step
        path = streams.stream(folder / "g.bin", streams.records(ZERO, count))
        words: list[object] = [*BLKMIG, "validate", path]
        yield grown("validate, zero blocks", count, words)
        chunks = count >> 4
        streams.stream(path, streams.sparse_data(chunks))
        yield grown("validate, data chunks", chunks, words)
        streams.stream(path, streams.records(ZERO, chunks, times=2))
        words = [*BLKMIG, "replay", path, "--dry-run"]
        yield grown("replay, chunks that come twice", chunks, words)
        path.unlink()
        disk = folder / "g.img"
        streams.disk(disk, max(size >> (times - step), 16 * MIB))
        target = folder / "g.bin"
        yield grown("send, bytes", disk.stat().st_size, [*BLKMIG, "send", disk, "--to", target])
        words = ["replay", target, "--image", folder / "g.out", "--create", "--device-size"]
        yield grown("replay, bytes", disk.stat().st_size, [*BLKMIG, *words, disk.stat().st_size])
        with open(disk, "wb") as file:
            file.truncate(size << 3 << step)
        target.unlink()
        yield grown(
            "send, bytes of holes", disk.stat().st_size, [*BLKMIG, "send", disk, "--to", target]
        )
        for made in (disk, target, folder / "g.out"):
            made.unlink()


def grown(name: str, amount: int, words: list[object]) -> dict[str, object]:
    """Return the amount, the seconds and the memory of one step."""
    held = memory(words)
    for number, word in enumerate(words):
        if word == "--image":
            Path(str(words[number + 1])).unlink()
    return {"name": name, "amount": amount, "seconds": command(words)(), "memory": held}


def main() -> None:
    """Measure, print the tables, and write the JSON file."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--size", type=int, default=1024, help="MiB of the disk")
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of records")
    parser.add_argument("--json", type=Path, default=Path("bench.json"))
    parser.add_argument(
        "--growth", type=int, nargs="?", const=5, metavar="N", help="also double everything N times"
    )
    parser.add_argument("--folder", type=Path, help="where files are made (default: /dev/shm)")
    parser.add_argument(
        "--disk-folder", type=Path, default=Path(), help="on a disk (default: the current folder)"
    )
    parser.add_argument("--disk-size", type=int, default=8192, help="MiB of the disk there")
    options = parser.parse_args()
    memory_files = Path("/dev/shm")
    place = options.folder or (memory_files if memory_files.is_dir() else None)
    folder = Path(tempfile.mkdtemp(prefix="blkmig-", dir=place))
    on_disk = Path(tempfile.mkdtemp(prefix="blkmig-", dir=options.disk_folder))
    rows: list[Row] = []
    steps: list[dict[str, object]] = []
    try:
        for row in chain(
            small(folder, options.rounds),
            reading(folder, options.scale, options.rounds),
            paths(folder, "zero blocks", int((1 << 20) * options.scale), options.rounds),
            paths(
                folder,
                "8 M zero blocks",
                int((8 << 20) * options.scale),
                options.rounds,
                judged=False,
            ),
            holes(folder, options.scale, options.rounds),
            whole_disks(folder, options.size * MIB, options.rounds),
            formats(folder, options.size * MIB, options.rounds),
            many(folder, options.scale, options.rounds),
            increments(on_disk, options.scale, options.rounds),
            synced(on_disk, options.disk_size * MIB, options.rounds),
        ):
            rows.append(row)
            print(f"{row.name}: {row.figure:.3g}", file=sys.stderr)
        if options.growth is not None:
            steps = list(growth(folder, options.scale, options.size * MIB, options.growth))
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(on_disk)
    show(rows, steps, Console(width=112))
    options.json.write_text(json.dumps(document(rows, steps, folder.parent), indent=1) + "\n")


def show(rows: list[Row], steps: list[dict[str, object]], out: Console) -> None:
    """Print the tables."""
    table = Table(box=None, pad_edge=False)
    for name in ("WORK", "MEDIAN", "SPREAD", "AGAINST", "ITS MEDIAN", "RATIO", "MUST", "AIM", ""):
        table.add_column(name, justify="left" if name in ("WORK", "AGAINST", "") else "right")
    marks = {True: "aim", False: "", None: ""}
    for row in rows:
        verdict = marks[row.meets(row.aim)] or ("ok" if row.meets(row.must) else "")
        verdict = "MISSED" if row.meets(row.must) is False else verdict
        table.add_row(
            row.name,
            f"{statistics.median(row.ours):.3g} {row.unit}",
            f"{row.spread:.0%}",
            row.peer or "",
            f"{statistics.median(row.theirs):.3g} {row.unit}" if row.theirs else "",
            f"{row.figure:.2f}" if row.theirs else "",
            "" if row.must is None else f"{row.must:g}",
            "" if row.aim is None else f"{row.aim:g}",
            verdict,
        )
    out.print(table)
    if steps:
        table = Table(box=None, pad_edge=False)
        for name in ("GROWTH", "AMOUNT", "SECONDS", "MEMORY"):
            table.add_column(name, justify="left" if name == "GROWTH" else "right")
        for step in sorted(steps, key=lambda step: str(step["name"])):
            table.add_row(
                str(step["name"]),
                f"{step['amount']:,}",
                f"{step['seconds']:.3f}",
                f"{step['memory']:.0f} MB",
            )
        out.print()
        out.print(table)


def document(rows: list[Row], steps: list[dict[str, object]], place: Path) -> dict[str, object]:
    """Return all figures as a JSON document."""
    return {
        "version": 1,
        "machine": {**machine(), "folder": str(place)},
        "rows": [
            {
                "name": row.name,
                "unit": row.unit,
                "ours": row.ours,
                "peer": row.peer,
                "theirs": row.theirs,
                "figure": row.figure,
                "spread": row.spread,
                "must": row.must,
                "aim": row.aim,
                "meets-must": row.meets(row.must),
                "meets-aim": row.meets(row.aim),
            }
            for row in rows
        ],
        "growth": steps,
    }


if __name__ == "__main__":
    main()
