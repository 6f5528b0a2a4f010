"""What compresses the bytes of a stream, or sends them to a URL: by threads, where that is possible."""

from typing import TYPE_CHECKING

from blkmig_cli import limits
from blkmig_cli.transport.background import Writing
from blkmig_cli.transport.compression import Packer
from blkmig_cli.transport.sinks import ThroughSink

if TYPE_CHECKING:
    from blkmig_cli.transport.upload import Upload


class PackedSink(ThroughSink):
    """A sink that compresses; ``written`` counts the uncompressed bytes."""

    def __init__(self, name: str, fd: int, packer: Packer) -> None:
        super().__init__(name, fd)
        self._packer = packer

    def finish(self) -> None:
        """See :meth:`ThroughSink.finish`."""
        self.flush()
        super()._write(memoryview(self._packer.flush()))

    def _write(self, data: memoryview) -> None:
        super()._write(memoryview(self._packer.compress(data)))


class NewPackedFile(PackedSink):
    """A sink for a new regular file, whose bytes are compressed in a thread."""

    def __init__(self, name: str, fd: int, packer: Packer) -> None:
        super().__init__(name, fd, packer)
        self._packing = Writing(super()._write)

    def finish(self) -> None:
        """See :meth:`ThroughSink.finish`."""
        self.flush()
        self._packing.finish()
        super().finish()

    def close(self) -> None:
        """See :meth:`ThroughSink.close`."""
        self._packing.close()

    def _write(self, data: memoryview) -> None:
        self._packing.write(data)


class UrlSink(ThroughSink):
    """A sink for a new object at a URL, whose bytes are compressed and sent in a thread."""

    def __init__(self, name: str, upload: "Upload", packer: Packer | None) -> None:
        self._name = name
        self._gathered = bytearray()
        self._upload = upload
        self._packer = packer
        self._sending = Writing(self._send)
        self.written = 0

    def finish(self) -> None:
        """See :meth:`ThroughSink.finish`."""
        self.flush()
        self._sending.finish()
        if self._packer is not None:
            self._upload.write(self._packer.flush())
        self._upload.complete()

    def close(self) -> None:
        """See :meth:`ThroughSink.close`."""
        self._sending.close(limits.DISCARD_WAIT)

    def _write(self, data: memoryview) -> None:
        self._sending.write(data)

    def _send(self, data: memoryview) -> None:
        self._upload.write(data if self._packer is None else self._packer.compress(data))
