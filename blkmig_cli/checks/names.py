"""What options name must be in the stream: a device or bitmap that is not there is a usage error."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from blkmig_cli.checks.report import Report
from blkmig_cli.errors import UsageError
from blkmig_cli.text import quote
from blkmig_cli.wire.events import BitmapChunk, Block, Event
from blkmig_cli.wire.hints import Hints

_SHOWN = 8

#: A bitmap: its device and its name.
Key = tuple[str, str]


def bitmaps_meant(device: str | None, name: str, known: Iterable[Key]) -> list[Key]:
    """Return those of the bitmaps ``known`` that ``[DEVICE:]NAME`` in an option means.

    Without ``device``: those called ``name``, and the one that reports print as DEVICE/NAME.
    """
    if device is not None:
        return [key for key in known if key == (device, name)]
    return [key for key in known if name in (key[1], "/".join(key))]


@dataclass(slots=True)
class Names:
    """The devices and bitmaps of all streams that were read.

    ``partly_read``: one of them could not be read to its end, so that nothing is known to be missing.
    """

    devices: dict[str, None] = field(default_factory=dict)
    bitmaps: dict[Key, None] = field(default_factory=dict)
    partly_read: bool = False

    @classmethod
    def of(cls, *reports: Report) -> "Names":
        """Return the names in ``reports``, one for each stream."""
        found = cls()
        for report in reports:
            found.devices |= {verdict.disk.name: None for verdict in report.devices}
            for verdict in report.bitmaps:
                found.bitmaps[verdict.bitmap.device, verdict.bitmap.name] = None
            found.partly_read |= report.failure is not None
        return found

    def feed(self, event: Event) -> None:
        """Take the next event of a stream of which no report is made."""
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
            if not (device is None or device in self.devices or self.partly_read):
                raise UsageError(
                    f"{option}: no device {quote(device)}; the stream has "
                    f"{_listed('device', self.devices)}"
                )

    def check_hints(self, hints: Hints) -> None:
        """Check what --device-size and --granularity name.

        Raises UsageError for a device or bitmap that no stream has, or that may be one of two.
        """
        self.check_devices("--device-size", [*hints.sizes, *hints.largest])
        self.check_devices("--granularity", (device for device, _ in hints.granularities))
        for device, name in hints.granularities:
            meant = bitmaps_meant(device, name, self.bitmaps)
            if not meant and not self.partly_read:
                raise UsageError(
                    f"--granularity: no bitmap {quote(name)}; the stream has "
                    f"{_listed('bitmap', map('/'.join, self.bitmaps))}"
                )
            if len({key[1] == name for key in meant}) > 1:
                raise UsageError(
                    f"--granularity: {quote(name)} may be {_listed('bitmap', map('/'.join, meant))}",
                    hint="use DEVICE:NAME",
                )


def _listed(noun: str, names: Iterable[str]) -> str:
    found = list(names)
    if not found:
        return f"no {noun}s"
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    plural = "s" if len(found) > 1 else ""
    return f"the {noun}{plural} {', '.join(map(quote, found[:_SHOWN]))}{more}"
