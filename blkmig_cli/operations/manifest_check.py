"""Does a stream leave behind what a manifest says?  Fed with its events, answered at its end."""

from blkmig_cli.checks.checker import Checker, Report
from blkmig_cli.checks.manifest import Manifest, check_images
from blkmig_cli.contents.final_layout import EndStates
from blkmig_cli.contents.stream_disk import Contents, source_of_data
from blkmig_cli.progress import Tick
from blkmig_cli.text import human_size
from blkmig_cli.transport.source import Stream
from blkmig_cli.wire.events import Event
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs import Run

_DIFFERS, _UNCHECKED = "manifest-differs", "manifest-unchecked"


class ManifestCheck:
    """Holds ``stream`` against ``manifest``; without one (None) it does nothing."""

    def __init__(self, manifest: Manifest | None, stream: Stream) -> None:
        """Raises UsageError where disks must be read, and the stream is a pipe."""
        self._manifest = manifest
        self._stream = stream
        self._states = EndStates()
        if manifest is not None and manifest.to_read:
            source_of_data(stream)

    def hints(self, told: Hints) -> Hints:
        """What is ``told`` of the stream, and beside that what the manifest tells."""
        return told if self._manifest is None else self._manifest.completing(told)

    def feed(self, event: Event) -> None:
        """Take the next event."""
        if self._manifest is not None:
            self._states.feed(event)

    def feed_run(self, run: Run) -> None:
        """Take a run of events whole."""
        if self._manifest is not None:
            self._states.feed_run(run)

    def finish(self, checker: Checker, report: Report, tick: Tick, *, incremental: bool) -> None:
        """Add to ``checker`` what is not as it should be, now that the stream has been read.

        Of a damaged stream nothing more is said.  ``incremental``: missing chunks are meant.
        ``tick`` is told the bytes gone through.  Raises FailureError where the stream's file fails.
        """
        manifest = self._manifest
        if manifest is None or report.failure is not None:
            return
        contents = Contents(self._stream, checker, report, self._states)
        before = len(checker.findings)
        disks = {}
        partial = set()
        for verdict in report.devices:
            name, entry = verdict.disk.name, manifest.disks.get(verdict.disk.name)
            if not verdict.disk.has_blocks or (entry is not None and entry.sha256 is None):
                continue
            if entry is not None and verdict.missing:
                partial.add(name)
                length = sum(length for _, length in verdict.missing)
                text = f"{human_size(length)} of the disk never came"
                checker.add(_UNCHECKED if incremental else _DIFFERS, text, device=name)
            elif entry is not None:
                disks[name] = contents.disk(name)
            else:
                checker.add(_DIFFERS, "the disk is not in the manifest", device=name)
        bitmaps = {
            key: bitmap.content
            for key, bitmap in checker.state.bitmaps.items()
            if bitmap.content is not None
        }
        read = self._stream.input.size or 0
        for found in check_images(
            manifest, disks, bitmaps, lambda done: tick(read + done), partial
        ):
            checker.add(_DIFFERS, found.message, device=found.device)
        if len(checker.findings) == before:
            report.manifest = manifest.path
