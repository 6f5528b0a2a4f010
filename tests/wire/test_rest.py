"""The machine type of the rest of a stream, and what else is none."""

import pytest

from blkmig_cli.wire.events import Configuration, Event, Footer, Header, Progress
from blkmig_cli.wire.rest import REST_HEAD, continued_state, rest_machine, state_at_start

STATE = "01234567-89ab-cdef-0123-456789abcdef"
MACHINE = "blkmig-rest-" + STATE
HEADER = Header(0, 8, None, 3)


def configuration(machine: str) -> Configuration:
    return Configuration(8, 5 + len(machine), None, machine)


def test_the_machine_type() -> None:
    assert rest_machine(STATE) == MACHINE
    assert 8 + 5 + len(MACHINE) <= REST_HEAD == 64


@pytest.mark.parametrize(
    ("machine", "state"),
    [
        (MACHINE, STATE),
        (None, None),
        ("", None),
        ("none", None),
        (STATE, None),
        ("blkmig-rest-", None),
        (MACHINE + "0", None),
        (MACHINE.upper(), None),
        ("x" + MACHINE, None),
        ("blkmig-rest-none", None),
    ],
)
def test_the_state_that_is_continued(machine: str | None, state: str | None) -> None:
    assert continued_state(machine) == state


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([HEADER, configuration(MACHINE)], STATE),
        ([configuration(MACHINE)], STATE),
        ([HEADER, configuration("none"), configuration(MACHINE)], None),
        ([HEADER, Footer(8, 5, None, 1), configuration(MACHINE)], None),
        ([Progress(0, 8, None, 0, 4), configuration(MACHINE)], None),
        ([HEADER], None),
        ([], None),
    ],
)
def test_the_state_at_a_streams_start(events: list[Event], state: str | None) -> None:
    assert state_at_start(events) == state


def test_no_more_is_read_than_is_needed() -> None:
    for needed in ([HEADER, configuration("none")], [HEADER, Footer(8, 5, None, 1)]):
        left = iter([*needed, HEADER])
        assert state_at_start(left) is None
        assert list(left) == [HEADER]
