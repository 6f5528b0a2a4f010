"""Where a replay writes: for each of the stream's devices a target, which two names may share."""

import os
from collections.abc import Iterator

from blkmig_cli.disks.bitmap_file import default_path, read_bitmaps
from blkmig_cli.disks.image import Image
from blkmig_cli.disks.new_image import NewImage, create_raw, partial_path
from blkmig_cli.errors import FailureError, UsageError
from blkmig_cli.operations.replay.journal import Course
from blkmig_cli.operations.replay.target import Opening, Target
from blkmig_cli.text import escape, quote
from blkmig_cli.wire.hints import Hints


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

    def open(self, how: Opening) -> None:
        """Open the images that exist, and read their bitmaps.  Raises FailureError."""
        for target in self._distinct():
            told = self._told(target)
            if target.path:
                target.open(told, how)
            else:
                target.limit = told
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

    def checkpoint(self, position: int) -> None:
        """All records before byte ``position`` of the stream have been written: confirm them.

        Raises FailureError.
        """
        for target, image, course in self._begun():
            if not target.finished:
                image.flush()
                course.reached(position)

    def finish(self, position: int) -> None:
        """Everything is written, up to byte ``position``: new images get their names.

        Raises FailureError: also where a resumed replay was of something else.
        """
        for target, image, course in self._begun():
            course.settle(image)
            if not target.finished:
                image.flush()
                course.reached(position, "written")
        for target in self._distinct():
            if target.image is not None and not target.finished:
                target.image.finish()

    def conclude(self, position: int) -> None:
        """All is done, bitmaps too.  Raises FailureError."""
        for target, _, course in self._begun():
            if not target.finished:
                course.reached(position, "finished")

    def flush(self) -> list[str]:
        """What has been written is on stable storage; returns the paths of what is half done."""
        begun = []
        for target, image, _ in self._begun():
            if not target.finished:
                image.flush()
                new = isinstance(image, NewImage)
                begun.append(partial_path(target.path) if new else target.path)
        return begun

    def _begun(self) -> Iterator[tuple[Target, Image, Course]]:
        """The targets that have been written to, now or in an earlier run."""
        for target in self._distinct():
            if target.image is not None and target.course is not None and target.course.begun:
                yield target, target.image, target.course

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
        sizes = dict(told.images)
        granularities = dict(told.granularities)
        for device, target in self._by_device.items():
            if target.limit is not None and told.option_size(device or "") is None:
                sizes.setdefault(device, target.limit)
            for name, bitmap in target.bitmaps.items():
                granularities.setdefault((device, name), bitmap.granularity)
        return Hints(told.sizes, granularities, sizes)

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
