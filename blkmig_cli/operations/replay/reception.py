"""What the image of a destination has received of its disk, from the disk's start and without a gap.

The journal records it; with a resume token, ``send`` leaves it out.
"""

from dataclasses import replace
from functools import partial

from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.image import Image
from blkmig_cli.errors import FailureError
from blkmig_cli.operations.replay.journal import Entry
from blkmig_cli.operations.resume_token import Received, digest_of
from blkmig_cli.progress import Tick
from blkmig_cli.ranges import IntervalSet
from blkmig_cli.text import escape


@dataclass(slots=True)
class Reception:
    """The first ``length`` bytes of the disk of ``device`` (None while unknown) are on the image.

    ``bitmaps``: the stream has bitmaps of the disk.
    """

    device: str | None = None
    length: int = 0
    bitmaps: bool = False

    def restore(self, entry: Entry) -> None:
        """Take over what an earlier run has received."""
        self.device, self.length, self.bitmaps = entry.device, entry.received, entry.bitmaps

    def in_entry(self, entry: Entry) -> Entry:
        """Return a journal entry that records it."""
        return replace(entry, device=self.device, received=self.length, bitmaps=self.bitmaps)

    def add(self, written: IntervalSet) -> None:
        """Note which bytes of the disk have been ``written`` to the image."""
        self.length = written.end_at(self.length)

    def read(self, image: Image | None, tick: Tick) -> Received | None:
        """Return what ``image`` has received, with its digest; None if that is nothing.

        ``tick`` gets the bytes of the image that were read.  Raises FailureError where it fails, or has
        become smaller.
        """
        if image is None or not self.length or self.device is None:
            return None
        if image.size < self.length:
            raise FailureError(
                f"{escape(image.path)} has {image.size} bytes, {self.length} were received",
                hint="use --restart to start over",
            )
        digest = digest_of(image, self.length, partial(tick, disk=self.device))
        return Received(self.device, self.length, digest, self.bitmaps)
