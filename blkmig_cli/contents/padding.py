"""What a last chunk carries behind the disk's end: QEMU does not clear it, and no reader wants it."""

import numpy as np

from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.wire.events import Block, Payload
from blkmig_cli.wire.schema_io import Input


def padding(event: Block, size: int | None) -> Payload | None:
    """The part of a record's data that lies behind the end of a disk of ``size`` bytes.

    ``size`` None: as far as the record itself tells.  None where there is no such part.
    """
    if event.data is None:
        return None
    inside = event.sectors * SECTOR_SIZE
    if size is not None:
        inside = min(inside, max(size - event.sector * SECTOR_SIZE, 0))
    behind = event.data.length - inside
    return Payload(event.data.offset + inside, behind) if behind > 0 else None


def leaked(part: Payload, source: Input) -> int:
    """Bytes of ``part`` that are not zero."""
    return int(np.count_nonzero(np.frombuffer(source.view(part), np.uint8)))
