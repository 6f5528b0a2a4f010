"""Where a replay writes: for each device an image, and a file of bitmaps beside it.

Images that exist are opened before the stream is read, and keep their size; a missing one is made
when its first block comes, and grows with the stream unless its size is told.
"""

import os
from dataclasses import dataclass, field

from blkmig_cli import limits
from blkmig_cli.bitmap import DirtyBitmap
from blkmig_cli.bitmapfile import default_path, read_bitmaps
from blkmig_cli.errors import FailureError, UsageError
from blkmig_cli.hints import Hints
from blkmig_cli.images import Image, create_raw, half_done, open_raw, partial_path
from blkmig_cli.text import escape, human_size, quote


@dataclass(slots=True)
class Target:
    """An image and its bitmaps.

    ``limit`` is the disk's end in bytes, None while an image grows with the stream.
    ``existing_size`` is that of an image that was there before.
    """

    path: str
    bitmaps_path: str | None
    limit: int | None = None
    image: Image | None = None
    existing_size: int | None = None
    bitmaps: dict[str, DirtyBitmap] = field(default_factory=dict)

    @property
    def size(self) -> int | None:
        """Bytes of the image, or what is told of it."""
        return self.limit if self.image is None else self.image.size

    def check_growth(self, end: int) -> None:
        """Raises FailureError where an image of unknown size would have to reach byte ``end``."""
        if self.limit is None and end > limits.GROWTH_MAX:
            raise FailureError(
                f"{escape(self.path)} would grow to {human_size(end)}",
                hint="if this is meant, say --device-size",
            )

    def reach(self, end: int) -> Image:
        """The image, made if it is missing, and grown to byte ``end`` if it grows at all.

        Raises FailureError.
        """
        self.check_growth(end)
        if self.image is None:
            self.image = create_raw(self.path, self.limit or 0)
        if self.limit is None and end > self.image.size:
            self.image.resize(end)
        return self.image

    def end_at(self, size: int) -> None:
        """Give the image its final size in bytes."""
        if self.image is not None and self.image.size != size:
            self.image.resize(size)

    def close(self) -> None:
        """Let go of the image."""
        if self.image is not None:
            self.image.close()


class Targets:
    """All targets, by device; the key None stands for the stream's only device."""

    def __init__(
        self, images: dict[str | None, str], bitmap_files: dict[str | None, str], hints: Hints
    ) -> None:
        self._hints = hints
        self._by_device: dict[str | None, Target] = {}
        by_path: dict[object, Target] = {}
        for device, path in images.items():
            # One image may serve two names; it is opened once.
            key = _identity(path)
            if key not in by_path:
                by_path[key] = Target(path, bitmap_files.get(device, default_path(path)))
            self._by_device[device] = by_path[key]
        for device, path in bitmap_files.items():
            if device not in images:
                self._by_device[device] = Target("", path)

    @property
    def any(self) -> bool:
        """Is there any target at all?"""
        return bool(self._by_device)

    def open(self, *, create: bool, writable: bool, force: bool, disks: bool) -> None:
        """Open the images that exist, and read their bitmaps.

        ``create``: others may be missing; ``disks``: images matter at all.  Raises FailureError.
        """
        for target in self._distinct():
            told = self._told(target)
            if target.path and target.image is None:
                exists = os.path.exists(target.path)
                if create and not exists and os.path.exists(partial_path(target.path)):
                    raise half_done(target.path)
                if disks and (exists or not create):
                    target.image = open_raw(target.path, writable=writable, force=force)
                    target.existing_size = target.image.size
                    if told is not None and told > target.image.size:
                        raise FailureError(
                            f"{escape(target.path)} has {target.image.size} bytes, fewer than "
                            f"the {told} of --device-size"
                        )
                elif exists:
                    target.existing_size = os.path.getsize(target.path)
            target.limit = told if told is not None else target.existing_size
            if target.bitmaps_path is not None and os.path.exists(target.bitmaps_path):
                content = read_bitmaps(target.bitmaps_path)
                if target.limit is not None and content.size != target.limit:
                    raise FailureError(
                        f"{escape(target.bitmaps_path)} is of a disk of {content.size} bytes, "
                        f"not {target.limit}"
                    )
                target.bitmaps = content.bitmaps

    def close(self) -> None:
        """Let go of all images."""
        for target in self._distinct():
            target.close()

    def finish(self) -> None:
        """Everything is written: new images get their names.  Raises FailureError."""
        for target in self._distinct():
            if target.image is not None:
                target.image.finish()

    def flush(self) -> list[str]:
        """What has been written is on stable storage; returns where new images were begun."""
        begun = []
        for target in self._distinct():
            if target.image is not None:
                target.image.flush()
                if target.existing_size is None:
                    begun.append(partial_path(target.path))
        return begun

    def _distinct(self) -> list[Target]:
        """Every target once, though it may serve two names."""
        return list({id(target): target for target in self._by_device.values()}.values())

    def _told(self, target: Target) -> int | None:
        """Bytes of the target's disk, if told for any of its names."""
        sizes = self._hints.sizes
        names = [device for device, other in self._by_device.items() if other is target]
        return next((sizes[name] for name in [*names, None] if name in sizes), None)

    def hints(self, told: Hints) -> Hints:
        """``told``, completed by what the images and their bitmaps say."""
        sizes = dict(told.sizes)
        granularities = dict(told.granularities)
        for device, target in self._by_device.items():
            if target.limit is not None:
                sizes.setdefault(device, target.limit)
            for name, bitmap in target.bitmaps.items():
                granularities.setdefault((device, name), bitmap.granularity)
        return Hints(sizes, granularities)

    def bind(self, devices: list[str]) -> None:
        """Give every one of ``devices`` its target; raises UsageError where one has none."""
        known = ", ".join(quote(device) for device in devices) or "none"
        default = self._by_device.get(None)
        if default is not None:
            if len(devices) > 1:
                raise UsageError(
                    f"the stream has the devices {known}", hint="say --image DEVICE=IMAGE for each"
                )
            if devices:
                self._by_device.setdefault(devices[0], default)
        for device in devices:
            if device not in self._by_device:
                raise UsageError(
                    f"device {quote(device)} has no image; the stream has {known}",
                    hint="say --image DEVICE=IMAGE for each",
                )
        for name in self._by_device:
            # Of a disk of 0 bytes there is nothing in a stream.
            if name is not None and name not in devices and self._by_device[name].limit != 0:
                raise UsageError(f"the stream has nothing for device {quote(name)}; it has {known}")

    def need_image(self, device: str, offset: int | None = None) -> None:
        """Raises UsageError where a device with blocks has a file for its bitmaps only."""
        target = self._by_device.get(device)
        if target is not None and not target.path:
            raise UsageError(
                f"device {quote(device)} has blocks, but no image",
                offset=offset,
                hint="say --image DEVICE=IMAGE, or --bitmaps-only",
            )

    def claim(self, device: str, offset: int) -> Target:
        """The target of a record's device; the unnamed target goes to the first that asks.

        Raises UsageError where it has none.
        """
        target = self._by_device.get(device)
        if target is None:
            target = self._by_device.get(None)
            named = [name for name in self._by_device if name is not None]
            if target is None or any(self._by_device[name] is target for name in named):
                raise UsageError(
                    f"device {quote(device)} has no image",
                    offset=offset,
                    hint="say --image DEVICE=IMAGE for each device",
                )
            self._by_device[device] = target
        return target

    def make_empty(self) -> None:
        """Make the missing images of disks that are told to have 0 bytes; raises FailureError."""
        for target in self._by_device.values():
            if target.limit == 0 and target.path and target.image is None:
                target.image = create_raw(target.path, 0)

    def get(self, device: str) -> Target | None:
        """The target of ``device``, if it has one."""
        return self._by_device.get(device)


def _identity(path: str) -> object:
    """What two paths of one file have in common, links of both kinds followed."""
    try:
        found = os.stat(path)
    except OSError:
        return os.path.realpath(path)
    return found.st_dev, found.st_ino
