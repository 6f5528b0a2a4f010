"""What a journal keeps of the end of an incomplete stream."""

from pathlib import Path

from blkmig_cli.checks.report import Finding
from blkmig_cli.disks.neighbours import neighbours_of
from blkmig_cli.operations.replay.journal import Entry, Stop, read_journal, write_journal


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
