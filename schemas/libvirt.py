"""libvirt's save image (``virsh save``): a header around a migration stream.

Source: libvirt, src/qemu/qemu_saveimage.h (_virQEMUSaveHeader) and qemu_saveimage.c.  The numbers
are in the byte order of the host that wrote them.
"""

from construct import Bytes, Construct, Int32ub, Int32ul, Struct

from .constants import SAVE_MAGIC


def _save_header(number: Construct) -> Struct:
    return Struct(
        "magic" / Bytes(len(SAVE_MAGIC)),
        "version" / number,
        "data_length" / number,
        "was_running" / number,
        "format" / number,
        "cookie_offset" / number,
        "unused" / Bytes(14 * 4),
    )


#: ``data_length`` bytes follow (the domain's XML, padding, a cookie), then the stream.
SaveHeader = _save_header(Int32ul)

#: The same from a big-endian host.
SaveHeaderBigEndian = _save_header(Int32ub)
