"""Pausing the guest, which runs on afterwards whatever happens."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from blkmig_cli.errors import FailureError
from blkmig_cli.operations.live.guard import Guard
from blkmig_cli.system.qmp import Monitor

# States of a guest whose disks are not its own (QEMU 7.2, qapi/run-state.json: RunState).
_NOT_HERE = {"inmigrate", "finish-migrate", "postmigrate", "colo"}


class Pause:
    """The pause of a guest, as a context manager that resumes it at its end if it is still paused.

    A guest that was not running is left as it is.  ``seconds``: how long it was paused.
    """

    def __init__(self, monitor: Monitor, guard: Guard) -> None:
        self._monitor = monitor
        self._guard = guard
        self._since: float | None = None
        self.seconds: float | None = None

    def __enter__(self) -> "Pause":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.cancel(error)
        self.end()

    def cancel(self, error: BaseException) -> None:
        """Resume the guest because of ``error``; where that fails, too, the error gets a note."""
        try:
            self.end()
        except FailureError as failure:
            self._since = None
            if not self._monitor.lost:
                self._guard.take_over()
                error.add_note(f"the guest is paused until QEMU answers ({failure})")

    def begin(self) -> None:
        """Pause the guest if it runs; raises FailureError."""
        state = check_state(self._monitor)
        if state != "running":
            return
        self._guard.note_paused(True)
        self._since = time.monotonic()
        self._monitor.execute("stop")

    @contextmanager
    def brief(self) -> Iterator[None]:
        """Pause the guest inside, if it runs; raises FailureError."""
        try:
            self.begin()
            yield
        except BaseException as error:
            self.cancel(error)
            raise
        self.end()

    @property
    def is_paused(self) -> bool:
        """Whether the guest is paused by this."""
        return self._since is not None

    def elapsed(self) -> float | None:
        """Return the seconds for which the guest is paused by this, or was."""
        return self.seconds if self._since is None else time.monotonic() - self._since

    def end(self) -> None:
        """Resume the guest if it was running before; raises FailureError."""
        if self._since is None:
            return
        # Where this is interrupted, it is done again at the end.
        self._monitor.execute("cont")
        self.keep()

    def keep(self) -> None:
        """Leave the guest paused."""
        if self._since is not None:
            self.seconds, self._since = self.elapsed(), None
            self._guard.note_paused(False)


def check_state(monitor: Monitor) -> str:
    """Return the state of the guest; raises FailureError where it is being migrated."""
    state = str(monitor.execute("query-status")["status"])
    if state in _NOT_HERE:
        raise FailureError(f"the guest is being migrated, or was (its state is {state})")
    return state
