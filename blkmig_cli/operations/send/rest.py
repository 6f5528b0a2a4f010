"""Sending only what an interrupted replay has not received: the disks must begin as its images do.

Without a token, nothing is checked, and all is sent.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from blkmig_cli.disks.disk import Disk
from blkmig_cli.disks.image import Readable
from blkmig_cli.errors import FailureError, UsageError
from blkmig_cli.operations.send.changes import SendChanges
from blkmig_cli.operations.send.stream import SendOptions
from blkmig_cli.progress import Progress
from blkmig_cli.schemas.constants import CHUNK_SIZE
from blkmig_cli.text import escape, names_text, quote
from blkmig_cli.wire.rest import rest_machine

if TYPE_CHECKING:
    from blkmig_cli.operations.resume_token import Received, ResumeToken


def check_rest_options(
    token: "ResumeToken | None", options: SendOptions, changes: SendChanges, *, identity: bool
) -> None:
    """Raise UsageError for options that a token excludes; ``identity``: the stream states its own."""
    if token is None:
        return
    for option, given in (
        ("--since", bool(changes.since)),
        ("--skip-unallocated", options.skip_unallocated),
        ("--bitmaps-only", not options.disks),
        ("--no-identity", not identity),
        ("--container none", options.container == "none"),
        ("--machine", options.machine != "none"),
        (f"--dialect {options.dialect}", options.dialect not in ("qemu", "classic")),
    ):
        if given:
            raise UsageError(f"--from-token and {option} exclude each other")


def rest_options(
    token: "ResumeToken | None", options: SendOptions, disks: list[Disk]
) -> SendOptions:
    """Return the options to send only what was not received of ``disks``.

    Raises UsageError where a disk or its bitmaps are in the token, but not to be sent; FailureError where a
    disk is smaller than what was received.
    """
    if token is None:
        return options
    sent = {disk.device: disk for disk in disks}
    for received in token.disks:
        disk = sent.get(received.device)
        if disk is None:
            raise UsageError(
                f"--from-token is for a disk {quote(received.device)}, not for {names_text(sent)}",
                hint="specify the images of the interrupted send, as DEVICE=IMAGE",
            )
        if received.bitmaps and not disk.bitmaps:
            raise UsageError(
                f"--from-token: the interrupted stream has bitmaps of {quote(received.device)}",
                hint="repeat its options, such as --bitmaps",
            )
        if received.length > -(-disk.size // CHUNK_SIZE) * CHUNK_SIZE:
            raise _differs(disk.image, received, f"it has {disk.size} bytes")
    lengths = {received.device: received.length for received in token.disks}
    return replace(options, machine=rest_machine(token.id), received=lengths)


def check_received(
    token: "ResumeToken | None", images: Mapping[str, Readable], progress: Progress
) -> None:
    """Read what was received from ``images``, by device, and compare it.

    Raises FailureError where it differs: the disk was written since, or is another one.
    """
    if token is None:
        return
    from blkmig_cli.operations.resume_token import digest_of  # noqa: PLC0415 (not always needed)

    for received in token.disks:
        image = images[received.device]
        with progress("comparing", received.length) as tick:
            digest = digest_of(image, received.length, partial(tick, disk=received.device))
        if digest != received.digest:
            raise _differs(image, received, "it was written since, or is another disk")


def _differs(image: Readable, received: "Received", why: str) -> FailureError:
    return FailureError(
        f"{escape(image.path)} does not begin with the {received.length} bytes that were received: {why}",
        device=received.device,
        hint="send the whole stream, to replay --restart",
    )
