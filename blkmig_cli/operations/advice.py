"""Suggested next steps for a stream that has been read: reasons, and shell commands.

The commands overwrite nothing: files to be written have names that do not exist yet.
"""

import os
import re
import shlex
from bisect import bisect_left
from collections.abc import Iterable, Sequence

from blkmig_cli.checks.report import DeviceVerdict, Report
from blkmig_cli.dataclass import dataclass
from blkmig_cli.errors import UndecidableError
from blkmig_cli.operations.reading import Reading
from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.text import bitmap_name, few, quote, size_range
from blkmig_cli.wire.v1.layout import describe

_STDIN = "STREAM"
_UNITS = ((30, "G"), (20, "M"), (10, "K"))


@dataclass(frozen=True, slots=True)
class Step:
    """A reason, and the shell command; None where no command of blkmig applies."""

    why: str
    command: str | None = None


_UNWRITABLE = Step("names of its devices cannot be written on a command line")


def next_steps(
    report: Report, argument: str, options: Sequence[str] = (), *, rest: bool = False
) -> list[Step]:
    """Return the next steps for the stream of ``report``, the most useful first.

    ``argument``: the STREAM as specified; ``options``: those with which it was read, see
    :func:`reading_options`.  ``rest``: it is what is left of an interrupted one.
    """
    stream, new_name = _STDIN if argument == "-" else _word(argument), _NewNames()
    chosen = " ".join([stream, *options])
    disks = [device for device in report.devices if device.disk.has_blocks]
    if isinstance(report.failure, UndecidableError):
        return [Step("the stream can be read in more than one way", _decided(report, chosen))]
    if report.failure is not None:
        if not report.devices and not report.bitmaps:
            return []
        target = new_name("salvaged", ".bin")
        why = "to write what is intact as a stream of its own"
        return [Step(why, f"blkmig salvage {chosen} --to {target}")]
    steps = []
    found = {finding.id for finding in report.findings}
    if "bulk-unfinished" in found:
        why = "the capture is incomplete: capture again, with QEMU's downtime-limit at 0"
        if any(device.size.source == "option" for device in disks):
            why = "the capture is incomplete, unless --device-size is too large: capture again"
        steps.append(Step(why))
    open_sizes = [disk for disk in disks if disk.size.exact is None]
    if open_sizes:
        steps.append(_sized(chosen, open_sizes))
    for verdict in report.bitmaps:
        if verdict.bitmap.granularity is None:
            bitmap = verdict.bitmap
            key = f"{bitmap.device}:{bitmap.name}"
            why = (
                f"the granularity of {bitmap_name(bitmap.device, bitmap.name)} is unknown "
                f"({describe(verdict.candidates)})"
            )
            command = f"blkmig info {chosen} --granularity {_word(key)}=SIZE"
            steps.append(Step(why, command if _typed(key) else None))
    if "padding-leak" in found:
        why = "the padding after a disk's end has other data: to remove it"
        steps.append(Step(why, f"blkmig scrub {chosen} --to {new_name('clean', '.bin')}"))
    if (disks or report.bitmaps) and "sector-past-end" not in found:
        increment = report.identity is not None and report.identity.incremental
        if rest and report.devices:
            steps += _rest(report, chosen)
        elif increment and disks:
            steps += _increment(report, stream, chosen, disks)
        else:
            steps.append(_replay(report, chosen, disks, new_name))
    if report.dialect in ("v1", "v2") and report.complete is not False:
        command = f"blkmig convert {chosen} --normalize --to {new_name('new', '.bin')}"
        steps.append(Step(f"no QEMU reads dialect {report.dialect}: to load it with one", command))
    return steps


def reading_options(reading: Reading) -> list[str]:
    """Return the options with which streams are read, other than the usual ones, as words for a shell."""
    words = []
    if reading.dialect != "auto":
        words.append(f"--dialect {reading.dialect}")
    if reading.container != "auto":
        words.append(f"--container {reading.container}")
    sizes: dict[str | None, str] = {name: _size(size) for name, size in reading.hints.sizes.items()}
    for device, text in (sizes | dict.fromkeys(reading.hints.largest, "max")).items():
        if device is None or _typed(device):
            words.append(f"--device-size {_assigned(device, text)}")
    for (device, bitmap), granularity in reading.hints.granularities.items():
        name = bitmap if device is None else f"{device}:{bitmap}"
        if _typed(name):
            words.append(f"--granularity {_assigned(name, _size(granularity))}")
    return words


def _assigned(name: str | None, value: str) -> str:
    return value if name is None else f"{_word(name)}={value}"


def _size(size: int) -> str:
    """Return a size in bytes as it is typed."""
    return next(
        (f"{size >> shift}{unit}" for shift, unit in _UNITS if size and not size % (1 << shift)),
        str(size),
    )


def _decided(report: Report, stream: str) -> str:
    bitmaps = [verdict.bitmap for verdict in report.bitmaps]
    key = next((f"{bitmap.device}:{bitmap.name}" for bitmap in bitmaps), "[DEVICE:]NAME")
    return f"blkmig info {stream} --granularity {_word(key)}=SIZE"


def _sized(stream: str, disks: list[DeviceVerdict]) -> Step:
    ranges = [(disk.disk.name, size_range(disk.size.least, disk.size.most)) for disk in disks]
    if len(ranges) == 1:
        why = f"size of {quote(ranges[0][0])} is unknown ({ranges[0][1]})"
    else:
        why = f"sizes are unknown: {few(f'{quote(name)} ({known})' for name, known in ranges)}"
    options = dict.fromkeys(_size_option(name) for name, _ in ranges)
    return Step(why, " ".join([f"blkmig validate {stream}", *options]))


def _size_option(name: str) -> str:
    return f"--device-size {_word(name)}=SIZE" if _typed(name) else "--device-size SIZE"


def _replay(report: Report, stream: str, disks: list[DeviceVerdict], new_name: "_NewNames") -> Step:
    words = [f"blkmig replay {stream}"]
    owners = [device for device in report.devices if device.disk.has_blocks or not disks]
    names = [device.disk.name for device in owners]
    if not disks:
        words.append("--bitmaps-only")
    option = "--image" if disks else "--bitmaps-to"
    files = _files(names, ".img" if disks else ".bitmaps.json", new_name)
    for name, file in zip(names, files, strict=True):
        device = _device(name)
        if len(names) == 1 and not device:
            words.append(f"{option} {file}")
        elif device is None:
            return _UNWRITABLE
        else:
            words.append(f"{option} {_word(f'{device}={file}')}")
    if not disks:
        return Step("to write the bitmaps into files", " ".join(words))
    words.append("--create")
    incomplete = report.complete is False
    if incomplete:
        words.append("--allow-incomplete")
    for disk in disks:
        end = disk.disk.covered.end * SECTOR_SIZE
        if disk.size.exact is None and not disk.size.allows(end):
            words.append(_size_option(disk.disk.name))
    what = "what was sent of the disks" if incomplete else "the disks"
    why = f"to write {what} into images" + (", with their bitmaps" if report.bitmaps else "")
    return Step(why, " ".join(words))


def _increment(report: Report, stream: str, chosen: str, disks: list[DeviceVerdict]) -> list[Step]:
    """Return the steps for an increment, which needs its base; ``chosen``: with options for reading it."""
    assert report.identity is not None
    base = report.identity.base
    command = _onto_images(chosen, disks)
    if command is None:
        return [_UNWRITABLE]
    holding = "its base" if base is None else f"the stream {base}"
    return [
        Step(f"to apply the changes to images that hold {holding}", command),
        Step("to make one stream of it and its base", f"blkmig fold BASE {stream} --to TARGET"),
    ]


def _rest(report: Report, stream: str) -> list[Step]:
    """Return the step for what is left of an interrupted stream."""
    command = _onto_images(stream, report.devices)
    if command is None:
        return [_UNWRITABLE]
    why = "to complete the images that have received the first part"
    return [Step(why, f"{command} --resume")]


def _onto_images(stream: str, devices: Iterable[DeviceVerdict]) -> str | None:
    """Return the command that applies a stream to existing images; None where it cannot be written."""
    words = [f"blkmig replay {stream}"]
    for found in devices:
        device = _device(found.disk.name)
        if device is None:
            return None
        words.append("--image IMAGE" if not device else f"--image {_word(f'{device}=IMAGE')}")
    return " ".join(words)


def _files(names: list[str], suffix: str, new_name: "_NewNames") -> list[str]:
    """Return a safe file name for each device."""
    bases = [re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[:40] for name in names]
    return [new_name(base or "disk", suffix) for base in bases]


class _NewNames:
    """File names that no file in the current folder has, or begins with.

    A file that begins with one may be the journal or the bitmaps of such an image.
    """

    def __init__(self) -> None:
        try:
            self._taken = sorted(os.listdir())
        except OSError:
            self._taken = []
        self._made: set[str] = set()
        self._numbers: dict[tuple[str, str], int] = {}

    def __call__(self, base: str, suffix: str) -> str:
        """Return a name of ``base`` and ``suffix``, with a number between them if necessary."""
        while True:
            number = self._numbers[base, suffix] = self._numbers.get((base, suffix), 0) + 1
            name = f"{base}{suffix}" if number == 1 else f"{base}-{number}{suffix}"
            at = bisect_left(self._taken, name)
            taken = at < len(self._taken) and self._taken[at].startswith(name)
            if not taken and name not in self._made:
                self._made.add(name)
                return name


def _typed(name: str) -> bool:
    """Return whether ``name`` can be used in a command as it is."""
    return name.isprintable()


def _device(name: str) -> str | None:
    """Return a device's name for ``DEVICE=...``, None where it cannot be used there."""
    return name if _typed(name) and not set("=/") & set(name) else None


def _word(text: str) -> str:
    """Return ``text`` as one word for a shell."""
    if text.isprintable():
        return shlex.quote(text)
    raw = text.encode("utf-8", "surrogateescape")
    return "$'" + "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}" for byte in raw
    ) + "'"  # fmt: skip
