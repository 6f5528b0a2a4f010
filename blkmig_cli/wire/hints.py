"""What the caller knows and the stream does not say: disk sizes, and granularities for v1."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Hints:
    """Sizes of disks and granularities of bitmaps, in bytes; device None stands for every device.

    ``sizes`` come from options, which are believed before what the stream states; ``images`` from
    image files and manifests, which are believed after it.
    """

    sizes: dict[str | None, int] = field(default_factory=dict)
    granularities: dict[tuple[str | None, str], int] = field(default_factory=dict)
    images: dict[str | None, int] = field(default_factory=dict)

    def option_size(self, device: str) -> int | None:
        """Bytes of the device's disk as an option says, if one does."""
        return self.sizes.get(device, self.sizes.get(None))

    def image_size(self, device: str) -> int | None:
        """Bytes of the device's disk as an image file or a manifest says, if one does."""
        return self.images.get(device, self.images.get(None))

    def size(self, device: str) -> int | None:
        """Bytes of the device's disk by option, else by image, if either is known."""
        size = self.option_size(device)
        return self.image_size(device) if size is None else size

    def granularity(self, device: str, bitmap: str) -> int | None:
        """Granularity in bytes of the device's bitmap, if known."""
        found = self.granularities.get((device, bitmap))
        return found if found is not None else self.granularities.get((None, bitmap))
