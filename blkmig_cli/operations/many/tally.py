"""What is kept of the reports on many streams: a line for each, and what they say together."""

from collections.abc import Iterator
from dataclasses import field
from typing import NamedTuple, get_args

from blkmig_cli.checks.report import Report, Verdict
from blkmig_cli.dataclass import dataclass
from blkmig_cli.text import escape

_VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
# Exit statuses for several streams, the worst first: the first that occurs is used.
_WORST = (4, 3, 1, 0)


class Row(NamedTuple):
    """The line of a stream; ``failure``: the error that ended the reading, if any."""

    stream: str
    verdict: Verdict
    errors: int
    warnings: int
    failure: str | None


@dataclass(slots=True)
class Tally:
    """The rows of all streams, in order, and their exit status.

    ``strict``: warnings count as errors.  ``passed_over``: the number of files that are no streams;
    ``unchanged``: of those that were not read again, None if none could be.  ``without_base``: reports that
    say which increments in the catalogue lack their base.
    """

    strict: bool = False
    rows: list[Row] = field(default_factory=list)
    passed_over: int = 0
    unchanged: int | None = None
    without_base: list[Report] = field(default_factory=list)
    _statuses: set[int] = field(default_factory=set)
    _failed: set[int] = field(default_factory=set)

    def add(self, report: Report) -> None:
        """Take the report on the next stream."""
        found = [finding.severity for finding in report.findings]
        failure = None if report.failure is None else str(report.failure)
        self.rows.append(
            Row(
                report.stream,
                report.verdict,
                found.count("error"),
                found.count("warning"),
                failure,
            )
        )
        self._statuses.add(report.exit_status(strict=self.strict))
        if report.failure is not None:
            self._failed.add(report.failure.exit_status)

    def add_without_base(self, report: Report) -> None:
        """Take the report on an increment that lacks its base."""
        self.without_base.append(report)
        self._statuses.add(report.exit_status(strict=self.strict))

    @property
    def status(self) -> int:
        """The exit status of all streams together: the worst."""
        return _worst(self._statuses)

    @property
    def failure_status(self) -> int:
        """The exit status of the errors that ended the reading of streams: the worst, without findings."""
        return _worst(self._failed)

    def counts(self) -> Iterator[tuple[Verdict, int]]:
        """Yield the verdicts that occur, from the best to the worst, and how often each does."""
        verdicts = [row.verdict for row in self.rows]
        for verdict in _VERDICTS:
            if verdict in verdicts:
                yield verdict, verdicts.count(verdict)

    def failures(self) -> Iterator[str]:
        """Yield a line for each stream that could not be read to its end, with the error."""
        for row in self.rows:
            if row.failure is not None:
                name = escape(row.stream)
                yield row.failure if row.failure.startswith(name) else f"{name}: {row.failure}"


def _worst(statuses: set[int]) -> int:
    return next((status for status in _WORST if status in statuses), 0)
