"""What commands share that make a stream of disks: warnings before it, progress while it is written."""

from collections.abc import Iterator

import click

from blkmig_cli.checks.compatibility import Traits, Version, cut_tail, objections
from blkmig_cli.disks.disk import Disk
from blkmig_cli.errors import UsageError
from blkmig_cli.operations.send.stream import SendOptions, is_cut
from blkmig_cli.progress import Tick
from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.transport.target import Resolve, Sink, resolve_content, write_events
from blkmig_cli.wire.events import Block, Event


def write(
    events: Iterator[Event],
    disks: list[Disk],
    sink: Sink,
    tick: Tick,
    resolve: Resolve = resolve_content,
) -> None:
    """Write ``events``, made of ``disks``, into ``sink``.

    Raises UsageError where something has no place on the wire, FailureError where an image or the
    target fails.
    """
    try:
        write_events(_ticking(events, disks, tick), sink, resolve)
    except ValueError as error:
        raise UsageError(f"this cannot be sent: {error}") from None


def warn(disks: list[Disk], chosen: SendOptions, version: Version | None) -> None:
    """Say before the first byte what a QEMU would not load."""
    cut = [disk for disk in disks if chosen.disks and is_cut(disk, chosen)]
    if version is None:
        warnings = [cut_tail(disk.device, disk.size) for disk in cut if chosen.dialect == "qemu"]
    else:
        traits = Traits(
            chosen.dialect,
            chosen.container,
            chosen.machine,
            [disk.device for disk in disks if chosen.disks],
            [disk.device for disk in cut],
            zero_blocks=chosen.zero_blocks,
            bitmaps=any(disk.bitmaps for disk in disks),
        )
        warnings = list(objections(traits, version))
    for warning in warnings:
        click.echo(f"blkmig: warning: {warning}", err=True)


def _ticking(events: Iterator[Event], disks: list[Disk], tick: Tick) -> Iterator[Event]:
    """The events, with ``tick`` told how many bytes of the disks have been sent."""
    before = 0
    begins = {}
    for disk in disks:
        begins[disk.device] = before
        before += disk.size
    for event in events:
        yield event
        if isinstance(event, Block):
            tick(begins[event.device] + event.sector * SECTOR_SIZE)
