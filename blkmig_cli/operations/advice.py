"""What to do next with a stream, once it has been read: reasons, and commands that can be typed."""

import re
import shlex
from dataclasses import dataclass

from blkmig_cli.checks.checker import DeviceVerdict, Report
from blkmig_cli.errors import UndecidableError
from blkmig_cli.text import human_size
from blkmig_cli.wire.v1_layout import describe

_STDIN = "STREAM"


@dataclass(frozen=True, slots=True)
class Step:
    """A reason, and the command for a shell; None where no command of ours helps."""

    why: str
    command: str | None = None


def next_steps(report: Report, argument: str, number: int | None = None) -> list[Step]:
    """What helps with the stream of ``report``, the most useful first.

    ``argument``: the STREAM as it was given; ``number``: which of several in it.
    """
    stream = _STDIN if argument == "-" else _word(argument)
    chosen = stream if number is None else f"{stream} --stream {number}"
    found = {finding.id for finding in report.findings}
    disks = [device for device in report.devices if device.disk.has_blocks]
    if isinstance(report.failure, UndecidableError):
        return [Step("the stream can be read in more than one way", _decided(report, stream))]
    if report.failure is not None:
        if not report.devices and not report.bitmaps:
            return []
        why = "what is sound can be had as a stream of its own"
        return [Step(why, f"blkmig salvage {chosen} --to salvaged.bin")]
    steps = []
    if "bulk-unfinished" in found:
        steps.append(
            Step("half of it was never sent: capture again, with QEMU's downtime-limit at 0")
        )
    steps += [_sized(stream, disk) for disk in disks if disk.size.exact is None]
    for verdict in report.bitmaps:
        if verdict.bitmap.granularity is None:
            key = f"{verdict.bitmap.device}:{verdict.bitmap.name}"
            why = f"{verdict.bitmap.name} has a granularity of {describe(verdict.candidates)}"
            command = f"blkmig info {stream} --granularity {_word(key)}=SIZE"
            steps.append(Step(why, command if _typed(key) else None))
    if "padding-leak" in found:
        why = "it carries foreign data behind a disk's end: before you give it away"
        steps.append(Step(why, f"blkmig scrub {chosen} --to clean.bin"))
    if disks or report.bitmaps:
        steps.append(_replay(report, chosen, disks))
    if report.dialect in ("v1", "v2") and report.complete is not False:
        command = f"blkmig convert {chosen} --normalize --to new.bin"
        steps.append(Step(f"no QEMU reads dialect {report.dialect}; to load it with one", command))
    return steps


def _decided(report: Report, stream: str) -> str:
    bitmaps = [verdict.bitmap for verdict in report.bitmaps]
    key = next((f"{bitmap.device}:{bitmap.name}" for bitmap in bitmaps), "[DEVICE:]NAME")
    return f"blkmig info {stream} --granularity {_word(key)}=SIZE"


def _sized(stream: str, disk: DeviceVerdict) -> Step:
    name = _device(disk.disk.name)
    most = "?" if disk.size.most is None else human_size(disk.size.most)
    why = f"the disk's size is not in the stream ({human_size(disk.size.least)} to {most})"
    option = "--device-size SIZE" if name is None else f"--device-size {_word(name)}=SIZE"
    return Step(why, f"blkmig validate {stream} {option}")


def _replay(report: Report, stream: str, disks: list[DeviceVerdict]) -> Step:
    words = [f"blkmig replay {stream}"]
    owners = [device for device in report.devices if device.disk.has_blocks or not disks]
    names = [device.disk.name for device in owners]
    if not disks:
        words.append("--bitmaps-only")
    option = "--image" if disks else "--bitmaps-to"
    files = _files(names, "img" if disks else "bitmaps.json")
    for name, file in zip(names, files, strict=True):
        device = _device(name)
        if len(names) == 1 and device is None:
            words.append(f"{option} {file}")
        elif device is None:
            return Step("its devices have names that no command line can say")
        else:
            words.append(f"{option} {_word(f'{device}={file}')}")
    if disks:
        words.append("--create")
        missing = any(device.missing for device in disks)
        if missing:
            words.append("--allow-incomplete")
        why = "what came of the disks, as images" if missing else "the disks, as images"
        return Step(why + (" with their bitmaps" if report.bitmaps else ""), " ".join(words))
    return Step("the bitmaps, as files", " ".join(words))


def _files(names: list[str], suffix: str) -> list[str]:
    """A harmless and distinct file name for each device."""
    files: list[str] = []
    for name in names:
        base = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[:40] or "disk"
        file, number = f"{base}.{suffix}", 2
        while file in files:
            file, number = f"{base}-{number}.{suffix}", number + 1
        files.append(file)
    return files


def _typed(name: str) -> bool:
    """Can ``name`` stand in a command as it is?"""
    return bool(name) and name.isprintable()


def _device(name: str) -> str | None:
    """A device's name for ``DEVICE=...``, None where it cannot be said so."""
    return name if _typed(name) and not set("=/") & set(name) else None


def _word(text: str) -> str:
    """``text`` as one word for a shell."""
    if text.isprintable():
        return shlex.quote(text)
    raw = text.encode("utf-8", "surrogateescape")
    return "$'" + "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}" for byte in raw
    ) + "'"  # fmt: skip
