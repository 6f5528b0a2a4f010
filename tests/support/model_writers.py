"""Commands that write disks and streams, compared with the model."""

import gzip
import lzma
from collections.abc import Iterable
from pathlib import Path

from tests.support import zstd
from tests.support.model_case import (
    Case,
    Outcome,
    check_image,
    first_difference,
    old_content,
    ragged,
    run,
    standard_input,
    unaligned,
    verdict_of,
)
from tests.support.model_wire import Block, encode


def packed(data: bytes, source: str) -> bytes:
    """``data``, compressed."""
    if source == "gzip":
        return gzip.compress(data, 1)
    if source == "xz":
        return lzma.compress(data, preset=0)
    return zstd.compress(data, 1)


def possible_statuses(case: Case, flag: str, *, sized: bool) -> set[int]:
    """Exit statuses of a replay with ``flag``; ``sized``: images of the disks' sizes are there."""
    found: set[int] = set()
    for bitmaps in case.model.whole_bitmaps:
        found |= _statuses(case, flag, bitmaps, sized=sized)
    return found


def _statuses(case: Case, flag: str, bitmaps: bool, *, sized: bool) -> set[int]:
    """The statuses if all ``bitmaps`` are whole, or not."""
    # Progress may contradict the image's size.
    contradicted = sized and not case.all_known and case.stream.progress in ("zero", "wild")
    if case.undecided:
        return {0, 1, 3, 4} if contradicted else {0, 1, 3}
    sure = (sized or case.all_known) and case.sane
    if contradicted:
        return {0, 1, 4}
    unwhole = not bitmaps and (sized or case.all_known)
    if flag == "--allow-incomplete":
        return {0} if sure and bitmaps else {0, 1}
    if flag == "--incremental":
        if unwhole:
            return {1}
        return {0} if sure else {0, 1}
    gaps = not case.whole_disks if sized else case.gaps
    if gaps or unwhole:
        return {1}
    return {0} if sure else {0, 1}


def snapshot(folder: Path) -> dict[str, bytes]:
    """The files in ``folder``, and their content."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def replay(case: Case, source: str, image: str, flag: str) -> None:
    """Onto new images or ones that hold something: the model's disks and bitmaps, or nothing."""
    folder = case.folder_of_step()
    words: list[object] = [f"--image={name}={folder / str(number)}"
                           for number, name in enumerate(case.named)]  # fmt: skip
    existing = image == "existing"
    if existing:
        for number, disk in enumerate(case.named.values()):
            (folder / str(number)).write_bytes(old_content(disk))
    else:
        words.append("--create")
    words += [*([flag] if flag else []), *case.reading, "-q"]
    before = snapshot(folder)
    outcome = replay_from(case, source, words)
    assert outcome.status in possible_statuses(case, flag, sized=existing), (flag, outcome)
    after = snapshot(folder)
    if outcome.status == 0:
        for number, name in enumerate(case.named):
            check_image(case, name, folder / str(number), existing=existing)
    elif case.undecided and outcome.status == 1:
        # Where only a granularity stays open, the disks are written.
        for number, name in enumerate(case.named):
            if not existing and (folder / str(number)).exists():
                check_image(case, name, folder / str(number))
    elif case.undecided and flag == "--allow-incomplete":
        pass  # what comes before the undecidable record is written
    elif source == "file":
        assert after == before, (outcome, sorted(after))
    else:
        names = [str(number) for number in range(len(case.named))]
        assert not any(f"{name}.bitmaps.json" in after for name in names), outcome
        assert existing or not any(name in after for name in names), outcome


def replay_from(case: Case, source: str, words: list[object]) -> Outcome:
    """Replay from a file, a pipe, or a compressed file."""
    if source == "file":
        return run("replay", case.path, *words)
    if source == "stdin":
        with standard_input(case.data):
            return run("replay", "-", *words)
    path = case.folder / f"s.{source}"
    path.write_bytes(packed(case.data, source))
    return run("replay", path, *words)


def convert(case: Case, dialect: str, container: str, way: str) -> None:
    """Convert to any dialect: the end state is the same, or the dialect cannot express it."""
    folder = case.folder_of_step()
    out = folder / "converted"
    held = case.stream.container if container == "same" else container
    disks_whole = case.whole_disks
    words = [f"--dialect={dialect}", f"--to={out}", "-q", *case.hinted]
    words += [word.replace("--dialect", "--from-dialect") for word in case.dialect]
    words += [] if container == "same" else [f"--container={container}"]
    words += ["--normalize"] if way == "normalize" else []
    words += [] if disks_whole else ["--incremental"]
    outcome = run("convert", case.path, *words)
    if outcome.status == 0:
        check_converted(case, out, dialect, incremental=not disks_whole)
        return
    assert not out.exists(), outcome
    bitmaps = bool(case.model.bitmaps)
    homeless = bitmaps and (dialect == "classic" or (dialect == "qemu" and held == "none"))
    possible = {2} if homeless else set()
    if case.undecided:
        possible |= {1, 3}
    if False in case.model.whole_bitmaps or not case.all_known or not case.sane:
        possible |= {1}
    if way != "normalize":
        carriers = {record.device for record in case.stream.records() if isinstance(record, Block)}
        owners = {device for device, _ in case.model.bitmaps}
        if held != case.stream.container or owners - carriers:
            possible |= {2}
    if held == "none" != case.stream.container and not case.plan.hinted:
        possible |= {2}  # sizes that bare records cannot state
    if any(map(ragged, case.content.values())):
        possible |= {1, 2}
    if dialect == "v2" and bitmaps and not case.model.final:
        possible |= {1, 2}  # v2's bits are final only at a last progress of 100
    if dialect == "qemu" and case.unnamed_bitmaps:
        possible |= {2, 4}
    assert outcome.status in possible, (words, outcome)


def check_converted(case: Case, out: Path, dialect: str, *, incremental: bool) -> None:
    """Check that a converted stream is as complete as the first, and has the same end state."""
    flags = [(bitmap.recording, bitmap.persistent) for bitmap in case.model.bitmaps.values()]
    lost = dialect == "v1" and any(flag != (True, False) for flag in flags)
    if dialect == "v1" and case.model.bitmaps and not case.all_known:
        return  # v1 is read with the size for which it was made, and nobody knows that
    by_hints = case.plan.hinted or (dialect == "v1" and case.model.bitmaps)
    words = case.hints(dialect) if by_hints else []
    meant = ["--incremental"] if incremental else []
    outcome = run("validate", out, "--output=json", *meant, *words)
    (report,) = outcome.json["streams"]
    verdict = verdict_of(report)
    if case.sane:
        assert verdict in (("whole",) if case.all_known else ("whole", "unknown")), report
    assert verdict != "damaged", report
    outcome = replay_made(case, out, case.named, *meant, *words)
    if case.all_known and case.sane:
        assert outcome.status == 0, outcome
    if outcome.status == 0:
        for number, name in enumerate(case.named):
            image = out.parent / str(number)
            check_image(case, name, image, existing=incremental, bitmaps=not lost)
    # Without its size, a disk may end further on in a stream whose chunks are on the grid.
    comparable = case.all_known or (case.trusted and not unaligned(case.stream))
    other = bool(case.dialect) and dialect != case.stream.dialect
    if comparable and not lost and not other and case.model.whole_bitmaps == {True}:
        if case.stream.dialect == "v1":
            words = case.hints("v1")
        outcome = run("compare", case.path, out, *meant, *case.dialect, *words)
        assert outcome.status == 0, outcome


def replay_made(case: Case, out: Path, names: Iterable[str], *words: str) -> Outcome:
    """Replay what a command has made: onto new images, with --incremental onto old ones."""
    old = "--incremental" in words
    options = [] if old else ["--create"]
    for number, (name, disk) in enumerate(case.named.items()):
        if name in names:
            image = out.parent / str(number)
            options.append(f"--image={name}={image}")
            if old:
                image.write_bytes(old_content(disk))
    return run("replay", out, *options, *words, "-q")


def salvage(case: Case, flag: str) -> None:
    """All of an undamaged stream is found, with the sizes from hints."""
    folder = case.folder_of_step()
    out = folder / "salvaged"
    outcome = run("salvage", case.path, f"--to={out}", "--output=json", "-q", *case.reading)
    # A bitmap that is not whole, or has no place in the new stream, is lost; so may be one of a disk
    # of unknown size, which its section would have to state.
    losing = case.unnamed_bitmaps or False in case.model.whole_bitmaps or not case.all_known
    losing &= bool(case.model.bitmaps)
    possible = {0, 1, 3} if case.undecided else {0, 1, 2, 3, 4} if losing else {0}
    assert outcome.status in possible, outcome
    if case.undecided or outcome.status > 1:
        return
    found = outcome.json
    assert found["intact"] is True, found
    assert losing or not found["lost-bitmaps"], found
    assert outcome.status == int(bool(found["lost-bitmaps"])), outcome
    names = [device["name"] for device in found["devices"]]
    assert set(case.content) <= set(names) <= set(case.named), found
    outcome = replay_made(case, out, names, flag)
    if case.all_known:
        assert outcome.status == 0, outcome
    if outcome.status == 0:
        devices = {bitmap["device"] for bitmap in found["lost-bitmaps"]}
        lost = {name for name in devices if not name or not case.known(name)}
        for number, name in enumerate(case.named):
            if name in names:
                image, old = folder / str(number), flag == "--incremental"
                check_image(case, name, image, existing=old, bitmaps=name not in lost)


def scrub(case: Case, _: str) -> None:
    """Not a byte changes but the padding, which is zero."""
    out = case.folder_of_step() / "scrubbed"
    outcome = run("scrub", case.path, f"--to={out}", "-q", *case.reading)
    if case.all_known and case.trusted:
        assert outcome.status == 0, outcome
    elif case.trusted:
        assert outcome.status in (0, 3), outcome
    assert out.exists() == (outcome.status == 0)
    if out.exists():
        want = encode(case.stream, scrubbed=True)
        found = out.read_bytes()
        assert len(found) == len(want), (len(found), len(want))
        assert found == want, first_difference(found, want)
