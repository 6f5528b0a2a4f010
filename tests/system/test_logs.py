"""What libraries log: not on stderr, but where a program wants it."""

import logging

import pytest

from blkmig_cli.system.logs import keep_off_stderr


@pytest.mark.parametrize("times", [1, 2])
def test_it_goes_where_a_program_wants_it(
    times: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"tests.logs.{times}"
    # As in a program that has set none; pytest has its own.
    monkeypatch.setattr(logging.root, "handlers", [])
    logging.getLogger(name).error("before")
    assert capsys.readouterr().err == "before\n"
    for _ in range(times):
        keep_off_stderr(name)
    logging.getLogger(name).error("printed")
    assert capsys.readouterr().err == ""
    assert len(logging.getLogger(name).handlers) == 1
    wanted = logging.StreamHandler()
    logging.root.addHandler(wanted)
    logging.getLogger(name).error("wanted")
    assert capsys.readouterr().err == "wanted\n"
