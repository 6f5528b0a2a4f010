"""Checking that the devices and bitmaps named in options are in the stream."""

from collections.abc import Collection, Iterable
from dataclasses import field
from typing import TYPE_CHECKING

from blkmig_cli.dataclass import dataclass
from blkmig_cli.errors import UsageError
from blkmig_cli.text import names_text, quote
from blkmig_cli.wire.events import BitmapChunk, Block, Event
from blkmig_cli.wire.hints import Hints

if TYPE_CHECKING:
    from blkmig_cli.checks.report import Report


#: A bitmap: its device and its name.
Key = tuple[str, str]


def split_bitmap(text: str) -> tuple[str | None, str]:
    """Split ``[DEVICE:]NAME`` at its first ``:``; the device is None where none is named."""
    device, colon, name = text.partition(":")
    return (device, name) if colon else (None, text)


def find_bitmaps(option: str, named: tuple[str | None, str], known: Collection[Key]) -> list[Key]:
    """Return those of the bitmaps ``known`` that match ``named`` (device and name) in ``option``.

    Without a device: those of this name, or the one that reports print as DEVICE/NAME.  Raises
    UsageError where there is none, or both.
    """
    device, name = named
    if device is not None:
        found = [key for key in known if key == named]
        printed: list[Key] = []
    else:
        found = [key for key in known if key[1] == name]
        printed = [key for key in known if "/".join(key) == name]
    meant = [*found, *(key for key in printed if key not in found)]
    if not meant:
        shown = name if device is None else ":".join((device, name))
        raise UsageError(
            f"{option}: no bitmap {quote(shown)}; there {_listed('bitmap', map('/'.join, known))}"
        )
    if len(meant) > len(found) > 0 or len(printed) > 1:
        raise UsageError(
            f"{option}: {quote(name)} may mean {', '.join(quote(':'.join(key)) for key in meant)}",
            hint="use DEVICE:NAME",
        )
    return meant


def find_device(option: str, device: str, known: Collection[str]) -> None:
    """Check that a ``device`` named in ``option`` is one of those ``known``; raises UsageError."""
    if device not in known:
        raise UsageError(f"{option}: no device {quote(device)}; there {_listed('device', known)}")


def _listed(noun: str, names: Iterable[str]) -> str:
    """Return ``is no device``, ``is the device 'a'``, ``are the devices 'a', 'b'``."""
    found = list(names)
    if len(found) < 2:
        return f"is the {noun} {quote(found[0])}" if found else f"is no {noun}"
    return f"are the {noun}s {names_text(found)}"


@dataclass(slots=True)
class Names:
    """The devices and bitmaps of all streams that were read.

    ``partly_read``: one of them could not be read to its end, so that no name is known to be missing.
    """

    devices: dict[str, None] = field(default_factory=dict)
    bitmaps: dict[Key, None] = field(default_factory=dict)
    partly_read: bool = False

    @classmethod
    def of(cls, *reports: "Report") -> "Names":
        """Return the names in ``reports``, one for each stream."""
        found = cls()
        for report in reports:
            found.add(report)
        return found

    def add(self, report: "Report") -> None:
        """Add the names in ``report``."""
        self.devices |= {verdict.disk.name: None for verdict in report.devices}
        for verdict in report.bitmaps:
            self.bitmaps[verdict.bitmap.device, verdict.bitmap.name] = None
        self.partly_read |= report.failure is not None

    def feed(self, event: Event) -> None:
        """Take the next event of a stream for which no report is made."""
        if isinstance(event, Block):
            self.devices[event.device] = None
            for part in event.bitmaps:
                self.bitmaps[event.device, part.name] = None
        elif isinstance(event, BitmapChunk):
            self.devices[event.device] = None
            self.bitmaps[event.device, event.bitmap] = None

    def check_devices(self, option: str, named: Iterable[str | None]) -> None:
        """Check the devices ``named`` in ``option`` (None: no device is named).

        Raises UsageError for one that no stream has.
        """
        for device in named:
            if device is not None and not self.partly_read:
                find_device(option, device, self.devices)

    def check_hints(self, hints: Hints) -> None:
        """Check the names in --device-size and --granularity.

        Raises UsageError for a device or bitmap that no stream has, and for an ambiguous bitmap.
        """
        self.check_devices("--device-size", [*hints.sizes, *hints.largest])
        for key in hints.granularities:
            if not self.partly_read:
                find_bitmaps("--granularity", key, self.bitmaps)
