"""Freezing the guest's file systems for a moment; whatever happens, they are thawed."""

from collections.abc import Callable
from contextlib import closing
from types import TracebackType

from blkmig_cli.errors import FailureError, Interruption, UsageError
from blkmig_cli.operations.live.guard import Guard
from blkmig_cli.operations.live.request import SnapshotOptions
from blkmig_cli.system.agent import Agent

_HINT = "thaw them in the guest, with fsfreeze --unfreeze for example"


def check_freeze(options: SnapshotOptions) -> None:
    """Raise UsageError for options that contradict each other."""
    if options.agent is None and options.freeze == "require":
        raise UsageError("--freeze require needs the guest agent", hint="see --agent")
    if options.agent is not None and options.freeze == "no":
        raise UsageError("--agent and --freeze no exclude each other")


class Freeze:
    """As a context manager: the guest's file systems are frozen inside, if ``options`` say so.

    ``guard`` thaws them where this process is killed.  ``warn`` is called where they could not be frozen,
    and need not be.  ``held``: afterwards, whether they were frozen all the time.  Raises FailureError.
    """

    def __init__(self, options: SnapshotOptions, guard: Guard, warn: Callable[[str], None]) -> None:
        self._path = None if options.freeze == "no" else options.agent
        self._required = options.freeze == "require"
        self._guard = guard
        self._warn = warn
        self._agent: Agent | None = None
        self.held = False

    def __enter__(self) -> "Freeze":
        if self._path is None:
            return self
        try:
            self._agent = Agent(self._path)
            self._guard.note_frozen(self._agent.fileno())
            self.held = self._agent.freeze() > 0
            if not self.held:
                raise FailureError("the guest agent found no file systems to freeze")
        except FailureError as error:
            self._thaw()
            if self._required:
                raise
            self._warn(f"{error}; the guest's file systems are not frozen")
        except BaseException:
            self._thaw()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thaw()
        if error is None and self._required and not self.held:
            raise FailureError("the guest's file systems were thawed too early")

    def _thaw(self) -> None:
        """Thaw them, if there is a connection to the agent; raises FailureError where that fails."""
        agent, self._agent = self._agent, None
        if agent is None:
            return
        thawed, first = None, None
        with closing(agent):
            for _ in range(2):
                try:
                    thawed = agent.thaw()
                    break
                except (FailureError, Interruption, KeyboardInterrupt) as error:
                    first = first or error
        self.held = self.held and bool(thawed)
        if thawed is None:
            raise FailureError(
                f"the guest's file systems may be frozen still: {first}", hint=_HINT
            ) from first
        self._guard.note_frozen(None)
        if first is not None and not isinstance(first, FailureError):
            raise first
