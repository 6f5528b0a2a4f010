"""What the caller knows and the stream does not say: disk sizes, and granularities for v1."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Hints:
    """Sizes of disks and granularities of bitmaps, in bytes; device None stands for every device.

    ``sizes`` come from options, which are believed before what the stream states; ``images`` from
    image files and manifests, which are believed after it.  ``largest``: the devices whose disks are
    as large as the stream allows (``max`` in an option).
    """

    sizes: dict[str | None, int] = field(default_factory=dict)
    granularities: dict[tuple[str | None, str], int] = field(default_factory=dict)
    images: dict[str | None, int] = field(default_factory=dict)
    largest: set[str | None] = field(default_factory=set)

    def takes_most(self, device: str) -> bool:
        """Return whether the disk of ``device`` is to be as large as the stream allows (``max``)."""
        return device in self.largest or (None in self.largest and device not in self.sizes)

    def option_size(self, device: str) -> int | None:
        """Bytes of the disk of ``device`` as an option says, if one does."""
        if device in self.largest:
            return None
        return self.sizes.get(device, self.sizes.get(None))

    def image_size(self, device: str) -> int | None:
        """Bytes of the disk of ``device`` as an image file or a manifest says, if one does and may."""
        if self.takes_most(device):
            return None
        return self.images.get(device, self.images.get(None))

    def size(self, device: str) -> int | None:
        """Bytes of the disk of ``device`` by option, else by image, if either is known."""
        if self.takes_most(device):
            return None
        size = self.option_size(device)
        return self.image_size(device) if size is None else size

    def granularity(self, device: str, bitmap: str) -> int | None:
        """Granularity in bytes of ``bitmap`` of ``device``, if known; also as reports name it."""
        for key in ((device, bitmap), (None, bitmap), (None, f"{device}/{bitmap}")):
            if key in self.granularities:
                return self.granularities[key]
        return None
