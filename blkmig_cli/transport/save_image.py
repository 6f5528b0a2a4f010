"""The header of a libvirt save image: where the migration stream begins, and its compression."""

from blkmig_cli import limits
from blkmig_cli.dataclass import dataclass
from blkmig_cli.errors import MalformedError, StreamError, TruncatedError
from blkmig_cli.schemas import libvirt as schema
from blkmig_cli.schemas.constants import PARTIAL_MAGIC, SAVE_MAGIC, SAVE_VERSIONS, SaveFormat
from blkmig_cli.wire.schema_io import parse

#: Bytes of the header.
HEADER_SIZE: int = schema.SaveHeader.sizeof()

_COMPRESSION = {
    SaveFormat.RAW: None,
    SaveFormat.GZIP: "gzip",
    SaveFormat.BZIP2: "bzip2",
    SaveFormat.XZ: "xz",
    SaveFormat.ZSTD: "zstd",
    SaveFormat.SPARSE: None,
}


@dataclass(frozen=True, slots=True)
class SaveImage:
    """``start``: offset of the stream in the file; ``compression``: None for none.

    ``damage``: the error with which the stream ends if libvirt had not finished the file.
    """

    start: int
    compression: str | None
    damage: StreamError | None


def save_image(head: bytes) -> SaveImage | None:
    """Parse the header in ``head``, the first HEADER_SIZE bytes of a file.

    Returns None for a file that is not a save image.  Raises StreamError where the header is invalid
    or the compression is not supported.
    """
    if not head.startswith((SAVE_MAGIC, PARTIAL_MAGIC)):
        return None
    if len(head) < HEADER_SIZE:
        end = len(head)
        raise TruncatedError(
            f"libvirt save image truncated at byte {end}, inside its header", offset=end
        )
    orders = (parse(order, head) for order in (schema.SaveHeader, schema.SaveHeaderBigEndian))
    found = next((values for values in orders if values and values[1] in SAVE_VERSIONS), None)
    if found is None:
        raise MalformedError("libvirt save image with an unknown header version", offset=0)
    magic, _, data_length, _, number, *_ = found
    if data_length > limits.SAVE_DATA_MAX:
        raise MalformedError(f"libvirt save image with {data_length} bytes of XML", offset=0)
    start = HEADER_SIZE + data_length
    if number not in _COMPRESSION:
        name = SaveFormat(number).name.lower() if number in set(SaveFormat) else f"format {number}"
        raise StreamError(
            f"libvirt save image compressed with {name}, which is not supported",
            hint=f"unpack what follows byte {start} of it, and read that",
        )
    damage = None
    if magic == PARTIAL_MAGIC:
        damage = TruncatedError("libvirt did not finish writing this save image")
    return SaveImage(start, _COMPRESSION[SaveFormat(number)], damage)
