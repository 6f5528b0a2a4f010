"""The size of a stream before it is sent, without the data of its disks being read."""

from dataclasses import replace

from blkmig_cli.disks.disk import Disk
from blkmig_cli.disks.image import Beginning, Readable
from blkmig_cli.operations.send.stream import SendOptions, send_pieces
from blkmig_cli.transport.sinks import Sink
from blkmig_cli.transport.target import resolve_content, write_events


def estimate(disks: list[Disk], options: SendOptions) -> int:
    """Return how many bytes the stream of ``disks`` has at most, uncompressed.

    Zeros count as data unless the image states that they are zeros.  Raises FailureError where an image
    fails.
    """
    sink = _Counter()
    unread = [replace(disk, image=_Unread(disk.image, disk.size)) for disk in disks]
    write_events(send_pieces(unread, options), sink, resolve_content)
    return sink.written


class _Unread(Beginning):
    """A disk of which no data is read."""

    def is_zero(self, offset: int, length: int) -> bool:
        return sum(size for _, size in self.known_zeros(offset, length)) == length


class _Counter(Sink):
    """A sink that counts bytes."""

    def __init__(self) -> None:
        self.written = 0

    def write(self, data: bytes | memoryview) -> None:
        self.written += len(data)

    def copy(self, image: Readable, offset: int, length: int) -> None:
        self.written += length
