"""Values that the caller knows and the stream may not state: disk sizes, and granularities of v1."""

from dataclasses import field
from typing import TYPE_CHECKING

from blkmig_cli.dataclass import dataclass

if TYPE_CHECKING:
    from blkmig_cli.wire.identity import Identity


@dataclass(slots=True)
class Hints:
    """Sizes of disks and granularities of bitmaps, in bytes; device None stands for every device.

    ``sizes`` come from options, which take precedence over the stream; ``images`` come from image
    files and manifests, over which the stream takes precedence.  ``largest``: the devices whose disks are
    as large as the stream allows (``max`` in an option).  ``identity``: that of a manifest, for a stream
    that states none.
    """

    sizes: dict[str | None, int] = field(default_factory=dict)
    granularities: dict[tuple[str | None, str], int] = field(default_factory=dict)
    images: dict[str | None, int] = field(default_factory=dict)
    largest: set[str | None] = field(default_factory=set)
    identity: "Identity | None" = None

    @property
    def names_any(self) -> bool:
        """Whether an option names a device or a bitmap."""
        devices = {*self.sizes, *self.largest} - {None}
        return bool(devices or self.granularities)

    def takes_most(self, device: str) -> bool:
        """Return whether the disk of ``device`` is to be as large as the stream allows (``max``)."""
        return device in self.largest or (None in self.largest and device not in self.sizes)

    def option_size(self, device: str) -> int | None:
        """Return the size of the disk of ``device`` in bytes from an option, if specified."""
        if device in self.largest:
            return None
        return self.sizes.get(device, self.sizes.get(None))

    def image_size(self, device: str) -> int | None:
        """Return the size of the disk of ``device`` in bytes from an image or a manifest, if it applies."""
        if self.takes_most(device):
            return None
        return self.images.get(device, self.images.get(None))

    def size(self, device: str) -> int | None:
        """Return the size of the disk of ``device`` in bytes from an option, else from an image, if known."""
        if not (self.sizes or self.images) or self.takes_most(device):
            return None
        size = self.option_size(device)
        return self.image_size(device) if size is None else size

    def granularity(self, device: str, bitmap: str) -> int | None:
        """Return the granularity in bytes of ``bitmap`` of ``device``, if known.

        The bitmap may also be named DEVICE/NAME, as in reports.
        """
        for key in ((device, bitmap), (None, bitmap), (None, f"{device}/{bitmap}")):
            if key in self.granularities:
                return self.granularities[key]
        return None
