"""A monitor of a running QEMU, for use by one thread: commands with deadlines, and events.

The package ``qemu.qmp`` speaks the protocol, in a thread of its own, so that the end of QEMU is noticed
whatever this thread does.  A monitor is specified as ``qmp:unix:PATH``; its socket serves one client at a
time, and greets the next one when that has left (QEMU 7.2, chardev/char-socket.c: tcp_chr_new_client).
"""

import asyncio
import socket
import threading
from collections.abc import Coroutine
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from blkmig_cli import limits
from blkmig_cli.dataclass import dataclass
from blkmig_cli.errors import FailureError, UsageError, failing
from blkmig_cli.system.logs import keep_off_stderr
from blkmig_cli.text import brief, count, escape, quote

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

_T = TypeVar("_T")
_PREFIX = "qmp:unix:"
_SHOWN = 400  # characters of QEMU's messages
# Seconds for a command after one that had no answer in time.
_IMPATIENT = 5.0


class CommandError(FailureError):
    """QEMU refused a command; the message is QEMU's."""


class NoAnswerError(FailureError):
    """QEMU did not answer a command in time."""


@dataclass(frozen=True, slots=True)
class MonitorEvent:
    """An event with its data."""

    name: str
    data: dict[str, Any]


def parse_monitor(text: str) -> str:
    """Return the path of the socket in ``qmp:unix:PATH``; raises UsageError."""
    path = text.removeprefix(_PREFIX)
    if path == text or not path or "\0" in path:
        raise UsageError(f"invalid monitor {quote(text)}: expected {_PREFIX}PATH")
    return path


class Monitor:
    """A connection to the QMP socket at ``path``.  Close it with :meth:`close`.

    ``waiting``: one that QEMU will serve some time, when other clients have left.  Methods raise
    FailureError where QEMU ends, or does not answer in time.  ``version``: that of QEMU, as (major, minor).
    """

    def __init__(self, path: str, waiting: socket.socket | None = None) -> None:
        self.path = path
        self._lost = threading.Event()
        self._late = False
        self._held: list[MonitorEvent] = []
        self._client = _new_client()
        with ExitStack() as stack:
            self._socket = stack.enter_context(waiting or socket.socket(socket.AF_UNIX))
            if waiting is None:
                self._connect()
            self._loop = asyncio.new_event_loop()
            stack.callback(self._loop.close)
            thread = threading.Thread(target=self._loop.run_forever, daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(self._loop.call_soon_threadsafe, self._loop.stop)
            stack.callback(self._end_tasks)
            try:
                wait = limits.QMP_GREETING_WAIT if waiting is None else None
                self.version = self._run(self._greet(), wait)
            except TimeoutError:
                raise self._taken() from None
            stack.callback(self._leave)
            self._stack = stack.pop_all()

    def execute(self, command: str, /, **arguments: Any) -> Any:
        """Execute a command and return its result.  Names of arguments have ``_`` for ``-``.

        Raises CommandError where QEMU refuses it, NoAnswerError where it does not answer.
        """
        renamed = {name.replace("_", "-"): value for name, value in arguments.items()}
        wait = _IMPATIENT if self._late else limits.QMP_ANSWER_WAIT
        try:
            return self._run(self._execute(command, renamed), wait)
        except TimeoutError:
            self._late = True
            raise NoAnswerError(
                self._shown(f"no answer to {command} within {count(int(wait), 'second')}")
            ) from None

    def transaction(self, actions: list[dict[str, Any]]) -> None:
        """Execute actions, as :func:`action` returns them, as a unit; raises CommandError."""
        self.execute("transaction", actions=actions)

    def give_descriptor(self, name: str, descriptor: int) -> None:
        """Give QEMU an open descriptor under a name; raises CommandError where it does not arrive."""
        try:
            socket.send_fds(self._socket, [b" "], [descriptor])
        except OSError:
            raise self._ended() from None
        self.execute("getfd", fdname=name)

    def events(self) -> list[MonitorEvent]:
        """Return the events since the last call that nobody has waited for."""
        found, self._held = self._held + self._run(self._pending(), limits.QMP_ANSWER_WAIT), []
        return found

    def wait_for(self, name: str, **data: Any) -> None:
        """Wait for an event with this data among others; those before it stay for :meth:`events`."""
        try:
            self._run(self._await(name, data), limits.QMP_ANSWER_WAIT)
        except TimeoutError:
            raise self._failed(f"no event {name} in time") from None

    @property
    def lost(self) -> bool:
        """Whether QEMU is known to have ended."""
        return self._lost.is_set()

    def check(self) -> None:
        """Raise FailureError where QEMU has ended."""
        if self.lost:
            raise self._ended()

    def sleep(self, seconds: float) -> None:
        """Sleep; raises FailureError as soon as QEMU ends."""
        self._lost.wait(seconds)
        self.check()

    def has_ended(self) -> bool:
        """Return whether QEMU has ended, which may have shown elsewhere first."""
        try:
            self.execute("query-status")
        except FailureError:
            return self.lost
        return False

    def close(self) -> None:
        """Close the connection."""
        self._stack.close()

    def _connect(self) -> None:
        self._socket.settimeout(limits.QMP_GREETING_WAIT)
        try:
            with failing(f"{_PREFIX}{self.path}"):
                self._socket.connect(self.path)
        except FailureError as error:
            if isinstance(error.__cause__, BlockingIOError | TimeoutError):
                raise self._taken() from None
            raise

    async def _greet(self) -> tuple[int, int]:
        """Wait for the greeting, and watch the connection from then on; returns QEMU's version."""
        from qemu.qmp import ConnectError  # noqa: PLC0415

        try:
            await self._client.connect(self._socket)
        except ConnectError as error:
            what = "it closed the connection" if isinstance(error.exc, EOFError) else None
            raise self._failed(what or "it is not a QMP monitor") from None
        self._gone = asyncio.ensure_future(self._watch())
        greeting = self._client.greeting
        assert greeting is not None
        found = greeting.QMP.version["qemu"]
        assert isinstance(found, dict)
        return int(found["major"]), int(found["minor"])

    async def _watch(self) -> None:
        """Note the end of the connection."""
        from qemu.qmp import Runstate  # noqa: PLC0415

        while self._client.runstate == Runstate.RUNNING:
            await self._client.runstate_changed()
        self._lost.set()

    async def _execute(self, command: str, arguments: dict[str, Any]) -> Any:
        from qemu.qmp import ExecInterruptedError, ExecuteError, StateError  # noqa: PLC0415

        try:
            return await self._client.execute(command, arguments)
        except ExecuteError as error:
            raise CommandError(escape(str(error)[:_SHOWN])) from None
        except (ExecInterruptedError, StateError, OSError, EOFError):
            self._lost.set()
            raise self._ended() from None

    async def _pending(self) -> list[MonitorEvent]:
        return [_event(message) for message in self._client.events.clear()]

    async def _await(self, name: str, data: dict[str, Any]) -> None:
        wanted = MonitorEvent(name, data)
        for number, event in enumerate(self._held):
            if _is(event, wanted):
                del self._held[number]
                return
        while True:
            coming = asyncio.ensure_future(self._client.events.get())
            try:
                await asyncio.wait({coming, self._gone}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not coming.done():
                    coming.cancel()
            if coming.cancelled() or not coming.done():
                raise self._ended()
            event = _event(coming.result())
            if _is(event, wanted):
                return
            self._held.append(event)

    def _run(self, work: Coroutine[Any, Any, _T], wait: float | None) -> _T:
        """Run ``work`` in the loop's thread; raises TimeoutError after ``wait`` seconds (None: never)."""
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, wait), self._loop)
        try:
            return future.result()
        except BaseException:  # an interruption of this thread, for example
            future.cancel()
            raise

    def _leave(self) -> None:
        with suppress(Exception):  # why QEMU has closed the connection has been told
            self._run(self._client.disconnect(), _IMPATIENT)

    def _end_tasks(self) -> None:
        with suppress(Exception):  # as above
            self._run(_end_tasks(), _IMPATIENT)

    def _taken(self) -> FailureError:
        return self._failed(
            f"no greeting within {count(limits.QMP_GREETING_WAIT, 'second')}",
            "another client may be connected: start QEMU with one more monitor, or use -qmp "
            "unix:PATH,server=on,wait=off",
        )

    def _ended(self) -> FailureError:
        return self._failed("QEMU has ended, or closed its monitor")

    def _failed(self, what: str, hint: str | None = None) -> FailureError:
        return FailureError(self._shown(what), hint=hint)

    def _shown(self, what: str) -> str:
        return f"{_PREFIX}{escape(self.path)}: {what}"


async def _end_tasks() -> None:
    """End what is still waiting in the loop."""
    own = asyncio.current_task()
    others = [task for task in asyncio.all_tasks() if task is not own]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def action(kind: str, **data: Any) -> dict[str, Any]:
    """Return an action of a transaction.  Names have ``_`` for ``-``."""
    return {"type": kind, "data": {name.replace("_", "-"): value for name, value in data.items()}}


def _new_client() -> "QMPClient":
    """Return a client that prints nothing; raises FailureError where the package is missing."""
    try:
        from qemu.qmp import QMPClient  # noqa: PLC0415 (slow to load, and optional)
    except ImportError as error:
        raise FailureError(
            f"the Python package qemu.qmp is missing ({brief(error.name)})",
            hint="install it with: pip install 'blkmig[live]'",
        ) from None
    keep_off_stderr("qemu.qmp", "asyncio")
    return QMPClient(readbuflen=limits.QMP_MESSAGE_MAX)


def _event(message: Any) -> MonitorEvent:
    return MonitorEvent(str(message["event"]), dict(message.get("data", {})))


def _is(event: MonitorEvent, wanted: MonitorEvent) -> bool:
    return event.name == wanted.name and wanted.data.items() <= event.data.items()
