"""The key ``blkmig`` in a stream's JSON description: the identity of a stream, and the sizes of disks.

QEMU skips the description without parsing it (QEMU 7.2, migration/savevm.c: qemu_loadvm_state), and
its tools ignore unknown keys.  The format:

    {"devices": [], "blkmig": {"version": 1, "id": UUID, "base": UUID or null, "incremental": true,
      "created": "2026-01-31T23:59:59Z", "consistency": "paused",
      "disks": {"drive0": {"size": 1048576, "full": false, "since": "b0", "mark": "b1"}}}}

A stream without identity states only the version and the sizes, and a salvaged one in addition
``"salvaged": true``: it is the intact part of a damaged stream.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

from blkmig_cli import limits
from blkmig_cli.dataclass import dataclass
from blkmig_cli.json_text import parse_json
from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.text import brief, quote

KEY = "blkmig"
VERSION = 1
#: How the guest's writes were held back while the disks were read.
CONSISTENCIES = ("paused", "frozen", "crash")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CREATED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


@dataclass(frozen=True, slots=True)
class DiskIdentity:
    """What an identity states of a disk of ``size`` bytes.

    ``full``: all of it is in the stream.  ``since``, ``mark``: names of the bitmap that selected the
    chunks of an increment, and of the one that was created when the disk was read, if any.
    """

    size: int
    full: bool = False
    since: str | None = None
    mark: str | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of a stream: its ``id``, and that of its ``base``, as UUIDs in lower case.

    ``incremental``: it has only what changed since the base, except for disks that are ``full``.
    ``created``: ISO 8601, UTC.  ``consistency``: one of ``CONSISTENCIES``.  ``disks``: by device.
    """

    id: str
    base: str | None
    incremental: bool
    created: str
    consistency: str
    disks: Mapping[str, DiskIdentity] = field(default_factory=dict)

    def has_gaps(self, device: str) -> bool:
        """Return whether missing chunks of the disk of ``device`` are intentional."""
        disk = self.disks.get(device)
        return self.incremental and disk is not None and not disk.full

    def is_full(self, device: str) -> bool:
        """Return whether all of the disk of ``device`` is in the stream."""
        disk = self.disks.get(device)
        return disk is not None and disk.full


@dataclass(frozen=True, slots=True)
class Statement:
    """What a description states: ``sizes`` of disks in bytes, by device, and the ``identity``, if any.

    ``fault``: why the identity is ignored.  ``salvaged``: it is that of the intact part of a stream.
    """

    sizes: Mapping[str, int] = field(default_factory=dict)
    identity: Identity | None = None
    fault: str | None = None
    salvaged: bool = False


def is_id(text: str) -> bool:
    """Return whether ``text`` is a UUID in the form of an identity's ``id``."""
    return _UUID.fullmatch(text) is not None


def description(
    sizes: Mapping[str, int], identity: Identity | None = None, *, salvaged: bool = False
) -> bytes:
    """Return a description without devices that states an identity, and ``sizes`` in bytes, by device.

    ``salvaged``: it states that the stream is the intact part of another one.
    """
    root: dict[str, Any] = {"devices": []}
    disks = {name: {"size": size} for name, size in sizes.items()}
    stated = {} if identity is None else identity_document(identity)
    disks |= stated.get("disks", {})
    if stated or salvaged or disks:
        part = {"salvaged": True} if salvaged else {}
        root[KEY] = {"version": VERSION} | stated | part | {"disks": disks}
    return json.dumps(root).encode("ascii")


def identity_document(identity: Identity) -> dict[str, Any]:
    """Return an identity as a JSON object."""
    return {
        "version": VERSION,
        "id": identity.id,
        "base": identity.base,
        "incremental": identity.incremental,
        "created": identity.created,
        "consistency": identity.consistency,
        "disks": {
            name: {"size": disk.size, "full": disk.full, "since": disk.since, "mark": disk.mark}
            for name, disk in identity.disks.items()
        },
    }


def may_state(data: bytes | memoryview) -> bool:
    """Return whether ``data``, the end of a stream, may hold a description that states anything."""
    return f'"{KEY}"'.encode() in bytes(data)


def read_statement(text: bytes | memoryview) -> Statement:
    """Return what a description states; nothing if it is longer than ``limits.IDENTITY_MAX``.

    Invalid sizes are ignored.
    """
    data = bytes(text) if len(text) <= limits.IDENTITY_MAX else b""
    if not may_state(data):
        return Statement()
    fault = None
    try:
        root = parse_json(data, strict=True)
    except ValueError as error:
        fault = str(error)
        try:
            root = parse_json(data)
        except ValueError:
            return Statement()  # it is no description
    found = root.get(KEY) if isinstance(root, dict) else None
    if found is None:
        return Statement()
    sizes = _sizes(found)
    salvaged = isinstance(found, dict) and found.get("salvaged") is True
    if (sizes or salvaged) and set(found) <= {"version", "salvaged", "disks"}:
        return Statement(sizes, salvaged=salvaged)
    try:
        if fault is not None:
            raise ValueError(fault)
        return Statement(sizes, parse_identity(found), salvaged=salvaged)
    except ValueError as error:
        return Statement(sizes, fault=str(error), salvaged=salvaged)


def parse_identity(found: Any) -> Identity:
    """Return the identity in the JSON value ``found``, whose objects have no key twice.

    Raises ValueError where it is not an identity.
    """
    if not isinstance(found, dict):
        raise ValueError("it is not an object")
    version = found.get("version")
    if type(version) is not int or version != VERSION:
        raise ValueError(f"version {brief(version)}, only {VERSION} is known")
    disks = _typed(found, "disks", lambda value: isinstance(value, dict), "an object")
    if len(disks) > limits.DEVICES_MAX:
        raise ValueError(f"{len(disks)} disks, {limits.DEVICES_MAX} are the most")
    identity = Identity(
        _typed(found, "id", _is_uuid, "a UUID"),
        _typed(found, "base", lambda value: value is None or _is_uuid(value), "a UUID or null"),
        _typed(found, "incremental", _is_flag, "true or false"),
        _typed(found, "created", _is_time, "a time such as 2026-01-31T23:59:59Z"),
        _typed(
            found,
            "consistency",
            lambda value: value in CONSISTENCIES,
            f"one of {', '.join(CONSISTENCIES)}",
        ),
        {name: _disk(name, entry) for name, entry in disks.items()},
    )
    if identity.base == identity.id:
        raise ValueError("its base is its own id")
    return identity


def _disk(name: str, entry: Any) -> DiskIdentity:
    if len(name) > limits.NAME_MAX or not isinstance(entry, dict):
        raise ValueError(f"disk {brief(name)} is not an object, or its name is too long")
    try:
        return DiskIdentity(
            _typed(entry, "size", _is_size, f"a multiple of {SECTOR_SIZE}"),
            _typed(entry, "full", _is_flag, "true or false", False),
            _typed(entry, "since", _is_name, "a name or null"),
            _typed(entry, "mark", _is_name, "a name or null"),
        )
    except ValueError as error:
        raise ValueError(f"disk {quote(name)}: {error}") from None


def _typed(
    entry: dict[str, Any],
    key: str,
    valid: Callable[[Any], bool],
    what: str,
    default: Any = None,
) -> Any:
    """Return the value of ``key``, for which ``valid`` must be true; ``what`` it must be."""
    value = entry.get(key, default)
    if not valid(value):
        raise ValueError(f"{key} is {brief(value)}, not {what}")
    return value


def _sizes(found: Any) -> dict[str, int]:
    """Return the valid sizes that the value of the key states."""
    if not isinstance(found, dict) or found.get("version") != VERSION:
        return {}
    disks = found.get("disks")
    if not isinstance(disks, dict) or len(disks) > limits.DEVICES_MAX:
        return {}
    sizes: dict[str, Any] = {
        name: entry.get("size") for name, entry in disks.items() if isinstance(entry, dict)
    }
    return {name: size for name, size in sizes.items() if _is_size(size)}


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value <= limits.DISK_MAX and value % SECTOR_SIZE == 0


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_uuid(value: Any) -> bool:
    return isinstance(value, str) and is_id(value)


def _is_time(value: Any) -> bool:
    return isinstance(value, str) and _CREATED.fullmatch(value) is not None


def _is_name(value: Any) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= limits.NAME_MAX)
