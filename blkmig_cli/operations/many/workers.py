"""Processes of this machine that work on many captures, with the results in order.

They are forked from a server that has loaded what they need (multiprocessing's forkserver), so that starting
one is fast, and safe whatever threads this process has.  Each gets the next names over a pipe
of its own, so that it is known which capture a worker that died was working on.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import Generic, TypeVar

from blkmig_cli import limits
from blkmig_cli.errors import UsageError
from blkmig_cli.system.process import return_large_buffers
from blkmig_cli.transport.background import Reading

R = TypeVar("R")

#: The work on the capture of a name.  It can be pickled, and raises nothing but UsageError.
Work = Callable[[str], R]

# Names that a worker holds, so that it need not wait for the next one; starts of work on one capture.
_HELD, _STARTS = 2, 2


def prepare(module: str) -> None:
    """Start the server from which workers are forked, which loads ``module``; it is not waited for."""
    multiprocessing.get_context("forkserver").set_forkserver_preload([module])
    forkserver.ensure_running()


def results_of(
    names: Iterable[str], work: Work[R], jobs: int, lost: Callable[[str], R]
) -> Iterator[R]:
    """Yield the result of ``work`` for each of ``names``, in their order, from ``jobs`` processes.

    Work that a process died of is done once more by another one; ``lost`` makes its result if that
    dies, too.  Leaving the iterator ends the processes.  Raises UsageError where ``work`` does.
    """
    pool = _Pool(work, jobs)
    try:
        yield from pool.run(names, lost)
    finally:
        pool.close()


class _Task:
    """The work on one capture: its place in the order, and how often it was started."""

    __slots__ = ("name", "number", "starts")

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = name
        self.starts = 0


class _Worker(Generic[R]):
    """A process, this end of its pipe, and the tasks it has, in their order."""

    def __init__(self, work: Work[R], *, crowded: bool) -> None:
        context = multiprocessing.get_context("forkserver")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(work, other, crowded), daemon=True)
        self.process.start()
        other.close()
        self.tasks: deque[_Task] = deque()

    def give(self, task: _Task) -> None:
        """Give the worker a task; if it has died, that is noticed when its result is read."""
        self.tasks.append(task)
        with suppress(OSError):
            self.pipe.send(task.name)

    def take(self) -> R | UsageError | None:
        """Return the result of the first task, None if the worker has died."""
        try:
            found: R | UsageError = self.pipe.recv()
        except (EOFError, OSError):
            return None
        return found

    def close(self) -> None:
        """End the process, and wait for it."""
        self.process.kill()
        self.process.join()
        self.process.close()
        self.pipe.close()


class _Pool(Generic[R]):
    """Workers, the tasks to be given to them, and the results that wait for earlier ones."""

    def __init__(self, work: Work[R], jobs: int) -> None:
        self._work = work
        self._jobs = jobs
        self._workers: dict[Connection, _Worker[R]] = {}
        self._again: deque[_Task] = deque()
        self._results: dict[int, R] = {}

    def run(self, names: Iterable[str], lost: Callable[[str], R]) -> Iterator[R]:
        """See :func:`results_of`."""
        tasks = map(_Task, range(1 << 62), names)
        following: _Task | None = next(tasks, None)
        number = 0  # of the next result to yield
        while following is not None or self._again or self._has_tasks() or self._results:
            while number in self._results:
                yield self._results.pop(number)
                number += 1
            while (worker := self._free()) is not None:
                if self._again:
                    worker.give(self._again.popleft())
                elif following is not None and following.number - number < self._most():
                    worker.give(following)
                    following = next(tasks, None)
                else:
                    break
            if self._has_tasks():
                self._collect(lost)

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()

    def _most(self) -> int:
        return limits.RESULTS_WAITING * self._jobs

    def _has_tasks(self) -> bool:
        return any(worker.tasks for worker in self._workers.values())

    def _free(self) -> _Worker[R] | None:
        """Return the worker with the fewest tasks, a new one if all have some; None if all have enough."""
        worker = min(self._workers.values(), key=lambda one: len(one.tasks), default=None)
        if (worker is None or worker.tasks) and len(self._workers) < self._jobs:
            crowded = self._jobs >= len(os.sched_getaffinity(0))
            worker = _Worker(self._work, crowded=crowded)
            self._workers[worker.pipe] = worker
        return worker if worker is not None and len(worker.tasks) < _HELD else None

    def _collect(self, lost: Callable[[str], R]) -> None:
        """Wait for results; replace workers that died, and start again what these had to do."""
        busy = [pipe for pipe, worker in self._workers.items() if worker.tasks]
        for pipe in wait(busy):
            worker = self._workers[pipe]  # type: ignore[index]
            result = worker.take()
            if isinstance(result, UsageError):
                raise result
            if result is not None:
                self._results[worker.tasks.popleft().number] = result
                continue
            del self._workers[worker.pipe]
            worker.close()
            task = worker.tasks[0]
            task.starts += 1
            if task.starts == _STARTS:
                self._results[task.number] = lost(task.name)
                worker.tasks.popleft()
            self._again.extend(worker.tasks)


def _serve(work: Work[R], pipe: Connection, crowded: bool) -> None:
    """Do the work of a worker until the other end of its pipe is closed.

    ``crowded``: there is no processor for more threads.
    """
    # Ctrl-C goes to all processes of a terminal; the end of this one is left to the one that started it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    return_large_buffers()
    if crowded:
        Reading.use_no_threads()
    with suppress(EOFError, OSError):
        while True:
            pipe.send(_result(work, pipe.recv()))


def _result(work: Work[R], name: str) -> R | UsageError:
    try:
        return work(name)
    except UsageError as error:
        return error


def _end_with_parent() -> None:
    """Wait for the end of the process that started this one, and end this one."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os.kill(os.getpid(), signal.SIGKILL)
