"""The identity that a stream is given when it is made, and the id of the stream before it."""

import os
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.disk import Disk
from blkmig_cli.errors import FailureError, UsageError, failing
from blkmig_cli.operations.send.stream import SendOptions
from blkmig_cli.system.address import Address, parse_address
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.text import brief, escape, quote
from blkmig_cli.wire.identity import DiskIdentity, Identity, is_id

# The environment variable with the time of creation in seconds since 1970
# (https://reproducible-builds.org/specs/source-date-epoch/).
_EPOCH = "SOURCE_DATE_EPOCH"


@dataclass(frozen=True, slots=True)
class SendIdentity:
    """How to identify a stream: its ``id`` (a UUID; None: a random one), and its ``base``.

    ``base``: the stream before an increment, as a STREAM, its manifest, or its id.
    """

    id: str | None = None
    base: str | None = None


#: A random id, and no base.
RANDOM = SendIdentity()


@dataclass(frozen=True, slots=True)
class Base:
    """The stream before an increment: its id, and its identity, None where only the id is known."""

    id: str
    identity: Identity | None = None

    def has_disk(self, device: str) -> bool:
        """Return whether it states that it has all of a disk, or together with its own base."""
        disk = None if self.identity is None else self.identity.disks.get(device)
        return disk is not None and (disk.full or disk.since is not None)


def check_id(option: str, text: str) -> str:
    """Return a UUID as identities have it; raises UsageError where ``text`` in ``option`` is none."""
    if not is_id(text.lower()):
        raise UsageError(f"{option}: {quote(text)} is not a UUID")
    return text.lower()


def creation_time() -> str:
    """Return the time now in ISO 8601, or that of SOURCE_DATE_EPOCH; raises UsageError for an invalid one."""
    stated = os.environ.get(_EPOCH)
    try:
        at = datetime.now(UTC) if stated is None else datetime.fromtimestamp(int(stated), UTC)
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"{_EPOCH} is {brief(stated)}, not a number of seconds") from None
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def identity_of(
    disks: Iterable[Disk],
    options: SendOptions,
    wanted: SendIdentity,
    selected: Mapping[str, str] | None,
    mark: str | None,
    consistency: str = "paused",
) -> Identity:
    """Return the identity for a stream of ``disks``; the base in ``wanted`` is an id.

    ``selected``: of an increment, the bitmaps that selected the chunks of disks, by device.  ``mark``: the
    bitmap that is created.  ``consistency``: one of ``CONSISTENCIES``.  Raises UsageError for an invalid id,
    or for an id that is also that of the base.
    """
    own = str(uuid.uuid4()) if wanted.id is None else check_id("--id", wanted.id)
    if own == wanted.base:
        raise UsageError(f"--id {own} is the id of the base")
    full = options.disks and not options.skip_unallocated
    since = selected or {}
    return Identity(
        own,
        wanted.base,
        wanted.base is not None or selected is not None,
        creation_time(),
        consistency,
        {
            disk.device: DiskIdentity(
                disk.size,
                full and not disk.partial and disk.device not in since,
                since.get(disk.device),
                mark,
            )
            for disk in disks
        },
    )


def read_base(base: str, uses: FileUses) -> Base:
    """Return the stream that ``base`` specifies; see ``SendIdentity``.  Registers its file.

    Raises FailureError where it cannot be read, has no identity, or is not whole; StreamError for a
    damaged stream.
    """
    if is_id(base.lower()):
        return Base(base.lower())
    address = parse_address(base)
    file = address.file(writes=False)
    if file is not None:
        uses.add("the base", file, writes=False)
    if _is_manifest(address):
        from blkmig_cli.checks.manifest import read_manifest  # noqa: PLC0415 (not always needed)

        identity = read_manifest(address.path).identity
    else:
        from blkmig_cli.operations.reading import Reading  # noqa: PLC0415 (numpy is slow to load)

        with Reading().contents(base) as contents:
            contents.report.check_read()
            identity = contents.report.identity
            if identity is not None and not contents.report.valid:
                raise FailureError(f"{escape(base)} is {contents.report.verdict}")
    if identity is None:
        raise FailureError(f"{escape(base)} has no identity", hint="specify the id of the base")
    return Base(identity.id, identity)


def _is_manifest(address: Address) -> bool:
    """Return whether there is a file that begins as a manifest does, and no stream; raises FailureError."""
    if address.scheme != "file" or address.offset or not os.path.isfile(address.path):
        return False
    with failing(address.path), open(address.path, "rb") as file:
        return file.read(1) == b"{"
