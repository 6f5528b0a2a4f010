"""Copying in threads: jobs on ranges of images run in parallel, unless their ranges overlap.

The system copies without holding Python's lock, so that two threads use two processors.
"""

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from blkmig_cli.dataclass import dataclass

_WORKERS = 2
_WAITING = 2 * _WORKERS


@dataclass(frozen=True, slots=True)
class _Range:
    target: object
    start: int
    end: int

    def touches(self, other: "_Range") -> bool:
        return self.target is other.target and self.start < other.end and other.start < self.end


class Overlap:
    """Runs jobs; those on overlapping ranges of one target run in the order of submission.

    On exit, jobs for which :meth:`drain` has not waited are cancelled.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_WORKERS)
        self._running: dict[Future[None], _Range] = {}

    def __enter__(self) -> "Overlap":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def submit(self, target: object, start: int, end: int, job: Callable[[], None]) -> None:
        """Run ``job``, which changes bytes [start, end) of ``target``.

        Raises the exception of an earlier job.
        """
        self.wait(target, start, end)
        while len(self._running) >= _WAITING:
            self._reap()
        self._running[self._pool.submit(job)] = _Range(target, start, end)

    def wait(self, target: object, start: int, end: int) -> None:
        """Wait until no job changes bytes [start, end) of ``target``; raises as :meth:`submit`."""
        new = _Range(target, start, end)
        while any(new.touches(other) for other in self._running.values()):
            self._reap()

    def drain(self) -> None:
        """Wait for all jobs; raises the exception of one of them."""
        while self._running:
            self._reap()

    def _reap(self) -> None:
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        in_order = [future for future in self._running if future in done]
        for future in in_order:
            del self._running[future]
        for future in in_order:  # of several exceptions, that of the first in the stream is raised
            future.result()
