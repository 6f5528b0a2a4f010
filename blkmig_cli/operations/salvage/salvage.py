"""What a damaged or truncated stream still gives.

Behind damage, reading goes on where ``search.py`` finds a place.  What the record right before damage
holds may have been hit by it, and what carries no data right behind it may be a disk's content that
looks like records: both are left out.  Damage within data cannot be seen: nothing in a stream says
what it should be.
"""

from dataclasses import dataclass, field

from blkmig_cli.contents.bitmaps import BitmapState
from blkmig_cli.contents.final_layout import EndState, EndStates
from blkmig_cli.contents.state import StreamState
from blkmig_cli.contents.stream_disk import StreamDisk
from blkmig_cli.disks.disk import Disk
from blkmig_cli.errors import StreamError, TruncatedError, UndecidableError
from blkmig_cli.operations.salvage.search import Search, may_hide_records
from blkmig_cli.progress import Tick
from blkmig_cli.ranges import IntervalSet
from blkmig_cli.schemas.constants import CHUNK_SIZE, SECTOR_SIZE
from blkmig_cli.transport.inputs import FileInput
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import BitmapBits, BitmapComplete, BitmapStart, Block, Event, Footer
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs import Run, expand


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes [start, end) of a stream that could not be read, and why."""

    start: int
    end: int
    why: str


@dataclass(slots=True)
class LostBitmap:
    """A bitmap that is not given, and why."""

    device: str
    name: str
    why: str


@dataclass(slots=True)
class Salvaged:
    """What was had of a stream of ``size`` bytes.

    ``doubtful``: by device, the sectors of records beside damage that were left out, as nothing
    confirms them.  ``stale``: what was lost may have held newer versions of chunks that are given.
    """

    stream: str
    size: int
    gaps: list[Gap] = field(default_factory=list)
    doubtful: dict[str, IntervalSet] = field(default_factory=dict)
    disks: list[Disk] = field(default_factory=list)
    lost_bitmaps: list[LostBitmap] = field(default_factory=list)
    stale: bool = False

    @property
    def sound(self) -> bool:
        """Was there no damage at all?"""
        return not self.gaps

    @property
    def empty(self) -> bool:
        """Is there nothing to be had?"""
        return not self.disks

    def missing(self, disk: Disk) -> list[tuple[int, int]]:
        """Byte ranges (start, end) of ``disk`` that are not there."""
        assert isinstance(disk.image, StreamDisk)
        return [(p.start, p.end) for p in disk.image.pieces() if p.kind == "missing"]


class Salvage:
    """One stream.  ``decoder`` is at its start; ``dialect``: what is told of it, or ``auto``."""

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
        self._held: list[Event] = []  # what nothing has confirmed yet
        self._first_bits: dict[tuple[str, str], int] = {}
        self._complete: dict[tuple[str, str], int] = {}
        self._result = Salvaged(name, source.size or 0)

    def run(self, tick: Tick) -> Salvaged:
        """Read all that can be read.

        Raises UndecidableError where options must say how to read it, LimitError, and FailureError
        where the input fails.
        """
        following: Decoder | None = self._decoder
        while following is not None:
            following = self._follow(following, tick)
        conclusion = self._decoder.conclusion()
        self._state.conclude(conclusion, self._hints, proper_end=self._result.sound)
        self._settle()
        return self._result

    def _follow(self, decoder: Decoder, tick: Tick) -> Decoder | None:
        """Take what is sound; returns the decoder that goes on behind the damage that ends it."""
        end = self._source.offset
        # Small records on a disk can lead on to the stream's own, but only within their chunk.
        doubted, trusted = bool(self._result.gaps), end + CHUNK_SIZE
        while True:
            try:
                piece = decoder.piece()
            except StopIteration:
                self._take_held()
                return None
            except UndecidableError as error:
                if not self._ends.disks:
                    raise
                self._give_up(cut=False)
                self._result.gaps.append(Gap(end, self._result.size, str(error)))
                return None
            except StreamError as error:
                cut = isinstance(error, TruncatedError)
                return self._go_on(decoder, end, str(error), tick, cut=cut)
            for part in expand([piece]) if doubted else self._search.parts(piece):
                if isinstance(part, Run):
                    end = part.end
                    self._take_run(part)
                    continue
                if isinstance(part, Block) and self._search.is_past_end(part):
                    why = f"a record of sector {part.sector}, past the disk's end"
                    return self._go_on(decoder, end, why, tick)
                start, end = end, part.offset + part.length
                if may_hide_records(part):
                    why = "records stand in what seemed to be something else"
                    inside = self._go_on(decoder, start, why, tick, stop=end)
                    if inside is not None:
                        return inside
                    self._source.offset = end
                doubted = doubted and part.offset < trusted and not _has_data(part)
                if doubted:
                    self._doubt([part])
                else:
                    self._hold(part)
            tick(end)

    def _go_on(
        self,
        decoder: Decoder,
        start: int,
        why: str,
        tick: Tick,
        *,
        stop: int | None = None,
        cut: bool = False,
    ) -> Decoder | None:
        """The decoder that goes on behind damage at byte ``start``, which ``decoder`` met.

        ``stop``: there may be none, and reading goes on there if nothing is found before it.
        """
        size = self._result.size
        following = self._search.find(
            decoder, self._dialect, self._ends.disks, start + 1, stop or size, tick
        )
        if following is not None or stop is None:
            end = size if following is None else self._source.offset
            self._give_up(cut=cut)
            self._result.gaps.append(Gap(start, end, why))
        return following

    def _hold(self, event: Event) -> None:
        """Take what is held if ``event`` confirms it, and hold ``event``."""
        # An end or a progress of eight bytes may be anything; a name or a footer is not.
        if isinstance(event, Footer) or self._knows(event):
            self._take_held()
        self._held.append(event)

    def _knows(self, event: Event) -> bool:
        """Is ``event`` a record of a disk that has been seen before?"""
        return isinstance(event, Block) and (
            event.device in self._ends.disks
            or any(isinstance(held, Block) and held.device == event.device for held in self._held)
        )

    def _is_cut(self, last: Block) -> bool:
        """Is what stands behind the record ``last`` just cut off?"""
        known = {event.device for event in self._held if isinstance(event, Block)}
        return self._search.is_truncated_at(
            last.offset + last.length, known | set(self._ends.disks)
        )

    def _give_up(self, *, cut: bool) -> None:
        """Damage, or (``cut``) the input's end: what nothing confirms is left out."""
        last = next((event for event in reversed(self._held) if isinstance(event, Block)), None)
        if last is None or (cut and self._is_cut(last)):
            self._take_held()
        else:
            self._doubt(self._held)
            self._held = []

    def _doubt(self, events: list[Event]) -> None:
        """Leave records out; and what came before of their chunks, which they made out of date."""
        for event in events:
            if isinstance(event, Block) and event.has_content:
                end = event.sector + event.sectors
                left = self._result.doubtful.setdefault(event.device, IntervalSet())
                left.add(event.sector, end)
                state = self._ends.disks.get(event.device)
                if state is not None:
                    state.remove(event.sector, end)
            elif isinstance(event, BitmapStart):
                self._state.feed(event, self._source)  # what follows of it may be sound

    def _take_held(self) -> None:
        for event in self._held:
            self._ends.feed(event, self._source)
            self._state.feed(event, self._source)
            self._note(event)
        self._held = []

    def _take_run(self, run: Run) -> None:
        """Take a run, whose rows confirm each other; the last one is held."""
        if not any(isinstance(column.event, Block | Footer) for column in run.columns):
            return  # ends and progress, by the million perhaps, confirm nothing
        self._take_held()
        if run.rows > 1:
            head = run.head(run.rows - 1)
            self._ends.feed_run(head, self._source)
            self._state.feed_run(head, self._source)
        for event in run.last():
            self._hold(event)

    def _note(self, event: Event) -> None:
        """Remember what resuming, and judging bitmaps, need."""
        if isinstance(event, Block) and event.dialect is not None:
            self._dialect = event.dialect
        elif isinstance(event, BitmapBits):
            self._first_bits.setdefault((event.device, event.bitmap), event.offset)
        elif isinstance(event, BitmapComplete):
            self._complete[event.device, event.bitmap] = event.offset

    def _settle(self) -> None:
        """Disks and bitmaps, those that may have lost bits left out."""
        result, states = self._result, self._ends.disks
        result.stale = bool(result.gaps) and any(any(state) for state in states.values())
        bitmaps: dict[str, list[BitmapState]] = {}
        for bitmap in self._state.bitmaps.values():
            why = self._why_lost(bitmap)
            if why is None:
                bitmaps.setdefault(bitmap.device, []).append(bitmap)
            else:
                result.lost_bitmaps.append(LostBitmap(bitmap.device, bitmap.name, why))
        for device in dict.fromkeys([*states, *bitmaps]):
            state = states.get(device, EndState())
            held = [bitmap.content for bitmap in bitmaps.get(device, []) if bitmap.content]
            size = self._hints.size(device)
            if size is None:
                # A whole bitmap of the dirty-bitmap section covers the whole disk.
                ends = [
                    bitmap.covered.end
                    for bitmap in bitmaps.get(device, [])
                    if bitmap.origin == "dirty-bitmap"
                ]
                size = max(ends or [state.end]) * SECTOR_SIZE
            disk = StreamDisk(result.stream, self._source, state, size)
            result.disks.append(Disk(device, disk.incremental(), held))

    def _why_lost(self, bitmap: BitmapState) -> str | None:
        gaps = self._result.gaps
        if bitmap.content is None:
            return "its granularity is open: say it with --granularity"
        key = (bitmap.device, bitmap.name)
        if bitmap.origin != "dirty-bitmap":
            return "a record that was lost may have held newer bits" if gaps else None
        if not bitmap.ended:
            return "it never ended"
        first, last = self._first_bits.get(key, 0), self._complete[key]
        cut = any(first < gap.end and gap.start < last for gap in gaps) and key in self._first_bits
        if cut or bitmap.covered.gaps(0, bitmap.covered.end) or (gaps and not bitmap.covered):
            return "bits of it were lost"
        return None


def _has_data(event: Event) -> bool:
    return isinstance(event, Block) and event.data is not None
