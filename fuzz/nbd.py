"""Whatever an NBD server says, an image is opened and read, or a FailureError; nothing past the disk."""

import time
from collections.abc import Callable
from contextlib import suppress
from itertools import islice

import atheris

with atheris.instrument_imports(include=["blkmig_cli"]):
    from blkmig_cli.disks.image import FilePart
    from blkmig_cli.disks.nbd.channel import BrokenError
    from blkmig_cli.disks.nbd.connection import Connection
    from blkmig_cli.disks.nbd.handshake import negotiate
    from blkmig_cli.disks.nbd.image import NbdImage
    from blkmig_cli.errors import FailureError
    from blkmig_cli.system.nbd_uri import NbdUri

from fuzz.common import fuzz
from tests.support.nbd_bytes import BASE, hello, hello_simple

#: What comes before an input, by its first byte, so that requests are reached soon.
BEGINNINGS = (
    b"",
    hello(contexts=[(BASE, "base:allocation"), (1, "qemu:dirty-bitmap:b")]),
    hello(contexts=[(BASE, "base:allocation"), (2, "qemu:allocation-depth")]),
    hello_simple(),
)
_ITEMS = 1000


class Said:
    """A channel to a server that says ``data`` and then hangs up."""

    sends_files = False

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    def receive(self, view: memoryview, deadline: float, *, waits: bool = True) -> bool:
        """See ``channel.Channel``."""
        assert len(view) <= 1 << 24
        assert deadline > time.monotonic()
        if len(view) > len(self._data):
            raise BrokenError("the server closed the connection")
        view[:] = self._data[: len(view)]
        self._data = self._data[len(view) :]
        return True

    def send(
        self, data: memoryview | FilePart, deadline: float, meanwhile: Callable[[], None]
    ) -> None:
        """See ``channel.Channel``."""
        assert isinstance(data, memoryview)
        assert len(data) <= 1 << 20

    def start_tls(self, uri: NbdUri, deadline: float) -> None:
        """See ``channel.Channel``."""
        raise AssertionError

    def close(self) -> None:
        """See ``channel.Channel``."""


def use(image: NbdImage) -> None:
    """Ask everything that an image can be asked, until the server has broken the connection."""
    size = min(image.size, 3 << 20)

    def check(ranges: list[tuple[int, int]]) -> None:
        last = -1
        for start, length in ranges:
            assert start > last
            assert length > 0
            last = start + length
        assert last <= image.size

    acts: list[Callable[[], object]] = [
        lambda: check(list(islice(image.extents(), _ITEMS))),
        lambda: image.read(0, min(size, 1000)),
        lambda: image.is_zero(0, size),
        lambda: check(list(islice(image.known_zeros(0, size), _ITEMS))),
        lambda: check(list(islice(image.dirty_ranges("b"), _ITEMS))),
        lambda: image.write(size // 2, memoryview(bytes(size - size // 2))),
        lambda: image.zero(0, size),
        image.flush,
    ]
    for act in acts * 2:
        with suppress(FailureError):
            act()


def target(data: bytes) -> None:
    """Run one input; its first byte selects what the server has said before, and how the image is used."""
    way = data[0] if data else 0
    channel = Said(BEGINNINGS[way % len(BEGINNINGS)] + data[1:])
    own_layer, writable = bool(way & 4) or way % 4 == 2, bool(way & 8)
    try:
        export = negotiate(
            channel, "x", "disk", own_layer=own_layer, bitmaps="all" if way & 16 else ["b"]
        )
    except (BrokenError, FailureError):
        return
    image = NbdImage(Connection(channel, export, "disk"), writable=writable, own_layer=own_layer)
    use(image)
    image.close()


if __name__ == "__main__":
    fuzz(target)
