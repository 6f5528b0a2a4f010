"""Writes share/, which packages install: man pages from the commands' own help, and completions.

There is a page for the program, blkmig.1, and blkmig-COMMAND.1 for each command.  The macros are those of
man(7), which groff and mandoc both know.
"""

import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from blkmig_cli import __version__
from blkmig_cli.commands import cli
from blkmig_cli.commands.completion import script
from blkmig_cli.commands.group import EXIT_STATUS, STREAMS
from blkmig_cli.commands.help import Command

ROOT = Path(__file__).parents[1]
# Where the shells look for completions of a program that is installed, below share/.
COMPLETIONS = {
    "bash": "bash-completion/completions/blkmig",
    "zsh": "zsh/site-functions/_blkmig",
    "fish": "fish/vendor_completions.d/blkmig.fish",
}


def pages() -> dict[str, str]:
    """Return the text of every page, by its file's name."""
    top = click.Context(cli, info_name="blkmig", **cli.context_settings)
    names = cli.list_commands(top)
    found = {"blkmig.1": "\n".join(main_page(top, names)) + "\n"}
    for name in names:
        command = cli.get_command(top, name)
        assert isinstance(command, Command)
        context = click.Context(command, info_name=name, parent=top)
        found[f"blkmig-{name}.1"] = "\n".join(command_page(context, command)) + "\n"
    return found


def main_page(top: click.Context, names: list[str]) -> Iterator[str]:
    """Yield the page of the program, with a list of its commands."""
    summary, _, examples = help_parts(cli)
    yield from heading("blkmig", summary)
    yield from synopsis("blkmig", "COMMAND [OPTIONS] ...")
    yield ".SH COMMANDS"
    for name in names:
        command = cli.get_command(top, name)
        assert command is not None
        yield from (".TP", f"\\fBblkmig\\-{roff(name)}\\fR(1)", roff(help_parts(command)[0]))
    yield from (".SH STREAMS", prose(STREAMS))
    yield from exit_status()
    yield from example_section(examples)
    yield ".SH SEE ALSO"
    yield ",\n".join(f".BR blkmig\\-{roff(name)} (1)" for name in names).replace("(1),", "(1) ,")


def command_page(context: click.Context, command: Command) -> Iterator[str]:
    """Yield a command's page."""
    name = f"blkmig-{command.name}"
    summary, body, examples = help_parts(command)
    yield from heading(name, summary)
    words = command.collect_usage_pieces(context)
    yield from synopsis(f"blkmig {command.name}", " ".join(words))
    yield ".SH DESCRIPTION"
    yield prose(summary)
    for paragraph in body:
        yield from (".PP", prose(paragraph))
    yield ".SH OPTIONS"
    for section, options in command.sections(context).items():
        if section != "Options":
            yield f".SS {roff(section)}"
        for option in options:
            term, text = option.get_help_record(context) or ("", "")
            yield from (".TP", f"\\fB{roff(term)}\\fR", prose(text))
    yield from exit_status()
    yield from example_section(examples)
    yield from (".SH SEE ALSO", ".BR blkmig (1)")


def heading(name: str, summary: str) -> Iterator[str]:
    """Yield the title and the name."""
    yield f'.TH {roff(name.upper())} 1 "" "blkmig {roff(__version__)}" "blkmig"'
    yield from (".SH NAME", f"{roff(name)} \\- {roff(summary.rstrip('.'))}")


def synopsis(words: str, rest: str) -> Iterator[str]:
    """Yield the synopsis."""
    yield from (".SH SYNOPSIS", f"\\fB{roff(words)}\\fR {roff(rest)}")


def exit_status() -> Iterator[str]:
    """Yield the exit status section, which is the same on every page."""
    text = EXIT_STATUS.partition(": ")[2]
    yield from (".SH EXIT STATUS", prose(text[0].upper() + text[1:]))


def example_section(lines: list[str]) -> Iterator[str]:
    """Yield the examples, line by line."""
    yield from (".SH EXAMPLES", ".nf", *map(roff, lines), ".fi")


def help_parts(command: click.Command) -> tuple[str, list[str], list[str]]:
    """Return a help text's first sentence, its other paragraphs, and the lines of its examples."""
    text, _, examples = inspect.cleandoc(command.help or "").partition("\b\nExamples:\n")
    summary, *body = (" ".join(part.split()) for part in text.strip().split("\n\n"))
    return summary, body, inspect.cleandoc(examples).splitlines()


def roff(text: str) -> str:
    """Return one line of text escaped for troff: without requests, with hyphens as minus signs."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", r"\\&", text)


def prose(text: str) -> str:
    """Return a paragraph, in short lines."""
    return "\n".join(map(roff, textwrap.wrap(text, 72, break_on_hyphens=False)))


def files() -> dict[str, str]:
    """Return the text of every file, by its path in share/."""
    found = {f"man/man1/{name}": text for name, text in pages().items()}
    for shell, path in COMPLETIONS.items():
        found[path] = script(shell)
    return found


if __name__ == "__main__":
    for name, text in files().items():
        path = ROOT / "share" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
