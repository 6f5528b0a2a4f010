"""What the caller knows and the stream does not say: disk sizes, and granularities for v1."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Hints:
    """Sizes of disks and granularities of bitmaps, in bytes; device None stands for every device.

    ``largest``: the devices whose disks are as large as the stream allows.
    """

    sizes: dict[str | None, int] = field(default_factory=dict)
    granularities: dict[tuple[str | None, str], int] = field(default_factory=dict)
    largest: set[str | None] = field(default_factory=set)

    def takes_most(self, device: str) -> bool:
        """Whether the device's disk is to be as large as the stream allows (``max``)."""
        return device in self.largest or (None in self.largest and device not in self.sizes)

    def size(self, device: str) -> int | None:
        """Size of the device's disk in bytes, if told."""
        if device in self.largest:
            return None
        return self.sizes.get(device, self.sizes.get(None))

    def granularity(self, device: str, bitmap: str) -> int | None:
        """Granularity of the device's bitmap in bytes, if told."""
        told = self.granularities.get((device, bitmap))
        return told if told is not None else self.granularities.get((None, bitmap))
