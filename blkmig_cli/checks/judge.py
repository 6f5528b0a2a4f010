"""Judging a stream: makes an immutable report from its state and its defects."""

from collections.abc import Iterable, Iterator

from blkmig_cli.checks.catalogue import CHECKS, Finding, finding_of
from blkmig_cli.checks.defects import Defects
from blkmig_cli.checks.report import BitmapVerdict, DeviceVerdict, Ranges, Report
from blkmig_cli.contents.bitmaps import BitmapState
from blkmig_cli.contents.sizes import SizeBounds
from blkmig_cli.contents.state import DiskState, StreamState
from blkmig_cli.errors import BlkmigError
from blkmig_cli.ranges import ByteRanges, IntervalSet
from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.schemas.dialects import CLASSIC
from blkmig_cli.text import count, escape, human_size, quote, size_range
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.rest import continued_state
from blkmig_cli.wire.schema_io import Input
from blkmig_cli.wire.v1.layout import describe

# Ranges that a message lists; the JSON has all of them.
_SHOWN = 3


def judge(
    stream: str,
    state: StreamState,
    defects: Defects,
    hints: Hints,
    source: Input,
    *,
    failure: BlkmigError | None,
    incremental: bool,
    more: Iterable[Finding],
) -> Report:
    """Return the report on the stream called ``stream``, whose ``state`` has been concluded.

    ``source`` has the padding of last chunks, if it can be read again.  ``failure``: the error that
    ended the reading, if any; ``incremental``: missing chunks are intentional.
    """
    return _Judge(state, defects, hints, source, failure, incremental=incremental).report(
        stream, more
    )


def found(
    check: str, message: str, offset: int | None = None, device: str | None = None
) -> Finding:
    """Return a finding with the severity listed in ``CHECKS``."""
    return Finding(check, CHECKS[check][0], message, offset, device)


class _Judge:
    """Makes one report, and collects findings meanwhile."""

    def __init__(
        self,
        state: StreamState,
        defects: Defects,
        hints: Hints,
        source: Input,
        failure: BlkmigError | None,
        *,
        incremental: bool,
    ) -> None:
        self._state = state
        self._defects = defects
        self._hints = hints
        self._source = source
        self._failure = failure
        self._all_gaps = incremental
        identity = state.identity
        self._incremental = incremental or (identity is not None and identity.incremental)
        self._findings: list[Finding] = []

    def report(self, stream: str, more: Iterable[Finding]) -> Report:
        state, conclusion = self._state, self._state.conclusion
        assert conclusion is not None
        self._findings += self._defects.progress
        if self._failure is not None:
            self._findings.append(finding_of(self._failure))
        self._devices = tuple(self._device(disk) for disk in state.disks.values())
        self._with_blocks = [device for device in self._devices if device.disk.has_blocks]
        sizes = {verdict.disk.name: verdict.size for verdict in self._devices}
        self._bitmaps = tuple(
            self._bitmap(bitmap, sizes[bitmap.device]) for bitmap in state.bitmaps.values()
        )
        complete = self._complete()
        self._general(complete)
        return Report(
            stream,
            self._dialect(conclusion.dialect),
            conclusion.container,
            complete,
            state.identity,
            self._devices,
            self._bitmaps,
            (*self._findings, *more),
            self._failure,
        )

    def _add(
        self, check: str, message: str, offset: int | None = None, device: str | None = None
    ) -> None:
        self._findings.append(found(check, message, offset, device))

    def _dialect(self, decided: str | None) -> str | None:
        origins = {bitmap.origin for bitmap in self._state.bitmaps.values()}
        if decided in (None, CLASSIC.name) and "dirty-bitmap" in origins:
            return "qemu"
        return CLASSIC.name if decided is None and self._state.block_started else decided

    def _intended(self, device: str) -> bool:
        """Return whether missing chunks of a disk are intentional."""
        identity = self._state.identity
        return self._all_gaps or (identity is not None and identity.has_gaps(device))

    def _is_part(self) -> bool:
        """Return whether the stream is what was intact of another one, and gaps are not intentional."""
        return self._state.salvaged and not self._all_gaps

    def _sent_whole(self, device: str) -> bool:
        """Return whether the stream states that it has all of a disk."""
        identity = self._state.identity
        return identity is not None and identity.is_full(device)

    def _device(self, disk: DiskState) -> DeviceVerdict:
        size = self._state.size(disk.name, self._hints)
        if size.most is not None:
            for check, text, offset in self._defects.tail(disk.name, size.most, self._source):
                self._add(check, text, offset, disk.name)
        end = 0
        if disk.has_blocks:
            end = disk.covered.end if size.exact is None else -(-size.exact // SECTOR_SIZE)
            if size.exact is None and len(self._state.progress.tops) == 1:
                # Other disks are counted, too, where the percentages do not fit this one alone.
                proven = end + self._state.progress.never_sent({})
                end = max(end, min(proven, size.least // SECTOR_SIZE))
            self._outside(disk, size)
        elif self._sent_whole(disk.name):
            end = -(-(size.exact or 0) // SECTOR_SIZE)
        missing = ByteRanges(disk.covered.gap_table(0, end), SECTOR_SIZE)
        sent = disk.covered.end * SECTOR_SIZE
        end_known = size.exact is not None or (size.most is not None and sent >= size.most)
        return DeviceVerdict(disk, missing, size, self._intended(disk.name), end_known)

    def _outside(self, disk: DiskState, size: SizeBounds) -> None:
        """Find records past the disk's end, and options that contradict the size proven by the stream."""
        if size.exact is not None and disk.top * SECTOR_SIZE >= size.exact:
            self._add(
                "sector-past-end",
                f"sector {disk.top} is past the disk's end at {human_size(size.exact)}",
                disk.top_offset,
                disk.name,
            )
        if size.source != "option" or size.exact is None:
            return
        proven = self._state.proven_size(disk.name)
        if proven.source == "stream" and proven.exact != size.exact:
            text = f"the stream states a disk of {proven.exact} bytes"
        elif size.exact < proven.least and disk.top * SECTOR_SIZE < size.exact:
            text = f"the stream proves a disk of at least {proven.least} bytes"
        else:
            return
        self._add("size-mismatch", f"{text}, --device-size says {size.exact}", device=disk.name)

    def _bitmap(self, bitmap: BitmapState, size: SizeBounds) -> BitmapVerdict:
        complete = self._bitmap_complete(bitmap, size)
        covered = bitmap.covered.end * SECTOR_SIZE
        known = size.source in ("option", "image") and size.exact is not None
        if known and covered > (size.exact or 0) and bitmap.origin == "dirty-bitmap":
            complete = False
            self._add(
                "bitmap-size",
                f"bitmap {quote(bitmap.name)} covers at least {covered} bytes, the disk has "
                f"{size.exact}",
                device=bitmap.device,
            )
        elif complete is False:
            self._add(
                "bitmap-incomplete",
                f"bitmap {quote(bitmap.name)} is incomplete",
                device=bitmap.device,
            )
        dirty, limit = None, size.most
        if bitmap.content is None:
            self._add(
                "bitmap-open",
                f"the granularity of bitmap {quote(bitmap.name)} is {describe(bitmap.candidates)}; "
                "specify --granularity",
                device=bitmap.device,
            )
        else:
            dirty = bitmap.content.count(limit)
            granularity = bitmap.content.granularity
            if limit is not None and bitmap.content.end() > -(-limit // granularity) * granularity:
                self._add(
                    "bitmap-past-end",
                    f"bitmap {quote(bitmap.name)} has dirty bits past the disk's end",
                    device=bitmap.device,
                )
        candidates = bitmap.candidates if bitmap.open else [bitmap.granularity or 0]
        reach = self._covered(bitmap).end * SECTOR_SIZE
        return BitmapVerdict(bitmap, tuple(candidates), dirty, complete, reach, limit)

    def _covered(self, bitmap: BitmapState) -> IntervalSet:
        """Return the sectors whose bits are known."""
        if bitmap.origin == "v2":
            return self._state.disk(bitmap.device).bitmaps_covered
        return bitmap.covered

    def _bitmap_complete(self, bitmap: BitmapState, size: SizeBounds) -> bool | None:
        state = self._state
        if bitmap.origin == "dirty-bitmap":
            end = bitmap.covered.end if size.exact is None else -(-size.exact // SECTOR_SIZE)
            sent = bool(bitmap.covered) or size.exact == 0
            return bitmap.ended and sent and bitmap.covered.covers(0, end)
        covered = self._covered(bitmap)
        if bitmap.origin == "v2" and not state.progress.final:
            return False
        least = max(covered.end, -(-size.least // SECTOR_SIZE))
        if not state.block_ended or not covered.covers(0, least):
            return False
        return True if size.most is not None and covered.end * SECTOR_SIZE >= size.most else None

    def _complete(self) -> bool | None:
        state = self._state
        parts: list[bool | None] = [verdict.complete for verdict in self._bitmaps]
        if state.block_started:
            parts.append(state.block_ended)
        if self._failure is not None:
            # The stream may have ended where the failure is.
            return None if parts and all(parts) else False
        if not self._with_blocks and not self._bitmaps and not self._incremental:
            return None
        missing = (device for device in self._devices if device.missing)
        parts.append(all(device.intended for device in missing))
        if not self._incremental:
            unsent = bool(self._with_blocks) and self._unsent() > 0
            parts.append(not unsent or self._contradiction())
        parts.append(not self._is_part())
        if self._contradiction():
            parts.append(None)
        elif self._bulk_ended() is False:
            parts.append(False)
        parts += [device.end_known or device.intended or None for device in self._with_blocks]
        if False in parts:
            return False
        return None if None in parts else True

    def _general(self, complete: bool | None) -> None:
        state, failed = self._state, self._failure is not None
        self._all_missing()
        if self._is_part():
            text = "the stream is the intact part of a damaged one, from which data is missing"
            self._add("salvaged", text)
        if state.identity_fault is not None:
            self._add("identity", f"the stream's identity is ignored: {state.identity_fault}")
        if state.block_started and not state.block_ended and not failed:
            self._add("section-unfinished", "the block section has no end", state.end)
        elif state.block_ended and not state.progress.final:
            self._add("no-final-progress", "the block section ended without 100 percent", state.end)
        if complete is None and not failed and self._contradiction():
            self._add(
                "progress-contradiction",
                "the progress records do not fit the disks, of which every chunk was sent (the last "
                f"states {state.progress.percent} %): other disks may be missing",
            )
        elif complete is None and not failed and self._with_blocks:
            self._add("completeness-unknown", self._open_sizes())
        elif complete is None and not failed and self._bitmaps:
            self._add("completeness-unknown", "nothing proves that the bitmaps are complete")
        self._findings += [found(*item) for item in self._defects.findings()]
        self._owners()
        if not self._devices and not failed:  # each bitmap has a device
            self._add("nothing-here", "the stream has no disks and no bitmaps")
        for stretch in state.undecoded:
            check = "trailing-bytes" if stretch.behind else "undecoded"
            text = f"{count(stretch.length, 'byte')}: {stretch.reason}"
            self._add(check, text, stretch.offset)

    def _owners(self) -> None:
        """Find bitmaps of the ``dirty-bitmap`` section whose device has no blocks.

        QEMU drops a bitmap whose device it does not have (QEMU 7.2,
        migration/block-dirty-bitmap.c: dirty_bitmap_load_header).
        """
        names = {device.disk.name for device in self._with_blocks}
        for verdict in self._bitmaps:
            bitmap = verdict.bitmap
            if names and bitmap.device not in names:
                text = f"the device of bitmap {quote(bitmap.name)} has no blocks in this stream"
                self._add("bitmap-device", text, device=bitmap.device)

    def _bulk_ended(self) -> bool | None:
        """Return whether QEMU's bulk phase reached the end of all disks; None if unknown."""
        if self._failure is not None:
            return None
        # QEMU's progress includes disks of which only bitmaps were sent.
        sizes = {
            device.disk.name: device.size.exact
            for device in self._devices
            if device.disk.has_blocks or device.size.exact is not None
        }
        return self._state.progress.bulk_ended(sizes)

    def _unsent(self) -> int:
        """Return the sectors that progress proves to exist beyond all that was sent or is known.

        QEMU's progress includes disks of which only bitmaps were sent.
        """
        ends = {device.disk.name: device.size.exact for device in self._devices}
        for device in self._devices:
            if device.size.exact is None and device.missing:
                start, length = device.missing[-1]
                ends[device.disk.name] = start + length
        return self._state.progress.never_sent(ends)

    def _contradiction(self) -> bool:
        """Return whether progress contradicts the disks, if they have known sizes and are complete.

        It does if it stopped early, or if a record before the last one shows that there is more.  In
        both cases, other disks were not sent; where that is intentional, the latter is none.
        """
        ended, unsent = self._bulk_ended(), self._unsent() > 0
        early = ended is False and not unsent
        more = ended is True and unsent and not self._incremental
        return (early or more) and all(
            device.size.exact and not device.missing for device in self._with_blocks
        )

    def _all_missing(self) -> None:
        """Find chunks that were not sent: on purpose (incremental), or by an abandoned bulk phase."""
        ended = self._bulk_ended()
        named = False
        for device in self._devices:
            exact = device.size.exact is not None
            end = device.disk.covered.end * SECTOR_SIZE
            before, behind = device.missing, device.missing[:0]
            if ended is False and before and before[-1][0] >= end:
                before, behind = before[:-1], before[-1:]
            if behind:
                named = True
                others = "" if exact else ", or disks of which nothing was sent"
                self._abandoned(_not_sent(behind, exact=exact) + others, device.disk.name)
            if before and device.intended:
                self._add("incremental", _not_sent(before, exact=exact), device=device.disk.name)
            elif before:
                text = _not_sent(before, exact=exact)
                if continued_state(self._state.machine) is not None:
                    text += "; the stream is the rest of an interrupted one, for replay --resume"
                elif ended:
                    text += "; use --incremental if these gaps are intentional"
                self._add("missing-chunks", text, device=device.disk.name)
        unsent = self._unsent() * SECTOR_SIZE
        if ended is False and not named and not self._contradiction():
            least = f"at least {human_size(unsent)}" if unsent else "more"
            self._abandoned(f"{least} was not sent, of these disks or of others")
        elif (
            self._with_blocks
            and unsent
            and not (ended is False or self._contradiction() or self._incremental)
        ):
            text = f"progress shows that at least {human_size(unsent)} more was not sent"
            self._add("missing-chunks", text)

    def _abandoned(self, what: str, device: str | None = None) -> None:
        self._add(
            "bulk-unfinished",
            f"the capture is incomplete ({self._state.progress.percent} % sent): {what}; "
            f"{self._advice()}",
            device=device,
        )

    def _advice(self) -> str:
        """Return what to do about an abandoned bulk phase: it may only seem so, for a wrong size."""
        for verdict in self._with_blocks:
            name, size = verdict.disk.name, verdict.size
            proven = self._state.proven_size(name)
            if size.source == "option" and proven.most is not None and size.least > proven.most:
                bounds = size_range(proven.least, proven.most)
                return f"check --device-size, as progress fits a disk {quote(name)} of {bounds}"
        return "capture again with downtime-limit 0"

    def _open_sizes(self) -> str:
        texts = [
            f"the size of {quote(device.disk.name)} is unknown "
            f"({size_range(device.size.least, device.size.most)})"
            for device in self._with_blocks
            if device.size.exact is None
        ]
        return f"{', '.join(texts)}; specify --device-size" if texts else "more may be missing"


def _spans(ranges: Ranges) -> str:
    spans = ", ".join(f"{start}-{start + length}" for start, length in ranges[:_SHOWN])
    more = f" and {count(len(ranges) - _SHOWN, 'more range')}" if len(ranges) > _SHOWN else ""
    return f"bytes {spans}{more}"


def _not_sent(ranges: ByteRanges, *, exact: bool) -> str:
    least = "" if exact else "at least "
    return f"{least}{human_size(ranges.total)} was not sent: {_spans(ranges)}"


def differing(ranges: Ranges, path: str, device: str) -> Iterator[Finding]:
    """Yield the finding that the image at ``path`` differs in ``ranges``, if there are any."""
    if ranges:
        total = human_size(sum(length for _, length in ranges))
        text = f"{escape(path)} differs in {total}: {_spans(ranges)}"
        yield found("image-differs", text, device=device)
