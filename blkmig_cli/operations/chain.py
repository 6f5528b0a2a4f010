"""A base and its increments, in order, read as one stream; or increments alone, as one increment."""

from dataclasses import replace
from typing import TYPE_CHECKING

from blkmig_cli.checks.judge import found as finding
from blkmig_cli.checks.report import DeviceVerdict, Report
from blkmig_cli.checks.survey import Contents, source_of_data
from blkmig_cli.contents.final_layout import EndState, EndStates
from blkmig_cli.contents.layers import Layers
from blkmig_cli.errors import IncompleteError
from blkmig_cli.ranges import ByteRanges, IntervalSet
from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.text import escape, human_size, quote
from blkmig_cli.wire.identity import DiskIdentity, Identity

if TYPE_CHECKING:
    from collections.abc import Iterator


class Chain:
    """Streams on top of each other, added from the lowest to the highest.

    Of the streams that were added, only the layout of their disks is held, and all of the last one.
    """

    def __init__(self) -> None:
        self._layers = Layers()
        self._first: Identity | None = None
        self._last: Contents | None = None
        self._disks: dict[str, DiskIdentity] = {}

    def add(self, contents: Contents) -> None:
        """Add a stream, which must be an increment of the one before.

        Raises the error that ended its reading, if any; IncompleteError where it has a fault, has no
        identity, or does not belong on the one before; UsageError for a pipe.
        """
        identity = _sound(contents)
        if self._last is not None:
            self._check_link(identity, contents)
        else:
            self._first = identity
        layouts = contents.states.disks
        sizes = {device: disk.size for device, disk in identity.disks.items()}
        complete = frozenset(device for device in sizes if not identity.has_gaps(device))
        end = contents.checker.state.end
        self._layers.add(source_of_data(contents.stream), end, layouts, sizes, complete)
        self._disks = {
            device: self._merged(device, disk) for device, disk in identity.disks.items()
        }
        self._last = contents

    def contents(self) -> Contents:
        """Return the content of all streams, with the bitmaps of the last one."""
        assert self._last is not None
        assert self._first is not None
        last, identity = self._last, self._last.report.identity
        assert identity is not None
        identity = replace(
            identity,
            base=self._first.base,
            incremental=self._first.incremental,
            disks=self._disks,
        )
        report = _judged(replace(last.report, identity=identity), self._layers.disks)
        states = EndStates(self._layers.disks)
        return Contents(last.stream, last.checker, report, states, self._layers.source)

    def _merged(self, device: str, disk: DiskIdentity) -> DiskIdentity:
        """Return what is stated of a disk by all streams so far."""
        below = self._disks.get(device)
        if below is None or disk.full:
            return disk
        return replace(disk, full=below.full, since=below.since)

    def _check_link(self, identity: Identity, contents: Contents) -> None:
        """Raise IncompleteError where the next stream does not belong on the last one."""
        assert self._last is not None
        last, name = self._last.report.identity, escape(contents.stream.name)
        assert last is not None
        below = escape(self._last.stream.name)
        if not identity.incremental:
            raise _misfit(f"{name} is not an increment, and cannot be put onto {below}")
        if identity.base != last.id:
            base = "states no base" if identity.base is None else f"has the base {identity.base}"
            raise _misfit(f"{name} {base}, and {below} is {last.id}")
        for device, disk in identity.disks.items():
            before = self._disks.get(device)
            if disk.full:
                continue
            if before is None:
                raise _misfit(
                    f"{name} is an increment of {quote(device)}, which {below} does not have"
                )
            mark = last.disks[device].mark
            if None not in (mark, disk.since) and mark != disk.since:
                raise _misfit(
                    f"{name} has the changes of {quote(device)} since {quote(disk.since or '')}, and "
                    f"{below} was marked {quote(mark or '')}"
                )
            covered = contents.checker.state.disk(device).covered
            old, new = before.size // SECTOR_SIZE, disk.size // SECTOR_SIZE
            if old < new and not covered.covers(old, new):
                raise _misfit(
                    f"{name}: {quote(device)} has grown to {disk.size} bytes, and not all of the new "
                    "part is in the stream"
                )


def _sound(contents: Contents) -> Identity:
    """Return the identity of a stream without faults; raises as :meth:`Chain.add`."""
    report, name = contents.report, escape(contents.stream.name)
    report.check_read()
    for found in report.counting():
        raise IncompleteError(
            f"{name} is {report.verdict}: {found.message}",
            offset=found.offset,
            device=found.device,
            check=found.id,
        )
    if report.identity is None:
        raise _misfit(f"{name} has no identity, so that nothing shows what it belongs to")
    return report.identity


def _misfit(message: str) -> IncompleteError:
    return IncompleteError(message, check="wrong-base")


def _judged(report: Report, layouts: dict[str, EndState]) -> Report:
    """Return the report on the last of several streams for the disks of all of them."""
    identity = report.identity
    assert identity is not None
    findings = [found for found in report.findings if found.id != "incremental"]
    complete = report.complete
    devices: list[DeviceVerdict] = []
    for verdict in report.devices:
        device = verdict.disk.name
        missing = verdict.missing
        if device in identity.disks:
            missing = _gaps(layouts[device], identity.disks[device].size)
        devices.append(replace(verdict, missing=missing))
        if missing:
            intended = identity.has_gaps(device)
            text = f"{human_size(missing.total)} of the disk is in none of the streams"
            findings.append(
                finding("incremental" if intended else "missing-chunks", text, device=device)
            )
            complete = complete if intended else False
    return replace(report, devices=tuple(devices), findings=tuple(findings), complete=complete)


def _gaps(layout: EndState, size: int) -> ByteRanges:
    """Return what is missing of a disk of ``size`` bytes."""
    end = -(-size // SECTOR_SIZE)
    covered = IntervalSet()
    for part in layout.parts(0, end):
        covered.add_all(part[:, :2])
    return ByteRanges(covered.gap_table(0, end), SECTOR_SIZE)


def in_order(contents: Contents, bases: list[Contents]) -> "Iterator[Contents]":
    """Yield those of ``bases`` that lie under ``contents``, from the lowest on, and ``contents`` itself."""
    known = {base.report.identity.id: base for base in bases if base.report.identity is not None}
    chain = [contents]
    identity = contents.report.identity
    while identity is not None and identity.incremental and identity.base in known:
        chain.append(known.pop(identity.base))
        identity = chain[-1].report.identity
    return reversed(chain)
