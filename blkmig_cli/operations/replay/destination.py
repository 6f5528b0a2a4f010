"""The destination of one disk: its image and journal.

The methods are called in this order:

``open``       examines existing files, and locks the image; nothing is changed.
``decide``     sets the disk's size; for a stream in a file before the first write, else at its end.
``image_for``  before every write; the first call writes the journal, and creates a new image.
``save``       at intervals: flushes the image to stable storage, and records this in the journal.
``complete``   after the stream has been applied to its end: sets the image's size.
``rename``     gives a new image its name.
``finish``     after everything is done, including the bitmaps.
``stop``       instead of the last three: the stream is incomplete or damaged, and so is the image.
``close``      always.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from blkmig_cli import limits
from blkmig_cli.disks.formats import RAW, keeps_bitmaps, new_format
from blkmig_cli.disks.image import Image, StoredBitmap
from blkmig_cli.disks.neighbours import Neighbours, device_kind, exists, neighbours_of, remove
from blkmig_cli.disks.new_image import (
    create_over,
    create_partial,
    finish,
    open_in_format,
    open_partial,
)
from blkmig_cli.disks.open import Register, open_image
from blkmig_cli.disks.raw import RawImage, open_raw
from blkmig_cli.disks.record import Holding, discard_record, write_record
from blkmig_cli.errors import FailureError, UsageError
from blkmig_cli.operations.replay.history import History
from blkmig_cli.operations.replay.journal import (
    Entry,
    State,
    Stop,
    discard_journal,
    read_journal,
    write_journal,
)
from blkmig_cli.operations.replay.reception import Reception
from blkmig_cli.operations.replay.request import ReplayRequest
from blkmig_cli.ranges import IntervalSet
from blkmig_cli.text import escape, human_size

if TYPE_CHECKING:
    from blkmig_cli.disks.bitmap import DirtyBitmap

_NEW_START = "use --restart to start over"


class Destination:
    """The image at ``path``, written according to ``request``.

    ``size``: that of the disk in bytes, None while unknown.  ``image_format``: that of -f, None without.
    ``holds``: what the image will hold at the end, None if that is unknown; ``grows``: an existing image
    may be smaller than the disk.  ``reception``: what it has received of the disk.
    """

    def __init__(
        self, path: str, size: int | None, request: ReplayRequest, image_format: str | None
    ) -> None:
        """Raises FailureError where a block device cannot be identified."""
        self.path = path
        self.neighbours: Neighbours = neighbours_of(path)
        self.size = size
        self.history = History(self.neighbours.journal)
        self.reception = Reception()
        self.holds: Holding | None = None
        self.grows = False
        self._request = request
        self._stated_format = image_format
        self._format = RAW  # of a new image
        self._new = False
        self._image: Image | None = None
        self._replaced: RawImage | None = None
        self._before: Entry | None = None
        self._assumed = self._begun = self._writing = self._rest = False

    # Properties.

    @property
    def is_device(self) -> bool:
        """Whether it is a block device or an NBD export."""
        return self.neighbours.partial is None

    @property
    def image(self) -> Image | None:
        """The existing or unfinished image, None if there is none yet."""
        return self._image

    @property
    def existing_size(self) -> int | None:
        """The size in bytes of an image that is written in place; None for a new one."""
        image = self._image
        return None if image is None or self._new else image.size

    @property
    def known_size(self) -> int | None:
        """:attr:`existing_size`, None where an earlier run has made the image in a size that it assumed."""
        before = self._before
        assumed = before is not None and before.new and before.assumed
        return None if assumed else self.existing_size

    @property
    def limit(self) -> int | None:
        """The end of writing in bytes: that of the disk, or else of an existing file.

        None: unknown; a new image grows.
        """
        if self.size is None and not self.is_device:
            return self.existing_size
        return self.size

    @property
    def begun(self) -> bool:
        """Whether this run or an earlier one has written to the image."""
        return self._begun

    @property
    def finished(self) -> bool:
        """Whether an earlier run has finished everything."""
        return self.history.finished

    @property
    def journal(self) -> Entry | None:
        """The entry in the journal of an earlier run, which this run continues."""
        return self._before

    @property
    def incomplete_path(self) -> str | None:
        """The path of the image while it is incomplete, else None."""
        if not self._begun or self.finished or self._image is None:
            return None
        return self._image.path

    @property
    def needs_size(self) -> bool:
        """Whether nothing can be written before the disk's size is known.

        On a device, the padding of the last chunk must not overwrite what is after the disk's end; an
        image of another format than raw is created with its size.
        """
        return self.is_device or (self._request.makes and self._format != RAW)

    def stored_bitmaps(self) -> Sequence[StoredBitmap] | None:
        """Return the bitmaps in the image; None where it has no place for any."""
        if self._new or self._image is None:
            return (
                [] if self._request.makes and keeps_bitmaps(self._format, self._options) else None
            )
        return self._image.bitmaps()

    @property
    def _options(self) -> Sequence[str]:
        return self._request.format_options if self._format != RAW else ()

    # Before the first write.

    def open(self, register: Register) -> None:
        """Examine the image and its neighbours, and lock it; nothing is changed.

        ``register``: see ``open.open_image``.  Raises FailureError where it is missing, in the way, in
        use, incomplete or too small, or its neighbours are invalid; UsageError.
        """
        request = self._request
        present = self.is_device or os.path.lexists(self.path)
        partial = self.neighbours.partial is not None and exists(self.neighbours.partial)
        self._check_place(present=present, partial=partial)
        if partial:
            assert self.neighbours.partial is not None
            self._image, self._new = open_partial(self.neighbours.partial), True
        if present and request.overwrite:
            self._replaced = open_raw(self.path, writable=not request.dry_run)
        elif present:
            self._image, self._new = self._open_existing(register), False
        # Now that it is locked, no other process writes the journal.
        entry = None if request.restart else read_journal(self.neighbours)
        if request.resume:
            self._before = self._continued(entry, register, present=present, partial=partial)
        elif entry is not None and entry.state != "finished" and (present or partial):
            raise self._incomplete()
        before = self._before
        self._begun = before is not None
        if before is not None:
            self.reception.restore(before)
        self._check_sizes()
        if not present and self.neighbours.bitmaps is not None and request.makes:
            self._check_left_bitmaps(
                expected=request.restart or (entry is not None and request.resume)
            )
        self._new = self._new or (self._image is None and request.makes)
        self.history = self._new_history(None)

    def _open_existing(self, register: Register) -> Image:
        """Open the image of this name, as its options require; raises FailureError."""
        request = self._request
        image = open_image(
            self.path,
            writable=request.disks and not request.dry_run,
            image_format=self._stated_format,
            shared=not request.disks,
            claimed=request.mounted,
            register=register,
        )
        if request.disks or request.dry_run or not request.bitmaps or image.bitmaps() is None:
            return image
        # The bitmaps are written into it.
        image.close()
        return open_image(self.path, writable=True, image_format=self._stated_format)

    def _check_place(self, *, present: bool, partial: bool) -> None:
        """Refuse an image that is in the way, or missing."""
        path, request = self.path, self._request
        if self.is_device and request.makes:
            if request.overwrite:
                raise UsageError(
                    f"{escape(path)} is {device_kind(path)}",
                    hint="without --overwrite, it is written in place",
                )
            raise FailureError(
                f"{escape(path)}: File exists", hint="without --create, it is written in place"
            )
        if partial and not request.continues:
            raise self._incomplete()
        if partial and present and not request.overwrite:
            raise FailureError(
                f"both {escape(path)} and {escape(self.neighbours.partial or '')} exist",
                hint="remove or rename one of them, or use --overwrite to replace the first",
            )
        if present and request.makes:
            mode = os.lstat(path).st_mode
            if not (request.overwrite or request.resume):
                entry = None if request.restart else read_journal(self.neighbours)
                unfinished = entry is not None and entry.state != "finished"
                raise self._incomplete() if unfinished else self._in_the_way()
            if not stat.S_ISREG(mode):
                kind = "a symbolic link" if stat.S_ISLNK(mode) else "not a regular file"
                raise FailureError(f"{escape(path)} is {kind}", hint="specify the file itself")
        if not (present or partial or request.makes):
            raise FailureError(
                f"{escape(path)}: No such file or directory", hint="use --create to make it"
            )
        if request.makes or partial:
            self._format = new_format(path, self._stated_format)

    def _continued(
        self, entry: Entry | None, register: Register, *, present: bool, partial: bool
    ) -> Entry | None:
        """Return the journal entry to continue from; None if there is none.

        Raises FailureError where it is the journal of another image.
        """
        if partial:
            # An entry with "finished" is older than the unfinished image.
            if entry is None or entry.state == "finished":
                return None
            if not entry.new:
                raise self._other_image()
            if entry.image_format != self._format:
                raise FailureError(
                    f"{escape(self.path)}: the unfinished image has format "
                    f"{escape(entry.image_format)}, not {self._format}",
                    hint=f"use -f {escape(entry.image_format)}, or {_NEW_START}",
                )
            if self._format != RAW:
                assert self._image is not None
                self._image.close()
                self._image = open_in_format(self._image.path, self._format)
            return entry
        if not present:
            return None
        named = entry is not None and (
            entry.state == "finished" or (entry.state == "written" and entry.new)
        )
        if named:
            if self._replaced is not None:
                self._replaced.close()
                self._image, self._replaced = self._open_existing(register), None
            return entry
        if self._request.overwrite:
            if entry is not None and not entry.new:
                raise self._incomplete()
            return None
        if self._request.create:
            raise self._in_the_way()
        if entry is not None and entry.new:
            raise self._other_image()
        return entry

    def _check_sizes(self) -> None:
        """Refuse an image that is smaller than the disk's specified size, or not that of the journal."""
        existing, before = self.existing_size, self._before
        if existing is not None and self.size is not None and existing < self.size:
            raise FailureError(
                f"{escape(self.path)} has {existing} bytes, the disk {self.size}",
                hint="enlarge the image, or see --device-size",
            )
        if before is None or before.size is None:
            return
        # At the end of an incomplete stream, the size was only the likely one.
        if before.state != "incomplete" and self.size is not None and self.size != before.size:
            raise FailureError(
                f"{escape(self.neighbours.journal)} is of a disk of {before.size} bytes, "
                f"not {self.size}",
                hint=f"see --device-size, or {_NEW_START}",
            )
        grows = before.stream is not None and not before.new
        if existing is not None and (
            (existing < before.size and not grows) or (before.new and existing != before.size)
        ):
            raise FailureError(
                f"{escape(self.path)} has {existing} bytes, the replay left {before.size}",
                hint=_NEW_START,
            )

    def _check_left_bitmaps(self, *, expected: bool) -> None:
        """Refuse bitmaps of a missing image: they would be taken for those of the new one."""
        path = self.neighbours.bitmaps
        if path is not None and exists(path) and not (expected or self._request.overwrite):
            raise FailureError(
                f"{escape(path)} exists, though {escape(self.path)} does not",
                hint="remove it, or use --overwrite to replace it",
            )

    def bind(self, device: str, size: int | None) -> None:
        """Set the device, and the size of its disk in bytes, if known; raises FailureError."""
        self.reception.device = device
        if self.size is None and size is not None:
            self.size = size
            self._check_sizes()

    def check_growth(self, end: int) -> None:
        """Raise FailureError where an image of unknown size would have to reach byte ``end``."""
        if self.limit is None and end > limits.GROWTH_MAX:
            raise FailureError(
                f"{escape(self.path)} would grow to {human_size(end)}",
                hint="if this is intended, specify --device-size",
            )

    def decide(
        self, size: int, overlaps: IntervalSet | None = None, *, assumed: bool = False
    ) -> None:
        """Set the size of the disk in bytes; ``assumed``: it is only derived from the end of the last chunk.

        ``overlaps``: see ``History``, for a stream in a file.
        """
        self.size, self._assumed = size, assumed
        if overlaps is not None:
            self.history = self._new_history(overlaps)

    def continue_with_rest(self) -> None:
        """Expect a stream of what was not received, of whose records none has been applied."""
        self._rest = self._before is not None
        self.history = self._new_history(None)

    def _new_history(self, overlaps: IntervalSet | None) -> History:
        return History(
            self.neighbours.journal,
            None if self._rest else self._before,
            new=self.existing_size is None,
            later_overlaps=overlaps,
            thorough=self._request.verify,
        )

    # Writing.

    def image_for(self, end: int) -> Image:
        """Return the image for writing up to byte ``end``; creates or extends it if necessary.

        The first call writes the journal.  Raises FailureError.
        """
        image = self._image
        if image is not None and not self._new and not self._writing:
            self._prepare(image)  # before the journal: the image may be in use
        if image is None:
            image = self._image = self._create()
        elif not self._begun:
            image = self._image = self._begin(image)
        if not self._writing:
            self._prepare(image)
        if self._new or self.grows:
            wanted = end if self.size is None else self.size
            if image.size < wanted:
                image.resize(wanted)
        return image

    def _prepare(self, image: Image) -> None:
        if not self._new:
            discard_record(self.neighbours)
        if self._rest:
            # From now on, the journal is that of the rest; the stream before must not be resumed.
            self._write_journal(Entry("writing", self._new, self.size))
        image.begin_writing()
        self._writing = True

    def _create(self) -> Image:
        """Create the new image and its journal; the journal of another one must not remain."""
        path = self.neighbours.partial
        assert path is not None
        discard_journal(self.neighbours)
        try:
            image = self._create_partial(path)
        except FailureError:
            if os.path.lexists(path):
                raise self._incomplete() from None  # another process was faster
            raise
        self._image, self._begun = image, True
        self._write_journal(Entry("writing", True, self.size))
        return image

    def _create_partial(self, path: str) -> Image:
        like = None if self._replaced is None else self.path
        return create_partial(path, like, self._format, self.size or 0, self._options)

    def _begin(self, image: Image) -> Image:
        """Write the journal before the first write to an existing image, and return the image."""
        self._begun = True
        self._write_journal(Entry("writing", self._new, self.size))
        if not self._new:
            return image
        # What an earlier replay left of it is dropped.
        if self._format == RAW:
            image.resize(0)
            return image
        assert isinstance(image, RawImage)
        self._image = None  # it is closed
        return create_over(image, self._format, self.size or 0, self._options)

    def _write_journal(self, entry: Entry | None) -> None:
        if entry is not None:
            stream = None if self.holds is None else self.holds.id
            entry = replace(entry, image_format=self._format, stream=stream, assumed=self._assumed)
            write_journal(self.neighbours, self.reception.in_entry(entry))

    def save(self, position: int, state: State = "writing", stop: Stop | None = None) -> None:
        """Flush the image, and record that all records before ``position`` are on it.

        ``position`` is in bytes of the stream.  Raises FailureError.
        """
        if self._begun and not self.finished and self._image is not None:
            self._image.flush()
            self._write_journal(self.history.entry(state, position, self.size, stop))

    # The end.

    def complete(self) -> None:
        """Check the image after the end of the stream, and set its size.

        Raises FailureError where an earlier run applied another stream, or to another image.
        """
        if self._begun:
            self.history.end()
        image = self._image
        if image is not None and self._new and self._begun and self.size not in (None, image.size):
            image.resize(self.size or 0)

    def write_bitmaps(self, bitmaps: "Sequence[DirtyBitmap]") -> None:
        """Write bitmaps into the image, after the disk; raises FailureError."""
        assert self._image is not None
        if not self._new:
            discard_record(self.neighbours)
        self._image.write_bitmaps(bitmaps)

    def make_empty(self) -> None:
        """Create the image of a disk of 0 bytes, of which nothing is in the stream.

        Raises FailureError.
        """
        if self._image is None and self.size == 0 and self.neighbours.partial is not None:
            self._image = self._create_partial(self.neighbours.partial)

    def rename(self) -> None:
        """Give a new image its name; remove the neighbours of an image that it replaces.

        Raises FailureError where an image of that name exists and must not be replaced.
        """
        image = self._image
        if image is not None and self._begun and self.holds is not None:
            image.end_writing()  # so that its file no longer changes when there is a record of it
        if image is not None and self._new and image.path != self.path:
            remove(self.neighbours.bitmaps)
            remove(self.neighbours.identity)
            finish(image, self.path, replace=self._request.overwrite)

    def finish(self, position: int, accepted: Stop | None = None) -> None:
        """Record that everything is done, up to byte ``position`` of the stream; raises FailureError.

        ``accepted``: the end of the stream, where it is incomplete or damaged.
        """
        image = self._image
        if not self._begun or self.finished or image is None:
            return
        if self.holds is not None and image.is_single_file:
            write_record(self.neighbours, self.holds)
        self.save(position, "finished", accepted)

    def stop(self, position: int, stop: Stop) -> None:
        """Record the end of an incomplete or damaged stream; raises FailureError."""
        self.save(position, "incomplete", stop)

    def accept(self) -> None:
        """Accept the image as the earlier run left it at the end of a stream; raises FailureError."""
        image, before = self._image, self._before
        if self.finished or image is None or before is None:
            return
        size = before.size if self.size is None else self.size
        if self._new and size not in (None, image.size):
            image.resize(size or 0)
        image.flush()
        self._write_journal(replace(before, state="written", size=size))
        self.rename()
        self._write_journal(replace(before, state="finished", size=size))

    def close(self) -> None:
        """Close the image and release its locks."""
        for image in (self._image, self._replaced):
            if image is not None:
                image.close()

    # Errors.

    def _incomplete(self) -> FailureError:
        return FailureError(
            f"{escape(self.path)} is incomplete: a replay was interrupted, or another is at work",
            hint="use --resume to continue it, or --restart to start over",
        )

    def _in_the_way(self) -> FailureError:
        if not os.path.isfile(self.path):
            return FailureError(
                f"{escape(self.path)}: File exists, but is not a regular file",
                hint="remove it, or choose another name",
            )
        return FailureError(
            f"{escape(self.path)}: File exists",
            hint="use --overwrite to replace it, or leave out --create to write it in place",
        )

    def _other_image(self) -> FailureError:
        return FailureError(
            f"{escape(self.neighbours.journal)} is of another image", hint=_NEW_START
        )
