"""Where a replay writes: for each device an image, and a file of bitmaps beside it.

Images that exist are opened before the stream is read, and keep their size; a missing one is made
when its first block comes, and grows with the stream unless its size is told.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from blkmig_cli import limits
from blkmig_cli.bitmap import DirtyBitmap
from blkmig_cli.bitmapfile import default_path, read_bitmaps
from blkmig_cli.errors import FailureError, UsageError
from blkmig_cli.hints import Hints
from blkmig_cli.images import (
    Image,
    NewImage,
    create_raw,
    half_done,
    open_raw,
    partial_path,
    reopen_raw,
)
from blkmig_cli.journal import Course, Entry, discard_journal, journal_path, read_journal
from blkmig_cli.text import escape, human_size, quote


@dataclass(frozen=True, slots=True)
class Opening:
    """How images are opened.

    ``create``: they may be missing; ``writable``: they will be written; ``force``: they are raw,
    whatever they look like; ``claimed``: also a mounted device; ``disks``: images matter at all.
    ``resume`` goes on with a replay that broke off, ``restart`` starts it afresh.
    """

    create: bool = False
    writable: bool = True
    force: bool = False
    claimed: bool = False
    disks: bool = True
    resume: bool = False
    restart: bool = False


@dataclass(slots=True)
class Target:
    """An image and its bitmaps.

    ``limit`` is the disk's end in bytes, None while an image grows with the stream.
    ``existing_size`` is that of an image that was there before.  ``course``: what of the stream has
    been applied, where anything will be.
    """

    path: str
    bitmaps_path: str | None
    limit: int | None = None
    image: Image | None = None
    existing_size: int | None = None
    course: Course | None = None
    bitmaps: dict[str, DirtyBitmap] = field(default_factory=dict)

    @property
    def size(self) -> int | None:
        """Bytes of the image, or what is told of it."""
        return self.limit if self.image is None else self.image.size

    @property
    def finished(self) -> bool:
        """Has an earlier run done everything here?"""
        return self.course is not None and self.course.finished

    def open(self, told: int | None, how: Opening) -> None:
        """Open the image if it is there; ``told``: the disk's size in bytes.  Raises FailureError."""
        exists = os.path.exists(self.path)
        if how.resume or how.restart:
            self._reopen(exists)
        elif how.create and not exists and os.path.lexists(partial_path(self.path)):
            raise half_done(self.path)
        if self.image is None and how.disks and (exists or not how.create):
            self.image = open_raw(
                self.path, writable=how.writable, force=how.force, claimed=how.claimed
            )
            self.existing_size = self.image.size
            if told is not None and told > self.image.size:
                raise FailureError(
                    f"{escape(self.path)} has {self.image.size} bytes, fewer than "
                    f"the {told} of --device-size"
                )
        elif exists:
            self.existing_size = os.path.getsize(self.path)
        # Now that it is locked, nobody else writes the journal.
        entry = None if how.restart else read_journal(self.path)
        if exists and not how.resume and entry is not None and entry.state != "finished":
            raise half_done(self.path)
        self.limit = told if told is not None else self.existing_size
        if how.writable and how.disks:
            self._plan_course(entry if how.resume and self.image is not None else None, how)

    def _reopen(self, exists: bool) -> None:
        """Take up what a replay has left of a new image, if it has."""
        partial = partial_path(self.path)
        if not os.path.lexists(partial):
            return
        if exists and os.path.samefile(self.path, partial):
            os.unlink(partial)  # it was killed just when the image had its name
        elif exists:
            raise FailureError(
                f"{escape(self.path)} and {escape(partial)} are both there",
                hint="remove or rename the one that is not wanted",
            )
        else:
            self.image = reopen_raw(self.path)

    def _plan_course(self, before: Entry | None, how: Opening) -> None:
        partial = isinstance(self.image, NewImage)
        if before is not None:
            written = before.state != "writing"
            size = (before.size, self.limit)
            fits = before.new if partial else written or not before.new
            if not fits or (None not in size and size[0] != size[1]):
                raise FailureError(
                    f"{escape(journal_path(self.path))} is of another image, or another size",
                    hint="see --device-size, or start afresh with --restart",
                )
        elif how.resume or how.restart:
            discard_journal(self.path)
            if isinstance(self.image, NewImage):
                self.image.resize(0)
                self.image.resize(self.limit or 0)
        new = partial or self.image is None
        self.course = Course(self.path, before, new=new, size=self.limit)

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
        if self.course is not None:
            self.course.begin()
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
