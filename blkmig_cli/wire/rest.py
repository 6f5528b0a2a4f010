"""The rest of a stream whose replay was interrupted, as ``send --from-token`` makes it.

Its machine type names the state of the images that it continues: at the stream's start, where a reader
from a pipe needs it.  QEMU loads no stream that states another machine type than its own (QEMU 7.2,
migration/savevm.c: configuration_post_load), so that it never takes the rest
for a whole disk.
"""

from collections.abc import Iterable

from blkmig_cli.wire.events import Configuration, Event, Header
from blkmig_cli.wire.identity import is_id

_MACHINE = "blkmig-rest-"
#: Bytes at a stream's start in which it says so.
REST_HEAD = 64


def rest_machine(state: str) -> str:
    """Return the machine type of the rest of a stream; ``state``: a UUID, that of the images."""
    return _MACHINE + state


def continued_state(machine: str | None) -> str | None:
    """Return the state of the images that a stream of this machine type continues; None for any other."""
    if machine is None or not machine.startswith(_MACHINE):
        return None
    state = machine.removeprefix(_MACHINE)
    return state if is_id(state) else None


def state_at_start(events: Iterable[Event]) -> str | None:
    """Return the state that ``events``, from a stream's start, continue; None if they are no rest.

    Raises as they do.
    """
    for event in events:
        if isinstance(event, Configuration):
            return continued_state(event.machine)
        if not isinstance(event, Header):
            break
    return None
