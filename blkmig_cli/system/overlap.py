"""Copying in threads: jobs on ranges of images run in parallel, unless their ranges overlap.

The system copies without holding Python's lock, so that two threads use two processors.
"""

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import NamedTuple

from blkmig_cli.system.process import join

_WORKERS = 2
# Jobs that run or wait: as few as keep the threads at work, since each is compared with a new one.
_WAITING = 3 * _WORKERS


class _Range(NamedTuple):
    target: object
    start: int
    end: int

    def touches(self, other: "_Range") -> bool:
        return self.target is other.target and self.start < other.end and other.start < self.end


class Overlap:
    """Runs jobs; those on overlapping ranges of one target run in the order of submission.

    On exit, all jobs have ended; exceptions for which :meth:`drain` has not waited are dropped.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[int, Callable[[], None]] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[int, BaseException | None]] = SimpleQueue()
        self._threads: list[Thread] = []
        self._running: dict[int, _Range] = {}
        self._number = 0

    def __enter__(self) -> "Overlap":
        return self

    def __exit__(self, *_: object) -> None:
        for _thread in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            join(thread)

    def submit(self, target: object, start: int, end: int, job: Callable[[], None]) -> None:
        """Run ``job``, which changes bytes [start, end) of ``target``.

        Raises the exception of an earlier job.
        """
        if not self._threads:
            self._threads = [Thread(target=self._work, daemon=True) for _ in range(_WORKERS)]
            for thread in self._threads:
                thread.start()
        self.wait(target, start, end)
        while len(self._running) >= _WAITING:
            self._reap()
        self._number += 1
        self._running[self._number] = _Range(target, start, end)
        self._jobs.put((self._number, job))

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
        """Wait for the end of a job; of several exceptions, that of the first in the stream is raised."""
        ended = [self._done.get()]
        while True:
            try:
                ended.append(self._done.get_nowait())
            except Empty:
                break
        for number, _ in ended:
            del self._running[number]
        for _, error in sorted(ended, key=lambda each: each[0]):
            if error is not None:
                raise error

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            number, job = item
            try:
                job()
            except BaseException as error:  # noqa: BLE001 (it is raised where it is waited for)
                self._done.put((number, error))
            else:
                self._done.put((number, None))
