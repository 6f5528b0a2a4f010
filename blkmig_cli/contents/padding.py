"""The padding of a partial last chunk, after the disk's end.

QEMU does not clear it, so that it may contain other data; readers must ignore it.
"""

import numpy as np

from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.wire.events import Block, Payload
from blkmig_cli.wire.schema_io import Input


def padding(event: Block, size: int | None) -> Payload | None:
    """Return the part of a record's data that lies after the end of a disk of ``size`` bytes.

    ``size`` None: as far as it follows from the record itself.  Returns None for no such part.
    """
    if event.data is None:
        return None
    inside = event.sectors * SECTOR_SIZE
    if size is not None:
        inside = min(inside, max(size - event.sector * SECTOR_SIZE, 0))
    behind = event.data.length - inside
    return Payload(event.data.offset + inside, behind) if behind > 0 else None


def leaked(part: Payload, source: Input) -> int:
    """Return the bytes of ``part`` that are not zero."""
    return int(np.count_nonzero(np.frombuffer(source.view(part), np.uint8)))
