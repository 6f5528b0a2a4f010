"""Writes docs/library.md: the public names of the library, from their signatures and docstrings.

Usage: python docs/make_library.py
"""

import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import blkmig_cli

TARGET = Path(__file__).with_name("library.md")
EXAMPLES = ("list_chunks", "copy_disk", "dirty_ranges", "make_stream", "check_stream")

HEAD = """\
# The library

Made by `make docs` from the code. `import blkmig_cli` loads nothing; each name is loaded when it is
first used. Sizes, offsets and lengths are bytes, sectors are 512 bytes, unless it says otherwise.
All errors are `BlkmigError`s, with `exit_status`, `offset` (bytes of the stream), `section`, `device`,
`sector`, `hint` and `check`. What an event is, `blkmig_cli.events` says; what a run of them is,
`blkmig_cli.runs`; what a report holds, `blkmig_cli.checks`.
"""


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class defines itself, in their order."""
    for name, member in vars(kind).items():
        if not name.startswith("_") and (
            inspect.isfunction(member) or isinstance(member, property)
        ):
            yield name, member


def signature(name: str, member: Any) -> str:
    """``name(arguments)``, or the name alone for a property."""
    if isinstance(member, property):
        return name
    text = str(inspect.signature(member)).replace("(self, ", "(").replace("(self)", "()")
    for long in ("collections.abc.", "blkmig_cli.", "typing.", "numpy.typing.", "numpy."):
        text = text.replace(long, "")
    return f"{name}{text}".replace("'", "")


def entry(name: str, thing: Any) -> Iterator[str]:
    """A class or function, with its members."""
    yield f"## {name}"
    yield ""
    if not (inspect.isclass(thing) and issubclass(thing, Exception)):
        yield "```python"
        yield signature(name, thing)
        yield "```"
        yield ""
    yield inspect.getdoc(thing) or ""
    yield ""
    if not inspect.isclass(thing) or issubclass(thing, Exception):
        return
    if dataclasses.is_dataclass(thing):
        names = [field.name for field in dataclasses.fields(thing) if field.name[0] != "_"]
        yield f"Fields: {', '.join(f'`{field}`' for field in names)}."
        yield ""
    for member, value in members(thing):
        yield f"### {name}.{signature(member, value)}"
        yield ""
        yield inspect.getdoc(value.fget if isinstance(value, property) else value) or ""
        yield ""


def document() -> str:
    """The whole page."""
    lines = [HEAD, "## Examples", ""]
    for example in EXAMPLES:
        path = TARGET.parents[1] / "examples" / f"{example}.py"
        lines += [
            f"`examples/{example}.py`:",
            "",
            "```python",
            path.read_text().rstrip(),
            "```",
            "",
        ]
    for name in blkmig_cli.__all__:
        lines += entry(name, getattr(blkmig_cli, name))
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    TARGET.write_text(document())
