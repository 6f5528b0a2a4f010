"""The manifest of a capture: the disks' digests are those of the stream as it is stored.

(The disks themselves have gone on.)
"""

import os
import stat
from dataclasses import replace

from blkmig_cli.checks.manifest import Manifest, check_work, manifest_of, write_manifest
from blkmig_cli.disks.disk import Disk
from blkmig_cli.errors import FailureError, UsageError
from blkmig_cli.operations.reading import Reading
from blkmig_cli.operations.send.stream import SendOptions
from blkmig_cli.progress import Progress, no_tick
from blkmig_cli.system.address import parse_target
from blkmig_cli.text import escape
from blkmig_cli.wire.decoder import Container
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.identity import Identity


def check_stored(target: str | None) -> str:
    """Return the path of a TARGET; raises UsageError where the stream cannot be read there later."""
    address = parse_target(target)
    if address.scheme == "file":
        try:
            if stat.S_ISREG(os.stat(address.path).st_mode):
                return address.path
        except OSError:  # it is created, or the reason is told then
            return address.path
    raise UsageError("--manifest needs a stream that is stored in a file", hint="see --to FILE")


def write_stored(
    manifest: str,
    path: str,
    disks: list[Disk],
    options: SendOptions,
    identity: Identity | None,
    progress: Progress,
    *,
    whole: bool,
) -> Manifest:
    """Write and return the manifest of the stream of ``disks``, with their bitmaps, in the file at ``path``.

    A stream that does not have the ``whole`` disks has no digests of them.  Raises FailureError where the
    stream cannot be read, or the manifest not be written.
    """
    try:
        made = _read_again(path, disks, options, progress, whole=whole)
        made.identity = identity
        write_manifest(manifest, made)
    except BaseException as error:
        error.add_note("the stream is complete; its manifest was not written")
        raise
    return made


def _read_again(
    path: str, disks: list[Disk], options: SendOptions, progress: Progress, *, whole: bool
) -> Manifest:
    flags = options.dialect != "v1"
    outlines = manifest_of(disks, no_tick, content=False, flags=flags)
    if not whole:
        return outlines
    container: Container = "none" if options.container == "none" else "qemu"
    reading = Reading(outlines.completing(Hints()), options.dialect, container, progress=progress)
    with reading.contents(path, again=True) as contents:
        if not contents.report.valid:
            raise FailureError(f"{escape(path)} is {contents.report.verdict}, as it was read again")
        stored = [replace(disk, image=contents.disk(disk.device, disk.size)) for disk in disks]
        check_work(stored, content=True)
        with progress("hashing", sum(disk.size for disk in disks)) as tick:
            return manifest_of(stored, tick, content=True, flags=flags)
