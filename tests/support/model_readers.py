"""Commands that read a stream and report on it, compared with the model."""

import json
from pathlib import Path

from tests.support.model import DATA, MISSING, ZERO, DiskModel
from tests.support.model_case import (
    STATUS,
    Case,
    Json,
    check_content,
    check_document,
    ranges,
    run,
    verdict_of,
)
from tests.support.model_wire import CHUNK, SECTOR


def possible_verdicts(case: Case, *, incremental: bool) -> set[str]:
    """Return the verdicts that are right for the stream."""
    found: set[str] = set()
    for bitmaps in case.model.whole_bitmaps:
        found |= _verdicts(case, bitmaps, incremental=incremental)
    return found


def _verdicts(case: Case, bitmaps: bool, *, incremental: bool) -> set[str]:
    """The verdicts if all ``bitmaps`` are whole, or not."""
    whole = bitmaps and (incremental or case.whole_disks)
    if case.undecided:
        # Refused, or read as it is.
        return {"damaged", "unknown", "incomplete", *(["whole"] if whole else [])}
    if (case.gaps and not incremental) or (not bitmaps and case.all_known):
        return {"incomplete"}
    if case.all_known:
        left_out = incremental and case.trusted and case.stream.progress == "skipped"
        return {"whole"} if case.sane or left_out else {"whole", "faulty", "incomplete"}
    found = {"unknown"}
    if whole:
        found.add("whole")
    if not whole or not case.trusted or (incremental and case.stream.progress == "abandoned"):
        found.add("incomplete")
    if case.stream.progress in ("zero", "wild"):
        return {*found, "whole", "faulty"}
    return found if case.trusted else {*found, "faulty"}


def check_devices(case: Case, report: Json) -> None:
    """Chunks, sizes and what is missing, device by device."""
    assert {device["name"] for device in report["devices"]} == set(case.named), report
    for device in report["devices"]:
        disk = case.model.disks[device["name"]]
        chunks = (device["chunks"], device["zero-chunks"])
        assert chunks == (disk.chunks, disk.zero_chunks), device
        bounds = device["inferred-size"]
        if case.known(device["name"]):
            assert device["size"] == disk.disk.size, device
            missing = disk.missing() if disk.has_content else []
            assert ranges(device["missing"]) == missing, device
        elif case.trusted:
            assert bounds["min"] <= disk.disk.size <= (bounds["max"] or disk.disk.size), device
        if case.plan.hinted:
            assert device["repeated-chunks"] == disk.repeated, (device, disk.repeated)


def check_bitmaps(case: Case, report: Json) -> None:
    """Check what the report says of the bitmaps."""
    found = {(bitmap["device"], bitmap["name"]): bitmap for bitmap in report["bitmaps"]}
    assert set(found) == set(case.model.bitmaps)
    for key, bitmap in case.model.bitmaps.items():
        if not case.known(bitmap.device):
            continue
        want, whole = bitmap.json(), case.model.whole_bitmap(bitmap)
        assert found[key]["complete"] == whole or whole is None, found[key]
        for name in ("granularity", "recording", "persistent", *(["count"] if whole else [])):
            assert found[key][name] == want[name], (name, found[key], want)


def validate(case: Case, flag: str) -> None:
    words = [flag] if flag else []
    outcome = run("validate", case.path, "--output=json", *words, *case.reading)
    (report,) = outcome.json["streams"]
    verdict = verdict_of(report)
    assert outcome.status == STATUS[verdict], outcome
    assert verdict in possible_verdicts(case, incremental=flag == "--incremental"), report
    if verdict != "damaged":
        check_devices(case, report)
        check_bitmaps(case, report)


def validate_image(case: Case, change: str) -> None:
    """Images of the end state hold the same; one byte more or less does not."""
    folder, images = case.folder_of_step(), []
    for number, (name, disk) in enumerate(case.content.items()):
        content = changed(disk, change if number == 0 else "same")
        if content is None:
            return
        path = folder / str(number)
        path.write_bytes(content)
        images.append(f"--image={name}={path}")
    if not images or case.undecided:
        return
    words = ["validate", case.path, "--output=json", "--incremental", *images, *case.reading]
    outcome = run(*words)
    (report,) = outcome.json["streams"]
    differs = [found["device"] for found in report["findings"] if found["id"] == "image-differs"]
    assert differs == ([next(iter(case.content))] if change == "differs" else []), report
    assert outcome.status == STATUS[verdict_of(report)], outcome
    if differs:
        assert outcome.status == 1
    elif case.model.whole_bitmaps == {True} and case.stream.progress in (
        "none",
        "true",
        "silent",
        "skipped",
    ):
        assert outcome.status == 0, report


def changed(disk: DiskModel, change: str) -> bytes | None:
    """The disk's content: the ``same``, or with a byte changed where something came (``differs``) or
    where nothing did (``elsewhere``); None where there is no such place."""
    content = bytearray(disk.content)
    if change != "same":
        places = [kind == MISSING for kind in disk.kinds]
        wanted = change == "elsewhere"
        if wanted not in places:
            return None
        last = len(places) - 1 - places[::-1].index(wanted)
        content[last * SECTOR + 300] ^= 1
    return bytes(content)


def extract(case: Case, flag: str) -> None:
    """Each disk, by itself."""
    for name, disk in case.content.items():
        path = case.folder_of_step() / "disk"
        words = ["--to", path, "-q", f"--device={name}", *([flag] if flag else [])]
        outcome = run("extract", case.path, *words, *case.reading)
        if case.undecided:
            assert outcome.status in (0, 1, 3), outcome
        elif case.gap(name) and not flag:
            assert outcome.status == 1
        elif (
            case.all_known
            and case.sane
            and (flag or (case.whole_disks and case.model.whole_bitmaps == {True}))
        ):
            assert outcome.status == 0, outcome
        else:
            assert outcome.status in (0, 1), outcome
        if outcome.status == 3 and flag:
            continue  # what comes before the undecidable record may be written
        assert path.exists() == (outcome.status == 0), outcome
        if path.exists():
            check_content(path.read_bytes(), bytes(disk.content), disk, sized=case.known(name))


def extract_bitmap(case: Case, _: str) -> None:
    """Each bitmap, by itself."""
    for (device, name), bitmap in case.model.bitmaps.items():
        path = case.folder_of_step() / "bitmap"
        words = ["--to", path, "-q", f"--bitmap={device}:{name}", *case.reading]
        outcome = run("extract", case.path, *words)
        if case.undecided:
            assert outcome.status in (0, 1, 3), outcome
        elif not case.known(device):
            assert outcome.status in (0, 1)
        else:
            whole = case.model.whole_bitmap(bitmap)
            assert outcome.status == (0 if whole else 1) or whole is None, outcome
        assert path.exists() == (outcome.status == 0), outcome
        if path.exists() and case.known(device):
            size = case.model.disks[device].disk.size
            check_document(json.loads(path.read_text()), {name: bitmap}, size)


def map_disks(case: Case, _: str) -> None:
    """Extents touch, cover the disk, and say of each sector what came, and where its data is."""
    outcome = run("map", case.path, "--output=json", *case.reading)
    assert outcome.status in ((0, 3) if case.undecided else (0,)), outcome
    if outcome.status:
        return
    devices = {device["name"]: device for device in outcome.json["devices"]}
    assert set(devices) == set(case.named)
    for name, disk in case.content.items():
        kinds, times, at = bytearray(), bytearray(), 0
        for extent in devices[name]["extents"]:
            assert extent["start"] == at
            assert extent["length"] % SECTOR == 0
            at += extent["length"]
            sectors = extent["length"] // SECTOR
            kind = DATA if extent["data"] else ZERO if extent["zero"] else MISSING
            assert extent["present"] == (kind != MISSING)
            kinds += bytes([kind]) * sectors
            times += bytes([extent["repeated"]]) * sectors
            if kind == DATA:
                check_place(case, disk, extent)
        if case.known(name):
            assert kinds == disk.kinds
            assert times == bytes(count > 1 for count in disk.times)
        else:
            common = min(len(kinds), disk.disk.sectors)
            assert kinds[:common] == disk.kinds[:common]
            assert not any(disk.kinds[common:])
    if case.all_known:
        for device in devices.values():
            check_map_bitmaps(case, device)


def check_place(case: Case, disk: DiskModel, extent: Json) -> None:
    """The stream holds an extent's data where the extent says."""
    start, end = extent["start"], extent["start"] + extent["length"]
    offset = extent["offset"]
    for low in range(start, end, CHUNK):
        high = min(low + CHUNK, end, disk.disk.size)
        want = disk.content[low:high]
        assert case.data[offset : offset + len(want)] == want, extent
        offset += extent.get("stride", 0)


def check_map_bitmaps(case: Case, device: Json) -> None:
    bitmaps = case.model.bitmaps_of(device["name"])
    assert {found["name"] for found in device["bitmaps"]} == set(bitmaps)
    for found in device["bitmaps"]:
        bitmap = bitmaps[found["name"]]
        if case.model.whole_bitmap(bitmap):
            assert ranges(found["dirty"]) == bitmap.ranges


def compare(case: Case, change: str, flag: str, beside: str) -> None:
    """Compare the stream with an image of its end state, or of something else."""
    for name, disk in case.content.items():
        content = changed(disk, change)
        if content is None:
            continue
        path = case.folder_of_step() / "image"
        path.write_bytes(content)
        bitmaps = case.model.bitmaps_of(name)
        same_bitmaps = True
        if beside != "none":
            document = case.model.document(name)
            wholes = [case.model.whole_bitmap(bitmap) for bitmap in bitmaps.values()]
            if None in wholes:
                continue
            same_bitmaps = all(wholes)
            if beside == "other" and bitmaps:
                document["bitmaps"][0]["recording"] ^= True
                same_bitmaps = False
            Path(f"{path}.bitmaps.json").write_text(json.dumps(document))
        words = [*([flag] if flag else []), *case.reading]
        outcome = run("compare", case.path, f"{name}={path}", *words)
        if case.undecided:
            assert outcome.status in (0, 1, 3), outcome
            continue
        if not case.known(name) and not case.trusted:
            continue  # its progress may exclude the image's size
        whole = case.model.whole_disk(name) or flag == "--incremental"
        same = whole and same_bitmaps and change != "differs"
        assert outcome.status == int(not same), (change, flag, beside, outcome)
