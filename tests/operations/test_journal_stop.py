"""What a journal keeps of the end of an incomplete stream."""

from pathlib import Path

import pytest

from blkmig_cli.checks.catalogue import Finding
from blkmig_cli.disks.neighbours import neighbours_of
from blkmig_cli.operations.replay.journal import Entry, Stop, read_journal, write_journal
from tests.conftest import Run
from tests.support import raw


def test_its_length_is_bounded(tmp_path: Path) -> None:
    """The first findings and bitmaps, each cut to a length; bounds of the size are exact."""
    findings = tuple(Finding("missing-chunks", "error", f"{at}" + "x" * 500) for at in range(20))
    names = tuple(f"{at:03}" + "n" * 300 for at in range(40))
    stop = Stop(512, None, 4096, damaged=True, findings=findings, bitmaps=names)
    neighbours = neighbours_of(str(tmp_path / "disk"))
    write_journal(neighbours, Entry(state="incomplete", new=True, size=None, stop=stop))
    entry = read_journal(neighbours)
    assert entry is not None
    assert entry.stop is not None
    kept = entry.stop
    assert (kept.least, kept.most, kept.end, kept.damaged) == (512, None, 4096, True)
    assert [found.message for found in kept.findings] == [
        found.message[:400] for found in findings[:8]
    ]
    assert kept.bitmaps == tuple(name[:255] for name in names[:32])


@pytest.mark.parametrize("number", [100, 300])
@pytest.mark.parametrize("changed", [None, 3, 40])
def test_zeros_of_runs_are_compared(
    run: Run, tmp_path: Path, number: int, changed: int | None
) -> None:
    """An image that was changed where the earlier run wrote zeros is not continued."""
    stream, image = tmp_path / "s.bin", tmp_path / "x"
    zeros = b"".join(raw.block(at * 2048, 8) for at in range(number))
    whole = raw.qemu(zeros, raw.block(number * 2048, 0, rest=b"x" * raw.CHUNK))
    stream.write_bytes(whole)
    part = whole.index(raw.word(number * 2048, 1)) + 5000
    first = run("replay", f"exec:head -c {part} {stream}", "--image", image, "--create")
    assert first.status == 3
    with open(f"{image}.partial", "r+b") as file:
        if changed is not None:
            file.seek(changed * raw.CHUNK)
            file.write(b"\1" * (3 * raw.CHUNK))
    again = run("replay", stream, "--image", image, "--create", "--resume")
    assert again.status == (0 if changed is None else 4), again
    assert changed is None or "are not what was written" in again.err
