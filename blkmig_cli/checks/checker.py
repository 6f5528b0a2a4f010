"""Collecting the state of a stream while it is read, and judging it at the end."""

from collections.abc import Iterable
from dataclasses import replace

from blkmig_cli.checks.catalogue import Finding
from blkmig_cli.checks.defects import Defects
from blkmig_cli.checks.judge import judge
from blkmig_cli.checks.report import Report
from blkmig_cli.contents.sizes import SizeBounds
from blkmig_cli.contents.state import StreamState
from blkmig_cli.errors import BlkmigError
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Event
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs.columns import Run
from blkmig_cli.wire.schema_io import Input


class Checker:
    """A consumer of one stream's events that makes its report."""

    def __init__(self, hints: Hints, *, incremental: bool = False) -> None:
        self._hints = hints
        self._incremental = incremental
        self.state = StreamState()
        self.defects = Defects()

    def feed(self, event: Event, source: Input) -> None:
        """Take the next event; raises LimitError."""
        self.state.feed(event, source)
        self.defects.feed(event, source)

    def feed_run(self, run: Run, source: Input) -> None:
        """Take a run of events; raises LimitError."""
        self.state.feed_run(run, source)
        self.defects.feed_run(run, source)

    def size(self, device: str) -> SizeBounds:
        """Return the disk's size as far as it is known now; see ``StreamState.size``."""
        return self.state.size(device, self._hints)

    def finish(
        self,
        stream: str,
        decoder: Decoder,
        failure: BlkmigError | None = None,
        more: Iterable[Finding] = (),
    ) -> Report:
        """Return the report on what ``decoder`` read of the stream called ``stream``; call it once.

        ``failure``: the error that ended the reading, if any; ``more``: further findings.
        """
        self.state.conclude(decoder.conclusion(), self._hints, proper_end=failure is None)
        report = judge(
            stream,
            self.state,
            self.defects,
            self._hints,
            decoder.source,
            failure=failure,
            incremental=self._incremental,
            more=more,
        )
        return replace(report, next_stream=decoder.next_stream)
