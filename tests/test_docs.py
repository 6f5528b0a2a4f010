"""The docs say what is: generated pages are fresh, options are all there, the README's tour is real."""

import gzip
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

from blkmig_cli.commands import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CAPTURES = {
    "stream": "bitmaps-7.2-with-blocks",
    "incomplete": "classic-incomplete",
    "tail": "classic-tail",
}


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["make_format", "make_commands"])
def test_generated_pages_are_fresh(name: str) -> None:
    module = script(name)
    assert module.TARGET.read_text() == module.document(), "run make docs"


def test_every_option_is_documented() -> None:
    page = (ROOT / "docs" / "commands.md").read_text()
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        assert command.help
        assert f"## blkmig {name}" in page
        assert f"blkmig {name}" in README
        for option in command.params:
            assert isinstance(option, click.Argument) or option.help, option.name
            assert all(f"`{text}`" in page for text in option.opts if text.startswith("-"))


def test_every_target_is_explained() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^([a-z]+):", makefile, re.MULTILINE):
        assert re.search(rf"^{target}:.* ## \w", makefile, re.MULTILINE)
    assert "make demo" in README
    assert "make test" in README


def test_the_tour_is_real(tmp_path: Path) -> None:
    """Every command of the README, in order, gives the text that stands there."""
    for name, capture in CAPTURES.items():
        packed = ROOT / "tests" / "captures" / f"{capture}.bin.gz"
        with gzip.open(packed) as source, open(tmp_path / f"{name}.bin", "wb") as target:
            shutil.copyfileobj(source, target)
        shutil.copy(packed, tmp_path / f"{name}.bin.gz")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    commands = 0
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for example in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *expected = example.splitlines()
            done = subprocess.run(
                command, shell=True, cwd=tmp_path, env=environment, text=True, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            found = [line.rstrip() for line in done.stdout.splitlines()]
            if expected[-1:] == ["..."]:
                expected.pop()
                found = found[: len(expected)]
            assert found == expected, command
            commands += 1
    assert commands >= 10


def test_nothing_is_wider_than_a_terminal() -> None:
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        assert all(len(line) <= 96 for line in block.splitlines())
