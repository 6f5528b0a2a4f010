"""The work of a command on one capture, which any process can do, and on many, in order."""

import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from blkmig_cli.checks.report import Report
from blkmig_cli.commands import options
from blkmig_cli.commands.many import Readers
from blkmig_cli.dataclass import dataclass
from blkmig_cli.errors import BlkmigError, FailureError, NotAStreamError, UsageError
from blkmig_cli.operations.many.captures import Capture
from blkmig_cli.operations.reading import Reading
from blkmig_cli.output.progress import count_progress
from blkmig_cli.progress import Tick, no_progress
from blkmig_cli.system.address import shown_address
from blkmig_cli.text import count, escape

if TYPE_CHECKING:
    from blkmig_cli.output.human.console import Form

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """The results of the streams in a capture, their human output, and lines for stderr (-v)."""

    results: list[T]
    texts: list[str]
    log: list[str]


@dataclass(frozen=True, slots=True)
class Job(Generic[T]):
    """What a command does with a capture.

    ``work`` yields the result of each stream in it; ``failed`` makes a result of an error.  ``show``
    returns the human output of a result in a ``form``, None if it is not needed.  Each can be pickled.
    """

    work: Callable[[str, Reading], Iterator[T]]
    failed: Callable[[str, BlkmigError], T]
    reading: Reading
    show: "Callable[[T, Form], str] | None"
    form: "Form"

    def __call__(self, name: str) -> Done[T]:
        """Do the work on the capture ``name``; raises UsageError."""
        log: list[str] = []
        return self.run(name, replace(self.reading, log=log.append), log)

    def run(self, name: str, reading: Reading, log: list[str]) -> Done[T]:
        """Do the work with the callbacks of ``reading``, of which ``log`` has lines; raises UsageError."""
        found: list[T] = []
        try:
            for result in self.work(name, reading):
                found.append(result)  # noqa: PERF402 (kept where the next one fails)
        except UsageError:
            raise
        except BlkmigError as error:
            found.append(self.failed(shown_address(name), error))
        return self.done(found, log)

    def done(self, found: list[T], log: list[str]) -> Done[T]:
        """Return the results ``found`` with their output."""
        texts = [] if self.show is None else [self.show(one, self.form) for one in found]
        return Done(found, texts, log)

    def fail(self, name: str, error: BlkmigError) -> Done[T]:
        """Return the result of a capture that cannot be read because of ``error``."""
        return self.done([self.failed(shown_address(name), error)], [])

    def lose(self, name: str) -> Done[T]:
        """Return the result of a capture at which two processes ended."""
        error = FailureError(
            "two processes that read it ended unexpectedly",
            hint="read it with --jobs 1; it may take more memory than there is",
        )
        return self.fail(name, error)


class Known(Protocol[T]):
    """Results that are known already."""

    def find(self, captures: Sequence[Capture]) -> list[bool]:
        """Return for each of ``captures`` whether its results are known; raises FailureError."""

    def results(self, name: str) -> list[T]:
        """Return the results of the capture ``name``; raises FailureError."""

    def add(self, name: str, results: list[T]) -> None:
        """Take the results of the capture ``name``, which was read; raises FailureError."""


class NothingKnown(Generic[T]):
    """No results."""

    def find(self, captures: Sequence[Capture]) -> list[bool]:
        """Return False for each."""
        return [False] * len(captures)

    def results(self, name: str) -> list[T]:
        """Return no results; it is not called."""
        return []

    def add(self, name: str, results: list[T]) -> None:
        """Forget the results."""


@dataclass(slots=True)
class Work(Generic[T]):
    """The work of a command on all its ``captures``.

    ``own``: how this process reads streams, and shows the progress of the only one; ``readers``: what
    reads files and objects at URLs.  ``report_of`` returns the report in a result.  ``raises``: an
    error of the only one, if it is named, is raised.  ``streamed``: the results are printed at once.
    ``passed_over`` counts the files that are no streams, ``unchanged`` those that were ``known``.
    """

    captures: list[Capture]
    job: Job[T]
    own: Reading
    readers: Readers
    report_of: Callable[[T], Report]
    raises: bool
    streamed: bool
    known: Known[T]
    passed_over: int = 0
    unchanged: int = 0

    @property
    def is_many(self) -> bool:
        """Whether several streams are specified, or any number of them in a directory or by a glob."""
        return len(self.captures) > 1 or self.captures[0].found

    def nothing_found(self) -> FailureError:
        """Return the error where none of the files found is a stream."""
        others = count(self.passed_over, "other file")
        return FailureError(f"no streams were found ({others} passed over)", hint="see --verbose")

    def each(self, label: str, *, quiet: bool, verbose: bool) -> Iterator[Done[T]]:
        """Yield what was done for each capture that is a stream, in order.

        ``label``: of the progress over all.  Raises UsageError, FailureError of ``known``.
        """
        first = self.captures[0]
        alone = not self.is_many and self.readers.cluster is None
        if alone and first.failure is None and not self.known.find([first])[0]:
            if self.raises:
                done = self.job.done(list(self.job.work(first.name, self.own)), [])
            else:
                done = self.job.run(first.name, self.own, [])
            self.known.add(first.name, done.results)
            yield done
            return
        # A bar on the terminal on which the results appear would be in their way.
        hidden = quiet or (self.streamed and sys.stdout.isatty())
        with count_progress(label, len(self.captures), quiet=hidden) as tick:
            for capture, done in self._in_order(tick):
                for line in done.log:
                    options.log(verbose, line)
                failure = self.report_of(done.results[0]).failure
                if capture.found and isinstance(failure, NotAStreamError):
                    self.passed_over += 1
                    options.log(
                        verbose, f"{escape(shown_address(capture.name))}: passed over: {failure}"
                    )
                else:
                    yield done

    def _in_order(self, tick: Tick) -> Iterator[tuple[Capture, Done[T]]]:
        """Yield each capture with what was done; ``tick`` gets their number."""
        captures, job = self.captures, self.job
        own = replace(self.own, progress=no_progress)
        known = self.known.find(captures)
        here = [
            one.failure is None and not found for one, found in zip(captures, known, strict=True)
        ]
        away = [
            self.readers.are_others and read and one.is_shared
            for one, read in zip(captures, here, strict=True)
        ]
        names = [one.name for one, other in zip(captures, away, strict=True) if other]
        with closing(_elsewhere(names, job, self.readers)) as elsewhere:
            for number, capture in enumerate(captures):
                if away[number]:
                    done = next(elsewhere)
                elif here[number]:
                    done = job.run(capture.name, own, [])
                elif capture.failure is not None:
                    done = job.fail(capture.name, capture.failure)
                else:
                    done = job.done(self.known.results(capture.name), [])
                    self.unchanged += 1
                if here[number]:
                    self.known.add(capture.name, done.results)
                yield capture, done
                tick(number + 1)


def _elsewhere(names: list[str], job: Job[T], readers: Readers) -> Generator[Done[T], None, None]:
    if not names:
        return
    if readers.cluster is not None:
        from blkmig_cli.operations.many import cluster  # noqa: PLC0415 (as the next: only where it is used)

        # The workers have other working directories.
        away = replace(job, reading=replace(job.reading, folder=os.getcwd()))
        yield from cluster.results_of(names, away, readers.cluster, job.lose)
    else:
        from blkmig_cli.operations.many import workers  # noqa: PLC0415

        yield from workers.results_of(names, job, readers.jobs, job.lose)
