"""The docs say what is: generated pages are fresh, options are all there, the README's tour is real."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import click
import pytest

from blkmig_cli.commands import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["make_format", "make_commands", "make_library"])
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


def test_the_tour_is_real() -> None:
    """Every command of the README, in order, gives the text that stands there."""
    assert len(re.findall(r"^\$ ", README, re.MULTILINE)) >= 10
    assert script("make_tour").document() == README, "run make docs"


def test_nothing_is_wider_than_a_terminal() -> None:
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        # A finding is one line, however long, so that it can be searched for.
        lines = [line for line in block.splitlines() if not line.endswith("]")]
        assert all(len(line) <= 96 for line in lines)
