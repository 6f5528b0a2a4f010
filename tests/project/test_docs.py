"""The docs match the code: generated pages are fresh, all options are documented, the tour is run."""

import importlib.util
import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

import blkmig_cli
from blkmig_cli.checks.catalogue import CHECKS
from blkmig_cli.checks.remedies import REMEDIES
from blkmig_cli.commands import cli
from blkmig_cli.errors import BlkmigError
from blkmig_cli.spec.records import FIELDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def script(name: str) -> ModuleType:
    """Import a script of docs/, which may import others."""
    if str(ROOT / "docs") not in sys.path:
        sys.path.append(str(ROOT / "docs"))
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name",
    [
        "make_format", "make_kaitai", "make_wireshark", "make_commands", "make_checks",
        "make_library",
    ],
)  # fmt: skip
def test_generated_pages_are_fresh(name: str) -> None:
    module = script(name)
    assert module.TARGET.read_text() == module.document(), "run make docs"


def commands() -> list[tuple[str, click.Command]]:
    context = click.Context(cli)
    found = [(name, cli.get_command(context, name)) for name in cli.list_commands(context)]
    return [(name, command) for name, command in found if command is not None]


def chapter(page: str, heading: str) -> str:
    """Return the text under a heading, up to the next heading of its level."""
    _, found, rest = page.partition(f"\n{heading}\n")
    assert found, heading
    kind = heading.split(maxsplit=1)[0]
    return rest.partition(f"\n{kind} ")[0]


PAGE = (ROOT / "docs" / "commands.md").read_text()
CHECKS_PAGE = (ROOT / "docs" / "checks.md").read_text()


@pytest.mark.parametrize(("name", "command"), commands())
def test_every_command_and_option_is_documented(name: str, command: click.Command) -> None:
    """Each in the command's own chapter."""
    assert command.help
    assert f"blkmig {name}" in README
    text = chapter(PAGE, f"## blkmig {name}")
    for param in command.params:
        if isinstance(param, click.Option):
            assert param.help, param.name
            assert all(f"`{word}`" in text for word in param.opts + param.secondary_opts)
            if isinstance(param.type, click.Choice) and not param.metavar:
                assert all(re.search(rf"[`|]{word}[`\\]", text) for word in param.type.choices)
        else:
            assert f"| {param.metavar} |" in text


def test_every_check_is_documented() -> None:
    """Each under a heading of its own, with what to do about its findings."""
    rows = re.findall(r"^## (.+)\n\n\*(\w+)\.\* (.+)\n\n(.+)$", CHECKS_PAGE, re.M)
    assert {check: (severity, text) for check, severity, text, _ in rows} == CHECKS
    assert {check: text for check, _, _, text in rows} == REMEDIES


@pytest.mark.parametrize("name", ["increments", "libvirt", "many", "qemu", "remote", "trust"])
def test_every_mention_of_a_check_is_a_link(name: str) -> None:
    page = (ROOT / "docs" / f"{name}.md").read_text()
    for before, word in re.findall(r"(.)`([a-z0-9-]+)`", re.sub(r"(?ms)^```.*?^```", "", page)):
        assert word not in CHECKS or before == "[", word
    for word, target in re.findall(r"\[`([a-z0-9-]+)`\]\(checks\.md#(.*?)\)", page):
        assert word == target


def test_every_check_is_tested() -> None:
    """Every check is named in some test."""
    tests = "".join(
        path.read_text() for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)
    )
    assert [check for check in CHECKS if f'"{check}"' not in tests] == []


def test_every_record_and_field_of_specs_is_documented() -> None:
    text = chapter(PAGE, "## Specs")
    for name, (_, fields) in FIELDS.items():
        (row,) = re.findall(rf"^\| {name} \|(.*)\|$", text, re.M)
        assert row.split() == [
            field.key if field.default is ... else f"[{field.key}]" for field in fields
        ]


def test_every_exit_status_is_documented() -> None:
    statuses = {kind.exit_status for kind in BlkmigError.__subclasses__()} | {0, 1, 130, 141, 143}
    table = chapter(README, "## Exit status")
    assert {int(number) for number in re.findall(r"\b\d+\b(?=[^|]*\|)", table)} == statuses


def test_every_schema_is_named() -> None:
    """Every schema has a title, and the README names their folder."""
    for path in (ROOT / "docs" / "schemas").iterdir():
        assert json.loads(path.read_text())["title"]
    assert "docs/schemas" in README


# -- the library

LIBRARY = script("make_library")
# Members that raise no errors.
_SAFE = {
    "StreamReader.closed", "StreamReader.size", "DiskFile.size", "DiskFile.pieces", "Disk.size",
    "DiskFile.readable", "DiskFile.seekable", "DiskFile.tell", "Report.valid", "Report.verdict",
    "Report.counting", "Report.exit_status", "DirtyBitmap.granule_runs", "DirtyBitmap.ranges",
    "DirtyBitmap.packed", "DirtyBitmap.count", "DirtyBitmap.end", "DirtyBitmap.same",
    "DirtyBitmap.digest_size",
    "Report.adding", "Report.ignoring", "ValidateOptions.reads_data",
    "ReplayRequest.makes", "ReplayRequest.accepts", "ReplayRequest.continues", "ReplayRequest.known",
    "ReplayRequest.takes", "ReplayRequest.format_of", "Hints.names_any",
    "ReplayResult.problem", "ReplayResult.reason", "ReplayResult.exit_status", "Hints.takes_most",
    "Hints.option_size",
    "Hints.image_size", "Hints.size", "Hints.granularity", "Manifest.to_read",
    "Manifest.completing", "DirtyBitmap.range_parts",
}  # fmt: skip


def test_every_public_name_has_a_chapter() -> None:
    named = {name for names in LIBRARY.CHAPTERS.values() for name in names}
    errors = {name for name in blkmig_cli.__all__ if name.endswith("Error")}
    modules = {"events", "runs"}
    assert named | errors | modules == set(blkmig_cli.__all__)
    page = LIBRARY.TARGET.read_text()
    assert all(f"`{name}`: " in page for name in errors - {"BlkmigError"})


def library() -> list[tuple[str, Any]]:
    """Return every public function, method and property, by its name."""
    found = []
    for names in LIBRARY.CHAPTERS.values():
        for name in names:
            thing = getattr(blkmig_cli, name)
            if inspect.isclass(thing):
                found += [(f"{name}.{key}", value) for key, value in LIBRARY.members(thing)]
            else:
                found.append((name, thing))
    return [(name, value.fget if isinstance(value, property) else value) for name, value in found]


@pytest.mark.parametrize(("name", "function"), library(), ids=[name for name, _ in library()])
def test_every_public_function_is_documented(name: str, function: Any) -> None:
    """With types and units of parameters and results, and the errors."""
    text, found = inspect.getdoc(function) or "", inspect.signature(function)
    assert text
    assert found.return_annotation is not found.empty
    for each in [*found.parameters.values()][name.count(".") :]:
        assert each.annotation is not each.empty
        assert f"``{each.name}``" in text or each.name in ("events", "disks", "content")
    if re.search(r"\bint\b", str(found)):
        assert re.search(r"\bbytes?\b|3 or 4|position", text, re.I)
    assert ("aises" in text) is (name not in _SAFE)


# -- what packages install into share/

SHARE = script("make_share")
MAN = SHARE.pages()


def test_share_is_fresh() -> None:
    folder = ROOT / "share"
    there = [path for path in folder.rglob("*") if path.is_file()]
    found = {str(path.relative_to(folder)): path.read_text() for path in there}
    assert found == SHARE.files(), "run make docs"


def test_a_man_page_for_each_command() -> None:
    assert set(MAN) == {"blkmig.1", *(f"blkmig-{name}.1" for name, _ in commands())}
    for name, command in commands():
        page = MAN[f"blkmig-{name}.1"].replace("\\-", "-")
        for option in command.params:
            if isinstance(option, click.Option):
                assert re.search(rf"^\\fB.*{option.opts[0]}\b", page, re.M), option.name
        assert f".BR blkmig-{name} (1)" in MAN["blkmig.1"].replace("\\-", "-")


@pytest.mark.parametrize("name", MAN)
@pytest.mark.parametrize(
    "checker",
    [["groff", "-man", "-ww", "-Tutf8"], ["mandoc", "-Tlint", "-Wwarning"]],
    ids=lambda c: c[0],
)
def test_man_pages_are_sound(name: str, checker: list[str]) -> None:
    if shutil.which(checker[0]) is None:
        pytest.skip(f"no {checker[0]} is installed")
    done = subprocess.run(checker, input=MAN[name], capture_output=True, text=True, check=False)
    said = (done.stdout if checker[0] == "mandoc" else "") + done.stderr
    # Pages have no date, so that the same commands make the same pages.
    assert [line for line in said.splitlines() if "missing date" not in line] == []


def test_man_pages_show_the_examples_as_they_are() -> None:
    if shutil.which("groff") is None:
        pytest.skip("no groff is installed")
    for name, command in commands():
        shown = subprocess.run(
            ["groff", "-man", "-Tascii", "-P-cbou"], input=MAN[f"blkmig-{name}.1"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        _, _, examples = (command.help or "").partition("Examples:\n")
        for line in filter(None, map(str.strip, examples.splitlines())):
            assert line in shown


def test_every_target_is_explained() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^([a-z]+):", makefile, re.MULTILINE):
        assert re.search(rf"^{target}:.* ## \w", makefile, re.MULTILINE)
    assert "make demo" in README
    assert "make test" in README


@pytest.mark.long
@pytest.mark.parametrize("page", ["README.md", "docs/damaged.md"])
def test_the_tours_are_real(page: str) -> None:
    """Every command of these pages, in order, prints the text shown there."""
    text = (ROOT / page).read_text()
    assert len(re.findall(r"^\$ ", text, re.MULTILINE)) >= 10
    assert script("make_tour").document(page) == text, "run make docs"


def test_nothing_of_the_readme_is_wider_than_a_terminal() -> None:
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        # A finding is one line, however long, so that it can be searched for; and a command, for the
        # shell.
        lines = [line for line in block.splitlines() if not line.endswith("]")]
        lines = [line for line in lines if not line.startswith("  blkmig ")]
        assert all(len(line) <= 96 for line in lines)
