"""Which findings the commands accept, with which options."""

from pathlib import Path

import click
import pytest

from blkmig_cli.checks.acceptance import ACCEPTED, ALWAYS, GIVEN_BY, accepted, accepting
from blkmig_cli.checks.catalogue import CHECKS
from blkmig_cli.commands import cli
from tests.conftest import Run, fails
from tests.support import raw

CONTEXT = click.Context(cli)


def test_only_what_exists_is_named() -> None:
    for command, rows in ACCEPTED.items():
        found = cli.get_command(CONTEXT, command)
        assert found is not None
        options = {option for each in found.params for option in each.opts}
        assert set(rows) <= {*options, ALWAYS}
        assert {check for checks in rows.values() for check in checks} <= set(CHECKS)
    assert set(GIVEN_BY) <= set(CHECKS)
    assert {command for commands in GIVEN_BY.values() for command in commands} <= set(
        cli.list_commands(CONTEXT)
    )


def test_options_that_are_given() -> None:
    assert accepted("validate", {"--incremental": True}) == {"missing-chunks", "salvaged"}
    assert accepted("validate", {"--incremental": False}) == set()
    both = accepted("replay", {"--incremental": True, "--no-bitmaps": True})
    assert both == {"missing-chunks", "salvaged", "bitmap-incomplete", "bitmap-size"}
    assert accepting("convert", "bitmap-size") == ["--no-bitmaps"]
    assert accepting("validate", "bitmap-size") == []


#: Bitmaps of a disk of 1 MiB: check, chunks.
FAULTY = {
    "bitmap-size": raw.bitmap_bits(0, 4096, b"\1" * 8),
    "bitmap-incomplete": raw.bitmap_bits(0, 2048, b"\1" * 8),
}
#: How to write something that has no bitmaps.
WRITING = {
    "replay": ["--image", "x", "--create"],
    "convert": ["--normalize", "--to", "x"],
}


@pytest.mark.parametrize("check", FAULTY)
@pytest.mark.parametrize("command", WRITING)
def test_without_the_bitmaps(
    command: str, check: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bits = raw.bitmap_start(granularity=65536) + FAULTY[check]
    Path("s.bin").write_bytes(raw.qemu(raw.block(0, 9), bitmaps=bits))
    words = [command, "s.bin", "--device-size", 1 << 20, *WRITING[command]]
    fails(run(*words), 1, f"[{check}]" if command == "replay" else "use --no-bitmaps")
    assert not Path("x").exists()
    outcome = run(*words, "--no-bitmaps")
    assert outcome.status == 0, outcome.err
    assert Path("x").exists()
