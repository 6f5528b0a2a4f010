"""What one run makes in a QEMU: the NBD server, exports, bitmaps and nodes, all removed at its end."""

import os
import socket
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from blkmig_cli import limits
from blkmig_cli.disks.nbd.image import NbdImage, image_on
from blkmig_cli.errors import BlkmigError, FailureError, Interruption, failing
from blkmig_cli.operations.live.disks import QemuDisk
from blkmig_cli.operations.live.guard import Guard, drained
from blkmig_cli.operations.live.remnants import (
    DATA,
    Remnants,
    find_remnants,
    prefix_of,
    remove_all,
    remove_exports,
    stop_server,
)
from blkmig_cli.system.qmp import CommandError, Monitor
from blkmig_cli.text import escape

_BACKLOG = 16


class Session:
    """The run ``run`` in the QEMU of ``monitor``, as a context manager that removes everything at its end.

    ``guard`` does that where this process is killed.  ``socket_path``: where QEMU creates the socket of
    its NBD server; None: it is given one that only we can reach.  Methods raise FailureError.
    """

    def __init__(
        self, monitor: Monitor, guard: Guard, run: str, socket_path: str | None = None
    ) -> None:
        self.monitor = monitor
        self._guard = guard
        self._run = run
        self._prefix = prefix_of(run)
        self._path = socket_path
        self._images: dict[str, NbdImage] = {}
        self._peers: dict[str, socket.socket] = {}
        self._served = False
        self._before, self._stack = ExitStack(), ExitStack()

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        failure = self._remove()
        self._stack.close()
        if failure is None:
            return
        if self._served:
            self._guard.take_over()
        if error is None:
            raise failure
        if self._served:  # the first error is the one told
            error.add_note(f"what it made in QEMU is not yet removed ({failure}); see --clean-up")

    def name(self, kind: str, number: int) -> str:
        """Return a name for something that the run makes in QEMU."""
        return f"{self._prefix}{kind}-{number}"

    def before_removal(self, call: Callable[[], None]) -> None:
        """Call a function at the end of the run, before everything is removed."""
        self._before.callback(call)

    def start_server(self) -> None:
        """Start the NBD server; raises FailureError where one is running."""
        left = find_remnants(self.monitor)
        if left:
            raise FailureError(
                f"QEMU has exports, bitmaps or nodes of another run ({', '.join(map(prefix_of, left))}...)",
                hint="wait for its end; if it was killed, remove them with --clean-up",
            )
        try:
            if self._path is None:
                self._serve_on_descriptor()
            else:
                self._serve_at(self._path)
        except CommandError as error:
            if "already running" in error.message:
                raise FailureError(
                    "an NBD server is running in this QEMU, which can have only one",
                    hint="stop it first (QMP: nbd-server-stop)",
                ) from None
            raise FailureError(f"starting QEMU's NBD server failed: {error}") from None

    def open_disk(self, number: int, device: str, disk: QemuDisk) -> NbdImage:
        """Export a disk and return it for reading; closed at the end of the run."""
        return self.open_node(self.name(DATA, number), disk.node, device)

    def open_node(
        self,
        name: str,
        node: str,
        device: str,
        *,
        writable: bool = False,
        patience: float | None = None,
    ) -> NbdImage:
        """Export a node and return it for reading, and for being discarded if ``writable``.

        ``patience``: as of :func:`image_on`.

        QEMU must not wait for us to take its answers, even if the target hangs: until they are taken, it
        could not pause or reset the guest's disk (QEMU 7.2, nbd/server.c: nbd_drained_poll).
        """
        self.export(name, node, writable=writable)
        image = self.connect(name, device, patience=patience)
        image.receive_always()
        return image

    def export(
        self, name: str, node: str, bitmaps: Iterable[str] = (), *, writable: bool = False
    ) -> None:
        """Export a node, with bitmaps of it that are disabled."""
        self.monitor.execute(
            "block-export-add",
            type="nbd",
            id=name,
            name=name,
            node_name=node,
            writable=writable,
            bitmaps=list(bitmaps),
        )

    def connect(
        self,
        name: str,
        device: str,
        bitmaps: tuple[str, ...] = (),
        patience: float | None = None,
    ) -> NbdImage:
        """Return the export of this name, connected; ``device``: its disk, for messages."""
        assert self._path is not None
        shown = f"disk {device} of QEMU"
        with ExitStack() as stack:
            with failing(f"{shown}: its NBD socket"):
                peer = stack.enter_context(socket.socket(socket.AF_UNIX))
                peer.settimeout(limits.NBD_CONNECT_WAIT)
                peer.connect(self._path)
            self._guard.keep(peer.fileno())
            self._peers[name] = peer.dup()
            stack.pop_all()
        image = self._images[name] = image_on(
            peer, name, shown, writable=False, bitmaps=bitmaps, patience=patience
        )
        return image

    def remove_export(self, name: str) -> None:
        """Remove an export, and disconnect from it only then (see ``guard.py``)."""
        with drained([self._peers[name].fileno()]):
            remove_exports(self.monitor, [name])
        self._disconnect(name)

    def _serve_on_descriptor(self) -> None:
        """Give QEMU a listening socket, so that it need not reach any path."""
        with failing("a socket for QEMU's NBD server"):
            folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="blkmig-"))
            path = os.path.join(folder, "nbd")
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(path)
                listener.listen(_BACKLOG)
                name = f"{self._prefix}socket"
                try:
                    self.monitor.give_descriptor(name, listener.fileno())
                except CommandError as error:
                    raise FailureError(
                        f"QEMU did not get a descriptor through its monitor: {error}",
                        hint="use --socket PATH, where QEMU and this program both reach PATH",
                    ) from None
                self._start({"type": "fd", "data": {"str": name}})
        self._path = path

    def _serve_at(self, path: str) -> None:
        if os.path.lexists(path):  # QEMU would remove it
            raise FailureError(f"--socket {escape(path)}: it exists", hint="use another path")
        try:
            self._start({"type": "unix", "data": {"path": os.path.abspath(path)}})
        except CommandError as error:
            if "already running" in error.message:
                raise
            raise FailureError(
                f"--socket {escape(path)}: QEMU cannot create it: {error}",
                hint="it needs a folder that QEMU's user may write, as QEMU sees it",
            ) from None

    def _start(self, address: dict[str, Any]) -> None:
        self._served = True
        try:
            self.monitor.execute("nbd-server-start", addr=address)
        except CommandError:
            self._served = False
            raise
        self._guard.note_served()

    def _disconnect(self, name: str) -> None:
        image = self._images.pop(name, None)
        if image is not None:
            image.abandon()  # QEMU has closed its side, or the guard keeps it open
        self._peers.pop(name).close()

    def _remove(self) -> BaseException | None:
        """Remove everything; return the first error of it.  Nothing is left in a QEMU that has ended."""
        first: BaseException | None = None
        try:
            self._before.close()
        except (Interruption, KeyboardInterrupt) as error:
            first = error
        while self._served:
            try:
                self._remove_served()
            except BlkmigError as error:
                first = first or error
                break
            except (Interruption, KeyboardInterrupt) as error:
                first = first or error  # and go on with what is left
        for name in list(self._peers):
            self._disconnect(name)
        return None if self.monitor.lost else first

    def _remove_served(self) -> None:
        with drained([peer.fileno() for peer in self._peers.values()]):
            remove_all(self.monitor, find_remnants(self.monitor).get(self._run, Remnants()))
            stop_server(self.monitor)
        self._served = False
