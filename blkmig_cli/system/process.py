"""Signals that end this process, and its standard descriptors."""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from types import FrameType

from blkmig_cli.errors import Interruption

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Parameters of mallopt(3), and bytes.
_MMAP_THRESHOLD, _LARGE = -3, 4 << 20
_TRIM_THRESHOLD, _KEPT = -1, 16 << 20


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise Interruption in the main thread, so that the clean-up runs.

    A signal that is ignored, as by ``nohup`` or in a shell's background jobs, remains ignored.  A
    parent process may send a signal twice: the second one does not interrupt the clean-up, further
    ones do.
    """
    received = 0

    def interrupt(number: int, _: FrameType | None) -> None:
        nonlocal received
        received += 1
        if received != 2:
            raise Interruption(number)

    heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = [(number, signal.signal(number, interrupt)) for number in heeded]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def join(thread: Thread, wait: float | None = None) -> None:
    """Wait until ``thread`` ends, at most ``wait`` seconds; not for one that a signal kept from starting."""
    with suppress(RuntimeError):
        thread.join(wait)


def reserve_standard_descriptors() -> None:
    """Put /dev/null at descriptors 0, 1 and 2 where they are closed.

    Otherwise a file opened later, perhaps an image, would become stdin or stdout.  Reading such
    a stdin and writing such a stdout fail; what is written to such a stderr is dropped.
    """
    for fd, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, flags)  # gets the lowest number that is free: fd
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def limit_numpy_threads() -> None:
    """Keep numpy from starting a thread for each processor: half of the time that it takes to load.

    They are for linear algebra, of which there is none here.  ``os.environ`` stays as it is, and so does
    the environment of programs that are started with it.
    """
    if "OPENBLAS_NUM_THREADS" not in os.environ:
        os.putenv("OPENBLAS_NUM_THREADS", "1")


def return_large_buffers() -> None:
    """Have large buffers returned to the system when they are freed, where the C library is glibc.

    It keeps those of a size that was freed before, up to 32 MiB (mallopt(3): M_MMAP_THRESHOLD), so that
    the arrays of a large stream take a fifth more memory, or not, depending on what was there before.
    Smaller ones are kept: to get each from the system again takes longer than what is done with them.
    """
    with suppress(AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _LARGE)
        library.mallopt(_TRIM_THRESHOLD, _KEPT)
