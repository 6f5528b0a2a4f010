"""One disk to write: its image, the file of bitmaps beside it, and how far an earlier run came.

An image that exists is opened before the stream is read, and keeps its size; a missing one is made
when its first block comes, and grows with the stream unless its size is told.
"""

import os
from dataclasses import dataclass, field

from blkmig_cli import limits
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.image import Image
from blkmig_cli.disks.new_image import NewImage, create_raw, half_done, partial_path, reopen_raw
from blkmig_cli.disks.raw import open_raw
from blkmig_cli.errors import FailureError
from blkmig_cli.operations.replay.journal import (
    Course,
    Entry,
    discard_journal,
    journal_path,
    read_journal,
)
from blkmig_cli.text import escape, human_size


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
