"""The resume token: what an interrupted replay has received, as one printable word.

It states for each disk how many bytes from its start are in the image, and their digest.  ``send`` compares
them with its disk before it leaves them out, and ``replay`` with its image before it adds the rest: that
the result is the disk follows from the bytes alone, whatever was sent before.

    blkmig1-BASE64URL(ID + JSON)      ID: the first 16 bytes of the JSON's SHA-256, which name the state
    {"disks": [{"bitmaps": true, "device": "drive0", "received": 1048576, "sha256": HEX}], "version": 1}
"""

import binascii
import hashlib
import json
import re
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Iterator

from blkmig_cli import limits
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.image import Readable
from blkmig_cli.disks.zeros import is_zero
from blkmig_cli.errors import FailureError, UsageError
from blkmig_cli.json_text import parse_json
from blkmig_cli.progress import Tick
from blkmig_cli.schemas.constants import CHUNK_SIZE
from blkmig_cli.system.documents import Entry
from blkmig_cli.text import quote

VERSION = 1
_PREFIX = "blkmig1-"
_ID_SIZE = 16
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Received:
    """The part of a disk that an image has received: its first ``length`` bytes, at least one.

    ``digest``: see :func:`digest_of`.  ``bitmaps``: the stream has bitmaps of the disk.
    """

    device: str
    length: int
    digest: str
    bitmaps: bool = False


@dataclass(frozen=True, slots=True)
class ResumeToken:
    """What the images of a replay have received, by device, ascending; at least one disk."""

    disks: tuple[Received, ...]

    @property
    def id(self) -> str:
        """The name of this state of the images: a UUID."""
        return str(uuid.UUID(bytes=_id_of(self._payload())))

    def __str__(self) -> str:
        payload = self._payload()
        return _PREFIX + urlsafe_b64encode(_id_of(payload) + payload).decode().rstrip("=")

    def check_length(self) -> None:
        """Raise FailureError where there are too many disks for a token."""
        if len(str(self)) > limits.TOKEN_MAX:
            raise FailureError(
                f"a token for {len(self.disks)} disks would have over {limits.TOKEN_MAX} bytes",
                hint="use --resume with the whole stream",
            )

    def _payload(self) -> bytes:
        disks = [
            {
                "device": disk.device,
                "received": disk.length,
                "sha256": disk.digest,
                "bitmaps": disk.bitmaps,
            }
            for disk in self.disks
        ]
        document = {"version": VERSION, "disks": disks}
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def token_of(disks: Iterable[Received]) -> ResumeToken:
    """Return the token for ``disks``, in any order."""
    return ResumeToken(tuple(sorted(disks, key=lambda disk: disk.device)))


def parse_token(option: str, text: str) -> ResumeToken:
    """Return the token in ``text``, the value of ``option``; raises UsageError where it is none."""
    try:
        return _parse(text.strip())
    except ValueError as error:
        raise UsageError(
            f"{option}: not a resume token: {error}", hint="see blkmig replay --print-token"
        ) from None


def digest_of(image: Readable, length: int, tick: Tick) -> str:
    """Return the digest of the first ``length`` bytes of an image, with zeros after its end.

    It is the SHA-256 of the number (8 bytes, big-endian) and the content of each chunk of 1 MiB that is
    not all zeros.  ``tick`` gets the bytes that were read.  Raises FailureError where the image fails.
    """
    found = hashlib.sha256()
    end = min(length, image.size)
    for start, size in _chunks(image, end):
        data = image.read(start, size)
        if not is_zero(memoryview(data)):
            found.update((start // CHUNK_SIZE).to_bytes(8, "big"))
            found.update(data)
            found.update(bytes(CHUNK_SIZE - size))
        tick(start + size)
    return found.hexdigest()


def _chunks(image: Readable, end: int) -> Iterator[tuple[int, int]]:
    """Yield the chunks (start, length) before byte ``end`` that may hold other bytes than zeros."""
    after = 0
    for start, length in image.extents():
        stop = min(start + length, end)
        for at in range(max(start // CHUNK_SIZE * CHUNK_SIZE, after), stop, CHUNK_SIZE):
            after = at + CHUNK_SIZE
            yield at, min(CHUNK_SIZE, end - at)
        if stop == end:
            return


def _id_of(payload: bytes) -> bytes:
    return hashlib.sha256(payload).digest()[:_ID_SIZE]


def _parse(text: str) -> ResumeToken:
    if len(text) > limits.TOKEN_MAX:
        raise ValueError(f"it has over {limits.TOKEN_MAX} bytes")
    if not text.startswith(_PREFIX):
        raise ValueError(f"it does not begin with {_PREFIX}")
    packed = text.removeprefix(_PREFIX).encode("utf-8", "replace")
    try:
        data = urlsafe_b64decode(packed + b"=" * (-len(packed) % 4))
    except binascii.Error:
        raise ValueError("it is cut or changed") from None
    payload = data[_ID_SIZE:]
    if data[:_ID_SIZE] != _id_of(payload):
        raise ValueError("it is cut or changed")
    root = Entry(parse_json(payload, strict=True), "")
    root.check_version(VERSION)
    disks = [_parse_disk(entry) for entry in root.entries("disks")]
    names = [disk.device for disk in disks]
    if not disks or names != sorted(set(names)):
        raise ValueError("its disks are none, or not in order")
    token = ResumeToken(tuple(disks))
    if str(token) != text:
        raise ValueError("it is in another form than blkmig writes")
    return token


def _parse_disk(entry: Entry) -> Received:
    device, digest = entry.text("device"), entry.text("sha256")
    length = entry.number("received", limits.DISK_MAX)
    if not length:
        raise entry.fault(f"nothing of {quote(device)} was received")
    if not _DIGEST.fullmatch(digest):
        raise entry.fault("sha256 is not a digest")
    return Received(device, length, digest, entry.flag("bitmaps"))
