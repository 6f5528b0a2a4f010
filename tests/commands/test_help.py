"""Help, mistyped commands and options, and completion in shells."""

import shutil
import subprocess
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete, CompletionItem, ZshComplete

from blkmig_cli.checks.catalogue import CHECKS
from blkmig_cli.commands import cli
from blkmig_cli.commands import help as help_module
from blkmig_cli.commands.help import Command
from tests.conftest import Run, fails

CONTEXT = click.Context(cli)
COMMANDS = cli.list_commands(CONTEXT)
# Where python finds blkmig, the shells do.


def command(name: str) -> Command:
    found = cli.get_command(CONTEXT, name)
    assert isinstance(found, Command), f"{name} says cls=Command"
    return found


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for words in (["--help"], ["-h"]):
        outcome = run(*[name] * bool(name), *words)
        assert outcome.status == 0
        assert all(len(line) <= 80 for line in outcome.out.splitlines())
        assert "\n  Examples:\n    " in outcome.out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_every_option_once(run: Run, name: str) -> None:
    lines = run(name, "--help").out.splitlines()
    terms = [line.split() for line in lines if line.startswith("  -")]
    for option in command(name).get_params(CONTEXT):
        if isinstance(option, click.Option):
            shown = [term for term in terms if term[0].rstrip(",") == option.opts[0]]
            assert len(shown) == 1, option.opts


def test_many_options_are_in_sections(run: Run) -> None:
    out = run("replay", "--help").out
    sections = [line for line in out.splitlines() if line.endswith(":") and line[0] != " "]
    expected = "Stream: Images: Increments: Bitmaps: Checks: Selection: Writing: Output: Others:"
    assert " ".join(sections) == expected
    assert "\nOptions:\n" in run("build", "--help").out


def test_sections_have_options_that_exist() -> None:
    """A name that is misspelled leaves its option under the last heading."""
    listed = [name for names in help_module._SECTIONS.values() for name in names]
    known = {option.name for name in COMMANDS for option in command(name).get_params(CONTEXT)}
    assert len(listed) == len(set(listed))
    assert set(listed) <= known


@pytest.mark.parametrize(
    ("word", "meant"),
    [("valdate", "'validate'"), ("dmup", "'dump'"), ("replya", "'replay'"), ("xyzzy", None)],
)
def test_mistyped_commands(run: Run, word: str, meant: str | None) -> None:
    outcome = run(word)
    suggested = "" if meant is None else f": did you mean {meant}?"
    fails(outcome, 2, f"blkmig: no such command '{word}'{suggested}; see ")
    assert "id you mean" not in run("--help").out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dump", "x", "--bogus"], "no such option '--bogus'"),
        (
            ["send", "x", "--dialect", "none"],
            "invalid value for '--dialect': 'none' is not one of ",
        ),
        (["replay", "x", "--image"], "option '--image' requires an argument"),
        (["dump"], "missing argument 'STREAM'"),
        (["dump", "x", "y\x1b\n"], "got unexpected extra argument (y\\x1b )"),
        (["x\x1b\ny"], r"no such command 'x\x1b\ny'; see "),
    ],
)
def test_usage_errors_are_one_line(run: Run, words: list[str], message: str) -> None:
    """As all errors are, also those that click finds."""
    fails(run(*words), 2, message)


def test_mistyped_options_and_checks(run: Run) -> None:
    assert "--strict" in run("validate", "--stict", "x").err
    fails(run("validate", "x", "--ignore", "bitmap-lenght"), 2, "'bitmap-length'")


# -- completion


def complete(
    *words: str, shell: type[BashComplete | ZshComplete] = BashComplete
) -> list[CompletionItem]:
    *args, incomplete = words
    return shell(cli, {}, "blkmig", "_BLKMIG_COMPLETE").get_completions(args, incomplete)


def values(*words: str) -> list[str]:
    return [item.value for item in complete(*words)]


def test_commands_options_and_choices() -> None:
    assert values("") == COMMANDS
    assert values("val") == ["validate"]
    assert values("validate", "--ig") == ["--ignore"]
    assert values("validate", "--output", "j") == ["json", "junit"]
    assert values("completion", "") == ["bash", "zsh", "fish"]


def test_checks_with_what_they_mean() -> None:
    assert values("validate", "--ignore", "") == list(CHECKS)
    (item,) = complete("validate", "--ignore", "bitmap-len")
    assert (item.value, item.help) == ("bitmap-length", CHECKS["bitmap-length"][1])


@pytest.mark.parametrize(
    "words",
    [
        ["validate", "s"],
        ["validate", "one.bin", "s"],
        ["dump", "s"],
        ["replay", "s"],
        ["replay", "stream.bin", "--image", "s"],
        ["send", "s"],
        ["send", "a.img", "--to", "s"],
        ["send", "a.img", "--bitmaps-from", "s"],
        ["build", "s"],
        ["scrub", "s"],
        ["map", "s"],
        ["compare", "a.bin", "s"],
    ],
)
def test_files(words: list[str]) -> None:
    assert [(item.type, item.value) for item in complete(*words)] == [("file", "s")]


def test_files_of_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell would look for a file called drive0=a."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a[1].img").touch()
    (tmp_path / "a[1].dir").mkdir()
    (tmp_path / "a1.img").touch()
    words = ["replay", "stream.bin", "--image"]
    assert values(*words, "drive0=a[") == ["drive0=a[1].dir/", "drive0=a[1].img"]
    assert values("send", "drive0=a1") == ["drive0=a1.img"]
    assert [item.type for item in complete("send", "./x=a")] == ["file"]


def test_options_without_a_file_complete_no_files() -> None:
    for words in (["dump", "s", "--device", ""], ["send", "x", "--machine", ""]):
        assert values(*words) == []


def shell(name: str, *words: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"no {name} is installed")
    done = subprocess.run([path, *words], capture_output=True, text=True, check=True)
    assert not done.stderr, done.stderr
    return done.stdout


def test_in_bash() -> None:
    script = """
        eval "$(blkmig completion bash)"
        complete -p blkmig
        COMP_WORDS=(blkmig validate --ignore bitmap-l) COMP_CWORD=3
        _blkmig_completion blkmig
        echo "${COMPREPLY[@]}"
    """
    registered, found = shell("bash", "--norc", "-c", script).splitlines()
    assert registered == "complete -o default -o nosort -F _blkmig_completion blkmig"
    assert found == "bitmap-layout bitmap-length"


def test_in_fish(tmp_path: Path) -> None:
    script = """
        blkmig completion fish | source
        complete -C 'blkmig validate --ignore bitmap-l'
        complete -C 'blkmig val'
    """
    environment = f"set -x HOME {tmp_path}; set -x XDG_CONFIG_HOME {tmp_path};"
    lines = shell("fish", "--no-config", "-c", environment + script).splitlines()
    assert [line.partition("\t")[0] for line in lines] == [
        "bitmap-layout",
        "bitmap-length",
        "validate",
    ]


def test_in_zsh() -> None:
    script = """
        autoload -Uz compinit; compinit -D -u
        eval "$(blkmig completion zsh)"
        print $_comps[blkmig]
    """
    assert shell("zsh", "-f", "-c", script) == "_blkmig_completion\n"
    found = complete("validate", "--output", "s", shell=ZshComplete)
    assert [item.value for item in found] == ["sarif"]


def test_an_unknown_shell(run: Run) -> None:
    outcome = run("completion", "tcsh")
    assert outcome.status == 2
    assert "'bash', 'zsh', 'fish'" in outcome.err
