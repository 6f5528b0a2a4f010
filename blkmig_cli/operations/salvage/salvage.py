"""Salvaging what is intact in a damaged or truncated stream.

After damage, reading continues where ``search.py`` finds a place.  The record right before damage may
be affected by it, and records without data right after them may be a disk's content that has the form
of records: both are omitted, as nothing confirms them.  Damage within data cannot be detected, as a
stream has no checksums.
"""

from blkmig_cli.checks.names import Names
from blkmig_cli.checks.survey import source_of_data
from blkmig_cli.contents.bitmaps import BitmapState
from blkmig_cli.contents.final_layout import EndState, EndStates
from blkmig_cli.contents.state import StreamState
from blkmig_cli.contents.stream_disk import StreamDisk
from blkmig_cli.errors import (
    LimitError,
    NotAStreamError,
    StreamError,
    TruncatedError,
    UndecidableError,
)
from blkmig_cli.operations.reading import Reading, check_target
from blkmig_cli.operations.salvage.result import Gap, LostBitmap, LostDisk, Salvaged, SalvagedDisk
from blkmig_cli.operations.salvage.search import Search, may_hide_records
from blkmig_cli.operations.salvage.writing import disks_to_send, salvaged_pieces, unwritable
from blkmig_cli.operations.send.writing import write_disks
from blkmig_cli.progress import Tick
from blkmig_cli.ranges import IntervalSet
from blkmig_cli.schemas.constants import CHUNK_SIZE, SECTOR_SIZE
from blkmig_cli.schemas.dialects import V2
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.transport.inputs import FileInput
from blkmig_cli.transport.target import open_target
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import (
    BitmapBits,
    BitmapChunk,
    BitmapComplete,
    BitmapStart,
    Block,
    Event,
    Footer,
    Ram,
)
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs.columns import Piece, Run, bits_of, expand


def salvage(stream: str, target: str | None, reading: Reading) -> Salvaged:
    """Find what is intact in the STREAM, and write it as a new stream to the TARGET, if there is one.

    The new stream states the known sizes of disks, and omits what is lost.  Raises UndecidableError
    where options must specify how to read the stream, UsageError for the size of a disk
    that an intact stream does not have, LimitError, and FailureError where a file fails.
    """
    if target is not None:
        check_target(stream, target)
    with reading.open(stream, again=True) as opened:
        source = source_of_data(opened)
        source.complete()
        decoder = reading.decoder(source)
        with reading.progress("searching", source.size) as tick:
            found = Salvage(stream, source, decoder, reading.hints, reading.dialect).run(tick)
        if target is not None and found.disks:
            total = sum(disk.size for disk in found.disks)
            with (
                open_target(target, FileUses.of_stream(stream)) as sink,
                reading.progress("writing", total) as tick,
            ):
                disks = disks_to_send(found.disks)
                whole = found.exit_status == 0
                pieces = salvaged_pieces(found.disks, disks, intact=found.intact, whole=whole)
                write_disks(pieces, disks, sink, tick)
            found.written = sink.written
    return found


class Salvage:
    """Reads one stream; ``decoder`` is at its start.  ``dialect``: from an option, or ``auto``."""

    def __init__(
        self, name: str, source: FileInput, decoder: Decoder, hints: Hints, dialect: str = "auto"
    ) -> None:
        self._dialect = dialect
        self._source = source
        self._decoder = decoder
        self._hints = hints
        self._search = Search(source, hints)
        self._state = StreamState()
        self._ends = EndStates()
        self._pending: list[Piece] = []  # not confirmed yet; runs are of bits of bitmaps only
        self._first_bits: dict[tuple[str, str], int] = {}
        self._complete: dict[tuple[str, str], int] = {}
        self._unusable: set[tuple[str, str]] = set()
        self._sizes: dict[str, int | None] = {}  # at the end, by device
        self._result = Salvaged(name, source.size or 0)

    def run(self, tick: Tick) -> Salvaged:
        """Read all that can be read; see :func:`salvage` for what is raised."""
        current: Decoder | None = self._decoder
        while current is not None:
            current = self._read(current, tick)
        conclusion = self._decoder.conclusion()
        self._state.conclude(conclusion, self._hints, proper_end=self._result.intact)
        self._settle()
        return self._result

    def _read(self, decoder: Decoder, tick: Tick) -> Decoder | None:
        """Take what is intact up to damage; returns the decoder that continues after it."""
        end = self._source.offset
        # Records in a disk's content can lead to the stream's own records, but only within their chunk.
        in_doubt, trusted = bool(self._result.gaps), end + CHUNK_SIZE
        while True:
            try:
                piece = decoder.piece()
            except StopIteration:
                self._take_pending()
                return None
            except UndecidableError as error:
                if not self._ends.disks:
                    raise
                self._drop_pending(truncated=False)
                self._result.gaps.append(Gap(end, self._result.size, str(error)))
                return None
            except LimitError as error:  # what follows would take as much work again
                error.stream = self._result.stream
                raise
            except StreamError as error:
                if isinstance(error, NotAStreamError):
                    self._result.failure = error
                truncated = isinstance(error, TruncatedError)
                return self._continue(decoder, end, str(error), tick, truncated=truncated)
            for part in expand([piece]) if in_doubt else self._search.parts(piece):
                if isinstance(part, Run):
                    end = part.end
                    self._take_run(part)
                    continue
                if isinstance(part, Block) and self._search.is_past_end(part):
                    why = f"a record of sector {part.sector}, past the disk's end"
                    return self._continue(decoder, end, why, tick)
                start, end = end, part.offset + part.length
                if may_hide_records(part):
                    why = "there are records in what seemed to be something else"
                    inside = self._continue(decoder, start, why, tick, stop=end)
                    if inside is not None:
                        return inside
                    self._source.offset = end
                in_doubt = in_doubt and part.offset < trusted and not _has_data(part)
                if in_doubt:
                    self._leave_out([part])
                else:
                    self._add_pending(part)
            tick(end)

    def _continue(
        self,
        decoder: Decoder,
        start: int,
        why: str,
        tick: Tick,
        *,
        stop: int | None = None,
        truncated: bool = False,
    ) -> Decoder | None:
        """Return the decoder that continues after damage at byte ``start``, which ``decoder`` met.

        ``stop``: there may be no damage, and reading continues there if nothing is found before it.
        """
        size = self._result.size
        following = self._search.find(
            decoder, self._dialect, self._known(), start + 1, stop or size, tick
        )
        if following is not None or stop is None:
            end = size if following is None else self._source.offset
            self._drop_pending(truncated=truncated)
            self._result.gaps.append(Gap(start, end, why))
        return following

    def _known(self) -> set[str]:
        """Return the devices that are named in records or options."""
        return {*self._ends.disks, *(name for name in self._hints.sizes if name is not None)}

    def _add_pending(self, event: Event) -> None:
        """Take the pending events if ``event`` confirms them, and make ``event`` pending."""
        # An end or a progress of eight bytes may be anything; a name or a footer is not.
        if isinstance(event, Footer) or self._is_of_known_disk(event):
            self._take_pending()
        if not isinstance(event, Ram):  # it says nothing of disks, and there may be very many
            self._pending.append(event)

    def _is_of_known_disk(self, event: Event) -> bool:
        return isinstance(event, Block) and (
            event.device in self._ends.disks
            or event.device in self._hints.sizes
            or any(isinstance(one, Block) and one.device == event.device for one in self._pending)
        )

    def _is_truncated_after(self, last: Block) -> bool:
        """Return whether the bytes after the record ``last`` are valid but truncated."""
        known = {event.device for event in self._pending if isinstance(event, Block)}
        return self._search.is_truncated_at(last.offset + last.length, known | self._known())

    def _drop_pending(self, *, truncated: bool) -> None:
        """Omit the pending events, at damage or (``truncated``) at the input's end."""
        last = next((event for event in reversed(self._pending) if isinstance(event, Block)), None)
        if last is None or (truncated and self._is_truncated_after(last)):
            self._take_pending()
        else:
            self._leave_out(self._pending)
            self._pending = []

    def _leave_out(self, pieces: list[Piece]) -> None:
        """Omit records, and the earlier records of their chunks, which they replaced."""
        for event in pieces:
            if isinstance(event, Block) and event.has_content:
                end = event.sector + event.sectors
                left_out = self._result.unconfirmed.setdefault(event.device, IntervalSet())
                left_out.add(event.sector, end)
                state = self._ends.disks.get(event.device)
                if state is not None:
                    state.remove(event.sector, end)
            elif isinstance(event, BitmapStart):
                self._feed(event)  # what follows of it may be intact

    def _take_pending(self) -> None:
        for event in expand(self._pending):
            self._ends.feed(event, self._source)
            self._feed(event)
            self._note(event)
        self._pending = []

    def _feed(self, event: Event) -> None:
        try:
            self._state.feed(event, self._source)
        except LimitError:
            if not isinstance(event, BitmapChunk):
                raise
            self._unusable.add((event.device, event.bitmap))

    def _feed_run(self, run: Run) -> None:
        bits = bits_of(run)
        for key, part in bits.items():
            self._first_bits.setdefault(key, part.start)
        try:
            self._state.feed_run(run, self._source)
        except LimitError:
            if not bits:
                raise
            self._unusable.update(bits)

    def _take_run(self, run: Run) -> None:
        """Take a run, whose events confirm each other; the last ones become pending."""
        if all(isinstance(column.event, BitmapBits) for column in run.columns):
            self._pending.append(run.without_bits())
            return
        sure = [c for c in run.columns if isinstance(c.event, Footer) or _has_content(c.event)]
        sure = sure or [column for column in run.columns if isinstance(column.event, Block)]
        if not sure:
            return  # ends and progress, however many, confirm nothing
        self._take_pending()
        last = max(int(column.offsets[-1]) for column in sure)
        head = run.before(last)
        if head is not None:
            self._ends.feed_run(head, self._source)
            self._feed_run(head)
        for event in run.since(last) or ():
            self._add_pending(event)

    def _note(self, event: Event) -> None:
        """Record what is needed for continuing and for judging bitmaps."""
        if isinstance(event, Block) and event.dialect is not None:
            self._dialect = event.dialect
        elif isinstance(event, BitmapBits):
            self._first_bits.setdefault((event.device, event.bitmap), event.offset)
        elif isinstance(event, BitmapComplete):
            self._complete[event.device, event.bitmap] = event.offset

    def _settle(self) -> None:
        """Set the disks of the result, and their bitmaps except those that may have lost bits."""
        result, states = self._result, self._ends.disks
        bitmaps: dict[str, list[BitmapState]] = {}
        for bitmap in self._state.bitmaps.values():
            why = self._why_lost(bitmap)
            if why is None:
                bitmaps.setdefault(bitmap.device, []).append(bitmap)
            else:
                result.lost_bitmaps.append(LostBitmap(bitmap.device, bitmap.name, why))
        for device in dict.fromkeys([*states, *bitmaps]):
            state, given = states.get(device, EndState()), bitmaps.get(device, [])
            known = self._known_size(device, given)
            size = state.end * SECTOR_SIZE if known is None else known
            contents = []
            for bitmap in given:
                why = _why_unfit(bitmap, known)
                if why is None and bitmap.content is not None:
                    contents.append(bitmap.content)
                else:
                    result.lost_bitmaps.append(LostBitmap(device, bitmap.name, why or ""))
            image = StreamDisk(result.stream, self._source, state, size)
            for start, end in unwritable(image, size_known=known is not None):
                state.remove(start, end)
            if known is None:
                image = image.resized(state.end * SECTOR_SIZE)
            disk = SalvagedDisk(device, image, state, known is not None, contents)
            if any(state) or contents:
                result.disks.append(disk)
        result.outdated = bool(result.gaps) and any(any(state) for state in states.values())
        self._find_lost_disks()

    def _known_size(self, device: str, bitmaps: list[BitmapState]) -> int | None:
        """Return the size of a disk in bytes from an option or the stream; None if unknown."""
        size = self._hints.option_size(device)
        if size is not None:
            return size
        # The last bits of an incomplete bitmap may be lost.
        ends = {b.covered.end * SECTOR_SIZE for b in bitmaps if b.origin == "dirty-bitmap"}
        disk = self._state.disks.get(device)
        if disk is not None and disk.stated is not None:
            return disk.stated
        return ends.pop() if len(ends) == 1 else self._state.described.get(device)

    def _find_lost_disks(self) -> None:
        """Find disks that are lost completely, and bytes missing in addition to those of the disks."""
        result, hints = self._result, self._hints
        there = {disk.device: disk for disk in result.disks}
        named = [name for name in hints.sizes if name is not None]
        if result.intact:
            names = Names(dict.fromkeys(self._state.disks), dict.fromkeys(self._state.bitmaps))
            names.check_hints(hints)
        else:
            owners = [bitmap.device for bitmap in self._state.bitmaps.values()]
            lost = [*named, *self._ends.disks, *result.unconfirmed]
            lost += owners if self._ends.disks else []
            for name in dict.fromkeys(lost):
                if name not in there:
                    result.lost_disks.append(LostDisk(name, hints.option_size(name)))
        listed = sum(
            disk.size if disk.size_known else -(-disk.size // CHUNK_SIZE) * CHUNK_SIZE
            for disk in result.disks
        )
        listed += sum(disk.size or 0 for disk in result.lost_disks)
        if there and self._state.progress.tops:
            result.other_missing = max(self._state.progress.least * SECTOR_SIZE - listed, 0)

    def _why_lost(self, bitmap: BitmapState) -> str | None:
        gaps = self._result.gaps
        key = (bitmap.device, bitmap.name)
        if bitmap.content is None:
            return "its granularity is unknown; specify --granularity"
        if key in self._unusable:
            return "its bits do not fit on any disk"
        if bitmap.origin != "dirty-bitmap":
            if gaps:
                return "a lost record may have contained newer bits"
            if bitmap.origin == V2.name and not self._state.progress.final:
                return "the block section ended without 100 percent, which makes its bits final"
            return None if self._covers(bitmap) else "bits of it were not sent"
        if not bitmap.ended:
            return "it has no end"
        first, last = self._first_bits.get(key, 0), self._complete[key]
        cut = any(first < gap.end and gap.start < last for gap in gaps) and key in self._first_bits
        if cut or not self._covers(bitmap):
            return "bits of it were lost"
        return None

    def _covers(self, bitmap: BitmapState) -> bool:
        """Return whether bits of all of the bitmap's disk were sent, as far as its size is known."""
        covered = bitmap.covered
        if bitmap.origin == "v2":
            covered = self._state.disk(bitmap.device).bitmaps_covered
        if bitmap.device not in self._sizes:
            self._sizes[bitmap.device] = self._state.size(bitmap.device, self._hints).exact
        size = self._sizes[bitmap.device]
        end = covered.end if size is None else -(-size // SECTOR_SIZE)
        return (bool(covered) or size == 0) and covered.covers(0, end)


def _why_unfit(bitmap: BitmapState, size: int | None) -> str | None:
    """Return why a bitmap cannot be written for a disk of ``size`` bytes, or None."""
    if not bitmap.device:
        return "its device has no name"
    if size is None:
        return "the size of its disk is unknown; specify --device-size"
    covered = bitmap.covered.end * SECTOR_SIZE
    if bitmap.origin == "dirty-bitmap" and covered != size:
        return f"it is of a disk of {covered} bytes, not {size}"
    return None


def _has_content(event: Event) -> bool:
    return isinstance(event, Block) and event.has_content


def _has_data(event: Event) -> bool:
    return isinstance(event, Block) and event.data is not None
