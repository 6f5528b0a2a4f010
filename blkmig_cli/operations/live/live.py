"""Making a stream of the disks and bitmaps of a running QEMU."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial

from blkmig_cli.checks.compatibility import Version, answers
from blkmig_cli.checks.names import Key, find_bitmaps, split_bitmap
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.disk import Disk
from blkmig_cli.errors import FailureError
from blkmig_cli.operations.live.copies import Captured
from blkmig_cli.operations.live.digests import check_stored, write_stored
from blkmig_cli.operations.live.disks import Graph, QemuDisk, choose, find_disks
from blkmig_cli.operations.live.freeze import check_freeze
from blkmig_cli.operations.live.guard import Guard
from blkmig_cli.operations.live.increment import Increment
from blkmig_cli.operations.live.passes import Passes
from blkmig_cli.operations.live.pause import Pause, check_state
from blkmig_cli.operations.live.remnants import CleanedUp, clean_up, new_run
from blkmig_cli.operations.live.request import (
    LiveReport,
    LiveRequest,
    PassesOptions,
    SnapshotOptions,
)
from blkmig_cli.operations.live.session import Session
from blkmig_cli.operations.live.snapshot import Snapshot
from blkmig_cli.operations.live.watch import Watch
from blkmig_cli.operations.live.writer import Writer
from blkmig_cli.operations.send.changes import base_of, check_options
from blkmig_cli.operations.send.identity import Base, SendIdentity, check_id, identity_of
from blkmig_cli.operations.send.requirements import (
    check_bitmaps_fit,
    check_disks,
    warnings_for,
)
from blkmig_cli.operations.send.stream import SendOptions
from blkmig_cli.progress import Progress, ignore, no_progress
from blkmig_cli.system.address import parse_target
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.system.qmp import Monitor, NoAnswerError, parse_monitor
from blkmig_cli.text import quote
from blkmig_cli.transport.target import open_target
from blkmig_cli.wire.identity import Identity

# The first with block-export-add (QEMU 5.2, qapi/block-export.json).
_NEEDED = (5, 2)
# QEMU 7.2.22 aborts when a disk with an iothread is reset while a client of NBD is at work (nbd/server.c:
# blk_aio_attached); 10.0.13 does not.
_IOTHREADS = (10, 0)
# Migrations that are not under way (QEMU 7.2, qapi/migration.json: MigrationStatus).
_NO_MIGRATION = {"none", "completed", "failed", "cancelled"}
# Jobs that have ended (QEMU 7.2, qapi/job.json: JobStatus).
_ENDED = {"concluded", "null"}


def capture(
    monitor: str,
    target: str | None = None,
    request: LiveRequest | None = None,
    options: SendOptions | None = None,
    *,
    manifest: str | None = None,
    for_qemu: Version | None = None,
    progress: Progress = no_progress,
    warn: Callable[[str], None] = ignore,
    note: Callable[[str], None] = ignore,
) -> LiveReport:
    """Write a stream of the disks of the QEMU at ``monitor`` (``qmp:unix:PATH``) to ``target`` (TARGET).

    ``manifest``: the file for the digests of the disks, as they are in the stream, and of the bitmaps.
    ``for_qemu``, ``warn``: as in ``send``.  ``note`` is called each second with a text about what is done to
    the guest.  Whatever happens, what was made in QEMU is removed, and a guest that was running runs on,
    unless it is to be left paused and everything succeeded.

    Raises UsageError for a disk or a bitmap that QEMU does not have, or options that contradict each
    other; FailureError where QEMU, a disk or the target fails, is in use otherwise, or changes meanwhile,
    the guest writes too fast, or a snapshot is lost.
    """
    plan = _planned(target, request or LiveRequest(), options or SendOptions(), for_qemu)
    wanted, stored = plan.request, None
    if manifest is not None:
        stored = check_stored(target)
        plan.reads.add("the manifest", manifest, writes=True)
    run = new_run()
    with (
        _connected(monitor) as qemu,
        Guard(qemu.path, run) as guard,
        Pause(qemu, guard) as pause,
    ):
        graph = Graph(qemu)
        captured = _captured(qemu, graph, wanted)
        for file in graph.files():
            plan.reads.add("an image of QEMU's", file, writes=False)
        with Session(qemu, guard, run, wanted.socket) as session:
            increment = Increment(session, captured, wanted.changes, plan.base)
            watch = Watch(qemu, [each.disk for each in captured], note)
            common = (plan.options, increment, partial(_identify, plan, increment), pause)
            work: Passes | Snapshot
            if isinstance(wanted.mode, PassesOptions):
                work = Passes(session, captured, wanted.mode, *common)
            else:
                work = Snapshot(session, captured, wanted.mode, *common, guard, watch)
            with open_target(target, plan.reads, confirmed=plan.options.return_path) as sink:
                try:
                    work.begin(warn)
                    check_disks(work.disks, plan.options)
                    for warning in (
                        *warnings_for(work.disks, plan.options, for_qemu),
                        *_dangers(qemu),
                    ):
                        warn(warning)
                    writer = Writer(sink, qemu, wanted.max_bandwidth, watch.look)
                    done = work.run(writer, progress)
                    watch.measure()
                except BaseException as error:
                    pause.cancel(error)
                    if isinstance(error, FailureError):
                        with suppress(NoAnswerError):  # the first error is the one told
                            work.check_cause()
                    raise
            increment.finish()
        report = LiveReport(
            {each.device: each.disk.size for each in captured},
            [(each.device, bitmap.name) for each in captured for bitmap in each.bitmaps],
            work.consistency,
            work.paused,
            watch.latency,
            writer.written,
            done,
        )
        pause.keep()
    if manifest is None or stored is None:
        return report
    whole = increment.selected is None
    digests = write_stored(
        manifest, stored, work.disks, plan.options, work.identity, progress, whole=whole
    )
    return replace(report, manifest=digests)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A request that was checked: ``base`` and ``identity`` are those of the stream, ``reads`` its files."""

    request: LiveRequest
    options: SendOptions
    base: Base | None
    identity: SendIdentity | None
    reads: FileUses


def _planned(
    target: str | None, request: LiveRequest, options: SendOptions, for_qemu: Version | None
) -> _Plan:
    """Check what can be checked without QEMU; raises UsageError, and as :func:`base_of`."""
    if options.container == "qemu" and for_qemu is not None and parse_target(target).is_socket:
        options = replace(options, return_path=answers(for_qemu))
    if request.bitmaps is not None:
        check_bitmaps_fit(options.dialect, options.container, "use --dialect v1 or v2")
    check_options(request.changes, options, target, shared=False)
    if isinstance(request.mode, SnapshotOptions):
        check_freeze(request.mode)
    reads = FileUses()
    base = base_of(request.identity, options, request.changes, reads)
    identity = None
    if request.identity is not None:
        own = request.identity.id or str(uuid.uuid4())
        identity = SendIdentity(check_id("--id", own), None if base is None else base.id)
    return _Plan(request, options, base, identity, reads)


def _identify(
    plan: _Plan, increment: Increment, disks: list[Disk], consistency: str
) -> Identity | None:
    """Return the identity of a stream of ``disks`` as of now."""
    if plan.identity is None:
        return None
    mark = plan.request.changes.mark
    return identity_of(disks, plan.options, plan.identity, increment.selected, mark, consistency)


def list_disks(monitor: str) -> list[QemuDisk]:
    """Return the disks of the QEMU at ``monitor``; raises FailureError, UsageError."""
    with _connected(monitor) as qemu:
        return find_disks(qemu, Graph(qemu))


def remove_remnants(monitor: str) -> CleanedUp:
    """Remove from the QEMU at ``monitor`` what runs that were killed have left; raises as others do."""
    with _connected(monitor) as qemu:
        return clean_up(qemu)


@contextmanager
def _connected(monitor: str) -> Iterator[Monitor]:
    with closing(Monitor(parse_monitor(monitor))) as qemu:
        yield qemu


def _captured(qemu: Monitor, graph: Graph, wanted: LiveRequest) -> list[Captured]:
    """Return the disks to capture, with their bitmaps; raises FailureError where QEMU is busy with them."""
    chosen = choose(graph, find_disks(qemu, graph), wanted.disks, wanted.excluded)
    _check_quiet(qemu)
    found = [Captured(device, disk) for device, disk in chosen.items()]
    if wanted.bitmaps is None:
        return found
    known: list[Key] = [
        (device, each.name) for device, disk in chosen.items() for each in disk.bitmaps
    ]
    if not known and not wanted.bitmaps:
        raise FailureError("no disk has any bitmap", hint="leave out --bitmaps")
    keys = {
        key
        for name in wanted.bitmaps
        for key in find_bitmaps("--bitmap", split_bitmap(name), known)
    } or set(known)
    return [_with_bitmaps(each, keys) for each in found]


def _with_bitmaps(captured: Captured, keys: set[Key]) -> Captured:
    bitmaps = tuple(each for each in captured.disk.bitmaps if (captured.device, each.name) in keys)
    for bitmap in bitmaps:
        fault = "inconsistent" if bitmap.inconsistent else "in use" if bitmap.busy else None
        if fault is not None:
            raise FailureError(
                f"bitmap {quote(bitmap.name)} is {fault}",
                device=captured.device,
                hint="select others with --bitmap",
            )
    if len({bitmap.name for bitmap in bitmaps}) < len(bitmaps):
        raise FailureError("two of its nodes have bitmaps of one name", device=captured.device)
    return replace(captured, bitmaps=bitmaps)


def _dangers(qemu: Monitor) -> Iterator[str]:
    """Yield a warning of what may make QEMU abort."""
    if qemu.version < _IOTHREADS and qemu.execute("query-iothreads"):
        yield (
            f"QEMU {qemu.version[0]}.{qemu.version[1]} may abort if the guest resets a disk with an "
            "iothread meanwhile, as in a reboot; see docs/qemu.md"
        )


def _check_quiet(qemu: Monitor) -> None:
    """Raise FailureError where a migration or a block job is under way."""
    check_state(qemu)
    if qemu.version < _NEEDED:
        found, needed = (".".join(map(str, each)) for each in (qemu.version, _NEEDED))
        raise FailureError(f"QEMU {found} is too old: {needed} or later is needed")
    status = qemu.execute("query-migrate").get("status", "none")
    if status not in _NO_MIGRATION:
        raise FailureError(
            f"a migration is under way (its status is {status})",
            hint="wait for its end, or cancel it",
        )
    for job in qemu.execute("query-jobs"):
        if job["status"] not in _ENDED:
            raise FailureError(
                f"a block job is under way: {quote(job['id'])} ({job['type']})",
                hint="wait for its end, or cancel it",
            )
