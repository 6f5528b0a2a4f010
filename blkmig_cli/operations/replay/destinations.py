"""The destinations of a stream's disks and bitmaps, by device, opened and closed together."""

import os
from collections.abc import Iterator

from blkmig_cli.checks.names import Names
from blkmig_cli.disks.formats import RAW, new_format
from blkmig_cli.disks.neighbours import SUFFIXES, device_kind, exists
from blkmig_cli.errors import UsageError
from blkmig_cli.operations.replay.bitmap_place import BitmapPlace, BitmapsFile, BitmapsInImage
from blkmig_cli.operations.replay.destination import Destination
from blkmig_cli.operations.replay.request import TEMPLATE, ReplayRequest
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.text import devices_text, encode_name, quote
from blkmig_cli.wire.hints import Hints

_EACH = "use --image DEVICE=IMAGE for each"
# The longest name of a file, in bytes (Linux: NAME_MAX).
_NAME_MAX = 255


class Destinations:
    """The destinations of ``request``; ``uses`` are the other files of this run.

    A destination without a device (key None) is that of the stream's only one: of the first that occurs.
    """

    def __init__(self, request: ReplayRequest, uses: FileUses) -> None:
        self._request = request
        self._uses = uses
        self._known = request.known
        self._images: dict[str | None, Destination] = {}
        self._found: dict[str, Destination] = {}  # by the devices so far
        self._places: dict[str | None, BitmapPlace] = {}  # those of --bitmaps-to
        self._own: dict[str | None, BitmapPlace] = {}  # those in images, or beside them
        self._only: str | None = None  # the device of key None
        unnamed = request.images.get(None, "")
        self._template = unnamed if request.makes and TEMPLATE in unnamed else None

    def __iter__(self) -> Iterator[Destination]:
        return iter(self._images.values())

    def items(self) -> Iterator[tuple[str | None, Destination]]:
        """Yield all destinations, with the devices for which they were specified."""
        return iter(self._images.items())

    def open(self) -> None:
        """Open all specified destinations; nothing is changed.

        Raises UsageError where a file has two uses, before anything is opened for writing;
        FailureError as ``Destination.open``, and for an invalid file of bitmaps.
        """
        images = dict(self._request.images)
        if self._template is not None:
            del images[None]
        for device, path in images.items():
            self._add(device, path)
        if self._request.bitmaps:
            for device, path in self._request.bitmap_files.items():
                self._add_place(device, path)
        self._check_options()
        for device in images:
            self._open(device)
        for place in self._places.values():
            if isinstance(place, BitmapsFile):
                place.read()

    def close(self) -> None:
        """Close all images."""
        for destination in self:
            destination.close()

    def hints(self, *, existing: bool) -> Hints:
        """Return the known sizes and granularities: from the request, image files and their bitmaps.

        ``existing``: with the sizes of existing image files.
        """
        known = self._known
        granularities, images = dict(known.granularities), dict(known.images)
        for device, destination in self._images.items():
            size = None if destination.is_device else destination.known_size
            if size is not None and existing:
                images.setdefault(device, size)
        for places in (self._places, self._own):
            for device, place in places.items():
                for name, granularity in place.granularities.items():
                    granularities.setdefault((device, name), granularity)
        return Hints(dict(known.sizes), granularities, images, set(known.largest), known.identity)

    @property
    def need_size(self) -> bool:
        """Whether the size of a disk is unknown before the stream's end, but needed for its first write.

        See ``Destination.needs_size``.
        """
        known = self._known.sizes
        if not self._request.disks:
            return False
        template = self._template
        if template is not None and None not in known:
            stated = self._request.format_of(None)
            return new_format(template, stated) != RAW
        return any(destination.needs_size and destination.size is None for destination in self)

    def _check_options(self) -> None:
        """Raise UsageError where -o is specified, and all images are raw."""
        request = self._request
        if request.format_options:
            made = [(device, found.path) for device, found in self._images.items()]
            made += [(None, self._template)] if self._template is not None else []
            if all(new_format(path, request.format_of(device)) == RAW for device, path in made):
                raise UsageError("-o is for images of other formats than raw", hint="see -f")

    # By device.

    def image_of(self, device: str, offset: int | None = None) -> Destination:
        """Return the destination of the disk of ``device``, which has a record at byte ``offset``.

        Raises UsageError where it has none; as :meth:`open` where it is created only now.
        """
        found = self._found.get(device) or self.find(device)
        if found is None:
            has_place = device in self._places or (None in self._places and self._is_only(device))
            what = "has blocks, but no image" if has_place else "has no image"
            other = ", or --bitmaps-only" if has_place else ""
            raise UsageError(f"device {quote(device)} {what}", offset=offset, hint=_EACH + other)
        return found

    def find(self, device: str) -> Destination | None:
        """Return the destination of the disk of ``device``, if it has one; raises as :meth:`open`."""
        found = self._images.get(device)
        if found is None and self._template is not None:
            self._add(device, self._file_of(device, self._template))
            self._open(device)
            found = self._images[device]
        if found is None and None in self._images and self._is_only(device):
            found = self._images[None]
        if found is not None:
            found.bind(device, self._size(device))
            self._found[device] = found
        return found

    def continue_with_rest(self) -> None:
        """Expect a stream of what the images have not received, each of the same device."""
        for device, destination in self.items():
            if device is None:
                self._only = destination.reception.device
            destination.continue_with_rest()

    def add_bitmaps(self, device: str) -> None:
        """Note that the stream has bitmaps of ``device``; raises as :meth:`find`."""
        found = self._found.get(device) or self.find(device)
        if found is not None:
            found.reception.bitmaps = True

    def found(self, device: str) -> Destination | None:
        """Return the destination of the disk of ``device``, if :meth:`find` has found it before."""
        return self._found.get(device)

    def place_of(self, device: str, offset: int | None = None) -> BitmapPlace:
        """Return the place for the bitmaps of ``device``.

        Raises UsageError where there is none; as :meth:`image_of`.
        """
        if device in self._places:
            return self._places[device]
        if None in self._places and self._is_only(device):
            return self._places[None]
        destination = self.image_of(device, offset)
        for key, own in self._own.items():
            if self._images[key] is destination:
                return own
        raise UsageError(
            f"{quote(destination.path)} is {device_kind(destination.path)}, which has no place for "
            f"the bitmaps of {quote(device)}",
            offset=offset,
            hint="specify a file with --bitmaps-to, or use --no-bitmaps",
        )

    def bind(self, devices: list[str], names: Names) -> None:
        """Find the destinations of all ``devices``, those of the stream that are applied.

        ``names`` are all names in the stream.  Raises UsageError where one has none, and for one that
        is named in an option but is not in the stream; else as :meth:`image_of`.
        """
        request, known = self._request, devices_text(devices)
        # A stream has no records of a disk of 0 bytes.
        for option, paths in (("--image", request.images), ("--bitmaps-to", request.bitmap_files)):
            names.check_devices(option, (name for name in paths if not self._is_empty(name)))
        unnamed = (None in request.images or None in request.bitmap_files) and not self._template
        named = {*request.images, *request.bitmap_files} - {None}
        left = [device for device in devices if device not in named]
        if unnamed and len(left) > 1:
            raise UsageError(f"the stream has {known}", hint=_EACH)
        for device in left:
            if not unnamed and self._template is None:
                raise UsageError(
                    f"device {quote(device)} has no image; the stream has {known}", hint=_EACH
                )
        names.check_devices("--device", request.devices or ())
        names.check_devices("-f", (name for name in request.formats if not self._is_empty(name)))
        hints = request.hints
        sizes = {device: size for device, size in hints.sizes.items() if size}
        names.check_hints(Hints(sizes, hints.granularities, largest=hints.largest))

    def bitmaps_beside_written(self) -> Iterator[str]:
        """Yield the paths of the files of bitmaps of images that this run has written."""
        for key, destination in self._images.items():
            if isinstance(self._own.get(key), BitmapsInImage):
                continue
            path = destination.neighbours.bitmaps
            if destination.begun and not destination.finished and path and exists(path):
                yield path

    def make_empty(self) -> None:
        """Create the images of disks of 0 bytes, of which nothing is in the stream."""
        if self._request.makes and self._request.disks:
            for destination in self:
                destination.make_empty()

    def _is_empty(self, device: str | None) -> bool:
        """Return whether the disk of ``device`` is known to have 0 bytes."""
        return device is not None and self._known.size(device) == 0

    def _size(self, device: str) -> int | None:
        """Return the known size of a disk; None where it may have grown since the base of an increment."""
        identity, known = self._known.identity, self._known
        grows = identity is not None and identity.has_gaps(device)
        return known.sizes.get(device) if grows else known.size(device)

    def _is_only(self, device: str) -> bool:
        """Return whether the destination without a device is that of ``device``."""
        if self._only is None:
            self._only = device
        return self._only == device

    # Opening.

    def _add(self, device: str | None, path: str) -> None:
        """Add a destination and register its files; raises UsageError, FailureError."""
        known = self._known
        size = known.sizes.get(None) if device is None else self._size(device)
        stated = self._request.format_of(device)
        destination = self._images[device] = Destination(path, size, self._request, stated)
        destination.neighbours.check()
        of = "" if device is None else f" of {quote(device)}"
        self._uses.add(f"the image{of}", path, writes=True)
        for file in destination.neighbours:
            self._uses.add(f"a file beside the image{of}", file, writes=True)

    def _add_place(self, device: str | None, path: str) -> None:
        """Register a file of --bitmaps-to, which may be that of the image; raises UsageError."""
        destination = self._images.get(device)
        beside = None if destination is None else destination.neighbours.bitmaps
        if beside is None or os.path.realpath(beside) != os.path.realpath(path):
            of = "" if device is None else f" of {quote(device)}"
            self._uses.add(f"the bitmaps file{of}", path, writes=True)
            self._places[device] = BitmapsFile(path)

    def _open(self, device: str | None) -> None:
        """Open a destination, and read its bitmaps, except those of an image to be replaced."""
        destination = self._images[device]
        of = "" if device is None else f" of {quote(device)}"
        destination.open(
            lambda file, writes: self._uses.add(f"a layer of the image{of}", file, writes=writes)
        )
        if not self._request.bitmaps:
            return
        stored, path = destination.stored_bitmaps(), destination.neighbours.bitmaps
        if stored is not None and not destination.is_device:
            self._own[device] = BitmapsInImage(destination, stored)
        elif path is not None:
            place = self._own[device] = BitmapsFile(path, destination.path)
            if not (self._request.makes and destination.existing_size is None):
                place.read()
                place.check_size(destination.limit)

    def _file_of(self, device: str, template: str) -> str:
        """Return the path for ``device`` from the template; raises UsageError for an unsuitable name."""
        path = template.replace(TEMPLATE, device)
        name = os.path.basename(path)
        longest = len(encode_name(name)) + max(map(len, SUFFIXES))
        if (
            device in ("", ".", "..")
            or "/" in device
            or not device.isprintable()
            or longest > _NAME_MAX
            or name.endswith(SUFFIXES)
        ):
            raise UsageError(
                f"device {quote(device)} has a name that is not a plain file name",
                hint="use --image DEVICE=IMAGE for it",
            )
        return path
