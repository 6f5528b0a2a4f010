"""One stream compared with the model: running the program on it, and checking its results."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from blkmig_cli.commands import cli
from tests.support.model import MISSING, BitmapModel, DiskModel, Model
from tests.support.model_wire import (
    CHUNK_SECTORS,
    HAS_BITMAPS,
    HAS_BLOCK,
    SECTOR,
    SIZED_BITMAPS,
    ZERO_BLOCK,
    Block,
    Stream,
    block_flags,
)

Json = dict[str, Any]

#: Exit status of validate by verdict.
STATUS = {"whole": 0, "unknown": 0, "incomplete": 1, "faulty": 1, "damaged": 3}
VALID = ("whole", "unknown")
COMPLETE = {"whole": (True,), "unknown": (None,), "incomplete": (False,), "faulty": (True, None)}


@dataclass(frozen=True)
class Plan:
    """A stream, whether its sizes and granularities are given by options, and what is done with it.

    ``spoken``: the dialect is named on the command line.
    """

    stream: Stream
    hinted: bool
    spoken: bool
    operations: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@contextmanager
def standard_input(data: bytes) -> Iterator[None]:
    """``data`` from a pipe as this process' standard input."""
    reading, writing = os.pipe()

    def feed() -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(writing, left) :]
        except BrokenPipeError:
            pass
        finally:
            os.close(writing)

    before = os.dup(0)
    os.dup2(reading, 0)
    os.close(reading)
    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        os.dup2(before, 0)  # closes the pipe, should anything be left in it
        os.close(before)
        thread.join()


def run(*words: object) -> Outcome:
    """Run blkmig in this process: it ends with a status of the contract, and one line for an error."""
    result = CliRunner().invoke(cli, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    outcome = Outcome(result.exit_code, result.stdout, result.stderr)
    lines = outcome.err.splitlines()
    errors = [
        line for line in lines if not line.startswith(("blkmig: warning: ", "blkmig: note: "))
    ]
    assert outcome.status in range(5), outcome
    if outcome.status > 1:
        assert len(errors) == 1, outcome
        assert errors[0].startswith("blkmig: "), outcome
    return outcome


@dataclass
class Case:
    """One stream in a file, its model, and the options that describe it."""

    plan: Plan
    folder: Path
    model: Model
    data: bytes
    path: Path
    step: int = 0
    dialect: list[str] = field(default_factory=list)

    @property
    def stream(self) -> Stream:
        return self.plan.stream

    @property
    def hinted(self) -> list[str]:
        """Return options that state sizes and granularities, if the plan has them."""
        return self.hints(self.stream.dialect) if self.plan.hinted else []

    def hints(self, dialect: str) -> list[str]:
        """Return options that state the sizes of all disks, and for v1 the granularities of all bitmaps."""
        words = [f"--device-size={name}={disk.disk.size}" for name, disk in self.named.items()]
        if len(self.named) == 1 and self.plan.spoken:
            words = [f"--device-size={disk.disk.size}" for disk in self.named.values()]
        if dialect == "v1":
            words += [
                f"--granularity={device}:{name}={bitmap.bitmap.granularity}"
                for (device, name), bitmap in self.model.bitmaps.items()
            ]
        return words

    @property
    def reading(self) -> list[str]:
        """The options of a command that reads the stream."""
        return [*self.dialect, *self.hinted]

    def folder_of_step(self) -> Path:
        """A new, empty folder."""
        self.step += 1
        folder = self.folder / str(self.step)
        folder.mkdir()
        return folder

    # -- what can be known ---------------------------------------------------------------------

    @property
    def undecided(self) -> bool:
        """Whether the stream is of dialect v1 with bitmaps whose layout no option states."""
        return self.stream.dialect == "v1" and bool(self.model.bitmaps) and not self.plan.hinted

    @property
    def trusted(self) -> bool:
        """Whether the progress records contradict neither the chunks nor the sizes.

        Where a disk's end was left out, progress goes further than the chunks show; and where chunks
        then stand off the grid, which no QEMU makes, it may fit disks of another size.
        """
        skipped = ("skipped",) if self.all_known and not unaligned(self.stream) else ()
        return self.stream.progress in ("none", "true", "silent", "abandoned", *skipped)

    @property
    def sane(self) -> bool:
        """Whether the progress records also count nothing that never began."""
        left_out = self.stream.progress == "skipped" and len(self.named) < len(self.model.disks)
        return self.trusted and self.stream.progress != "abandoned" and not left_out

    def known(self, name: str) -> bool:
        """Return whether a disk's size is given by an option, or in the stream."""
        return self.plan.hinted or (self.model.disks[name].stated and not self.undecided)

    @property
    def content(self) -> dict[str, DiskModel]:
        """The disks of which content came."""
        return {name: disk for name, disk in self.model.disks.items() if disk.has_content}

    @property
    def named(self) -> dict[str, DiskModel]:
        """The disks of which anything came."""
        return {name: disk for name, disk in self.model.disks.items() if disk.named}

    @property
    def all_known(self) -> bool:
        """Whether nothing is left to be guessed."""
        return all(map(self.known, self.named)) and not self.undecided

    def gap(self, name: str) -> bool:
        """Whether something is proven missing of a disk by what is known of its size."""
        if self.known(name):
            return not self.model.whole_disk(name)
        return self.model.disks[name].has_content and self.model.gap_before_end(name)

    @property
    def gaps(self) -> bool:
        """Whether something is proven missing of any disk."""
        return any(map(self.gap, self.named))

    @property
    def unnamed_bitmaps(self) -> bool:
        """Whether a disk without a name has bitmaps, which section ``dirty-bitmap`` cannot say."""
        return bool(self.model.bitmaps_of(""))

    @property
    def whole_disks(self) -> bool:
        """Whether all disks are whole."""
        return all(map(self.model.whole_disk, self.named))


def auto_is_wrong(stream: Stream) -> bool:
    """Whether a v1 stream begins with a record that any reader takes for classic."""
    if stream.dialect != "v1":
        return False
    for record in stream.records():
        if isinstance(record, Block):
            flags = block_flags(stream, record)
            if flags & (HAS_BLOCK | HAS_BITMAPS | SIZED_BITMAPS):
                return False
            if not flags & ZERO_BLOCK:
                return True
    return False


def unaligned(stream: Stream) -> bool:
    """Whether a record's sector is no multiple of 2048."""
    return any(
        record.sector % CHUNK_SECTORS for record in stream.records() if isinstance(record, Block)
    )


def ragged(disk: DiskModel) -> bool:
    """Whether a chunk of the grid came in part."""
    chunks = (
        disk.kinds[at : at + CHUNK_SECTORS] for at in range(0, disk.disk.sectors, CHUNK_SECTORS)
    )
    return any(MISSING in chunk and any(chunk) for chunk in chunks)


# -- judging ---------------------------------------------------------------------------------------


def verdict_of(report: Json) -> str:
    """The verdict, which the rest of the report agrees with."""
    verdict: str = report["verdict"]
    errors = [found for found in report["findings"] if found["severity"] == "error"]
    assert report["valid"] == (verdict in VALID) == (not errors), report
    if verdict in COMPLETE:
        assert report["complete"] in COMPLETE[verdict], report
    if verdict != "whole":
        assert report["findings"], report
    return verdict


def ranges(found: list[Json]) -> list[tuple[int, int]]:
    """Start and length of each."""
    return [(each["start"], each["length"]) for each in found]


def old_content(disk: DiskModel) -> bytes:
    """What an image holds before: no zeros."""
    return (b"old content " * (disk.disk.size // 12 + 1))[: disk.disk.size]


def check_image(
    case: Case, name: str, path: Path, *, existing: bool = False, bitmaps: bool = True
) -> None:
    """An image that a replay has made, and its bitmaps, are as the model has them."""
    disk = case.model.disks[name]
    left = {other.name for other in path.parent.glob(f"{path.name}.*")}
    assert left <= {f"{path.name}.bitmaps.json", f"{path.name}.replay.json"}, left
    sized = existing or case.known(name)
    if disk.has_content:
        want = disk.over(old_content(disk)) if existing else bytes(disk.content)
        check_content(path.read_bytes(), want, disk, sized=sized)
    elif existing:
        assert path.read_bytes() == old_content(disk)
    if not bitmaps or case.undecided or not sized:
        return
    beside = Path(f"{path}.bitmaps.json")
    found = json.loads(beside.read_text()) if beside.exists() else {"bitmaps": []}
    names = {bitmap["name"] for bitmap in found["bitmaps"]}
    models = case.model.bitmaps_of(name)
    for key, bitmap in models.items():
        whole = case.model.whole_bitmap(bitmap)
        assert whole in (None, key in names), (key, whole, found)
    if beside.exists():
        check_document(found, {key: models[key] for key in names}, disk.disk.size)


def check_content(found: bytes, want: bytes, disk: DiskModel, *, sized: bool) -> None:
    """The disk's bytes; where its size is not known, it ends with its last chunk.

    (A stream made of it has chunks on the grid, of which the last ends up to a MiB further on.)
    """
    if sized:
        assert len(found) == len(want), (len(found), len(want))
        assert found == want, first_difference(found, want)
        return
    grid = -(-disk.end // CHUNK_SECTORS) * CHUNK_SECTORS
    assert len(found) in {disk.disk.size, disk.end * SECTOR, grid * SECTOR}, len(found)
    common = min(len(found), len(want))
    assert found[:common] == want[:common], first_difference(found, want)


def first_difference(found: bytes, want: bytes) -> str:
    at = next(at for at, (a, b) in enumerate(zip(found, want, strict=False)) if a != b)
    return f"first difference at byte {at} (sector {at // SECTOR})"


def check_document(found: Json, want: dict[str, BitmapModel], size: int) -> None:
    """IMAGE.bitmaps.json."""
    assert (found["version"], found["virtual-size"]) == (1, size), found
    bitmaps = {bitmap["name"]: bitmap for bitmap in found["bitmaps"]}
    wanted = {name: bitmap.json() for name, bitmap in want.items()}
    assert bitmaps == wanted, (bitmaps, wanted)
