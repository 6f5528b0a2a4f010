"""A child process that cleans up in QEMU where this one is killed.

QEMU's monitor serves one client at a time.  The child has a connection to it that waits until ours is
closed, and is served next: then it resumes the guest, if we had paused it, thaws its file systems, if we
had frozen them, and removes what we have made.

It also keeps our NBD connections open, as QEMU 7.2.22 aborts when a client of a disk with an iothread hangs
up by itself (blockdev-nbd.c: nbd_blockdev_client_closed): exports are removed first, which closes the
connections from QEMU's side.
"""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from types import TracebackType

from blkmig_cli import limits
from blkmig_cli.errors import FailureError, failing
from blkmig_cli.operations.live.remnants import find_remnants, remove_all, stop_server
from blkmig_cli.system.agent import Agent
from blkmig_cli.system.qmp import Monitor

_KEEP, _PAUSED, _RUNNING, _FROZEN, _THAWED = b"k", b"p", b"r", b"f", b"t"
_SERVED, _DONE = b"s", b"d"
_PIECE = 1 << 18
_LOOK = 10  # milliseconds after which a thread looks whether it is to end
_START = "from blkmig_cli.operations.live.guard import main; main()"


class Guard:
    """The child for the run ``run`` in the QEMU whose monitor is at ``path``, as a context manager.

    This process is connected to that monitor already.  Methods raise FailureError.
    """

    def __init__(self, path: str, run: str) -> None:
        self._stack = ExitStack()
        self._takes_over = False
        with ExitStack() as stack, failing("the process that cleans up after a kill"):
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.settimeout(limits.QMP_GREETING_WAIT)
            waiting.connect(path)
            waiting.settimeout(None)
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs)
            self._control = self._stack.enter_context(ours)
            descriptors = (theirs.fileno(), waiting.fileno())
            child = subprocess.Popen(
                [sys.executable, "-Pc", _START, path, run, *map(str, descriptors)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=descriptors,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # what ends a group of processes does not end it
            )
        self._stack.callback(child.wait)
        self._stack.callback(child.kill)

    def __enter__(self) -> "Guard":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._takes_over:
            self._control.close()
            return
        with self._stack, suppress(FailureError):
            self._tell(_DONE)

    def take_over(self) -> None:
        """Leave it to the child to clean up, as soon as QEMU answers again; it outlives this process."""
        self._takes_over = True

    def keep(self, descriptor: int) -> None:
        """Keep an NBD connection open until the child ends."""
        self._give(_KEEP, descriptor)

    def note_paused(self, paused: bool) -> None:
        """Note whether the guest is paused by us."""
        self._tell(_PAUSED if paused else _RUNNING)

    def note_served(self) -> None:
        """Note that QEMU's NBD server is ours, even if it has no exports."""
        self._tell(_SERVED)

    def note_frozen(self, agent: int | None) -> None:
        """Note that the guest's file systems are frozen through the connection ``agent``; None: not."""
        if agent is None:
            self._tell(_THAWED)
        else:
            self._give(_FROZEN, agent)

    def _give(self, word: bytes, descriptor: int) -> None:
        with failing("the process that cleans up after a kill"):
            socket.send_fds(self._control, [word], [descriptor])

    def _tell(self, word: bytes) -> None:
        with failing("the process that cleans up after a kill"):
            self._control.sendall(word)


def main() -> None:
    """Run the child: wait until the program is done, or killed."""
    path, run, control, waiting = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    paused, served, kept, agent = False, False, list[int](), list[int]()
    with socket.socket(fileno=control) as words, socket.socket(fileno=waiting) as monitor:
        while True:
            word, descriptors, _, _ = socket.recv_fds(words, 1, 1)
            if word in (_FROZEN, _THAWED):
                for old in agent:
                    os.close(old)
                agent = descriptors
                continue
            kept = [*_open_ones(kept), *descriptors]
            if word == _DONE:
                return
            if word in (_PAUSED, _RUNNING):
                paused = word == _PAUSED
            served = served or word == _SERVED
            if not word:
                break
        with drained(kept):
            if agent and not paused:
                _thaw(*agent)
            qemu = Monitor(path, monitor)
            if paused and qemu.execute("query-status")["status"] == "paused":
                qemu.execute("cont")
            if agent and paused:
                _thaw(*agent)
            _clean_up(qemu, run, served=served)


@contextmanager
def drained(descriptors: Iterable[int]) -> Iterator[None]:
    """Take what QEMU sends on NBD connections that nobody reads any more.

    Before that is taken, it does not close a connection (QEMU 7.2, nbd/server.c: nbd_co_send_iov).
    """
    poll, end = select.poll(), threading.Event()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)

    def drain() -> None:
        left = set(descriptors)
        while left and not end.is_set():
            for descriptor, _ in poll.poll(_LOOK):
                try:
                    ended = not os.read(descriptor, _PIECE)
                except BlockingIOError:
                    continue
                except OSError:
                    ended = True
                if ended:
                    poll.unregister(descriptor)
                    left.discard(descriptor)

    thread = threading.Thread(target=drain, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def _open_ones(descriptors: list[int]) -> list[int]:
    """Return those of the connections that QEMU has not closed; close the others."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, 0)  # a hang-up is always reported
    closed = {descriptor for descriptor, _ in poll.poll(0)}
    for descriptor in closed:
        os.close(descriptor)
    return [descriptor for descriptor in descriptors if descriptor not in closed]


def _thaw(descriptor: int) -> None:
    with suppress(FailureError), closing(Agent("", socket.socket(fileno=descriptor))) as agent:
        agent.thaw()


def _clean_up(monitor: Monitor, run: str, *, served: bool) -> None:
    with closing(monitor):
        left = find_remnants(monitor).get(run)
        if left is not None:
            remove_all(monitor, left)
        if left is not None or served:
            stop_server(monitor)


if __name__ == "__main__":
    main()
