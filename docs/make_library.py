"""Writes docs/library.md: the public names of the library, from their signatures and docstrings.

Usage: python docs/make_library.py
"""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import blkmig_cli
from blkmig_cli import errors
from blkmig_cli.checks import catalogue as findings
from blkmig_cli.checks import report as checks
from blkmig_cli.contents import bitmaps, sizes, state
from blkmig_cli.contents import stream_disk as streamdisk
from blkmig_cli.operations.live import request as live
from blkmig_cli.wire import events
from blkmig_cli.wire.runs import columns as runs

TARGET = Path(__file__).with_name("library.md")
EXAMPLES = ("copy_disk", "dirty_ranges", "list_chunks", "make_stream", "check_stream")

HEAD = """\
# The library

Made by `make docs` from the code. `import blkmig_cli` loads nothing; each name is loaded when it is
first used. Sizes, offsets and lengths are bytes, sectors are 512 bytes, unless stated otherwise.
Names from a stream are text, with invalid UTF-8 represented as surrogates; escape them for output.
Hints in errors name options of the command line; arguments have the same names.
"""

#: The chapters, and the public names in each: all of ``blkmig_cli.__all__``.
CHAPTERS = {
    "Reading": ("open", "StreamReader", "DiskFile", "Report"),
    "Writing": ("events_of", "Disk", "open_image", "write"),
    "Bitmaps": ("DirtyBitmap", "BitmapFile", "read_bitmaps", "write_bitmaps"),
    "Functions of the commands": (
        "validate",
        "ValidateOptions",
        "replay",
        "ReplayRequest",
        "ReplayResult",
        "resume_token",
        "send",
        "SendOptions",
        "SendBitmaps",
        "SendIdentity",
        "SendChanges",
        "SendResult",
        "live",
        "LiveRequest",
        "PassesOptions",
        "SnapshotOptions",
        "LiveReport",
        "convert",
        "ConvertOptions",
        "ConvertResult",
        "fold",
        "Hints",
        "Manifest",
        "read_manifest",
    ),
}
#: The parts of a report and of a disk.
PARTS = (
    checks.DeviceVerdict,
    state.DiskState,
    sizes.SizeBounds,
    checks.BitmapVerdict,
    bitmaps.BitmapState,
    findings.Finding,
    streamdisk.Piece,
    live.PassesReport,
    live.PassReport,
    live.SnapshotReport,
)
#: Whoever reads a stream does not make these; and what of a bitmap is the wire's.
MADE_FOR_YOU = ("StreamReader", "DiskFile", "Report")
INTERNAL = {"DirtyBitmap": ("write_words", "write_rows", "write_granules", "words", "room")}


def shown(kind: Any, name: str) -> bool:
    """Return whether a member or parameter of ``kind`` is for users."""
    return name[0] != "_" and name not in INTERNAL.get(kind.__name__, ())


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties that a class defines itself, in their order."""
    for name, member in vars(kind).items():
        if not shown(kind, name):
            continue
        if inspect.isfunction(member) or isinstance(member, property):
            yield name, member


def annotation(given: Any) -> str:
    """Return a type as people write it."""
    text = given if isinstance(given, str) else inspect.formatannotation(given)
    text = re.sub(r"\b(?:[a-zA-Z_]\w*\.)+(\w+)", r"\1", text)
    text = re.sub(r"ndarray\[tuple\[Any, \.\.\.\], dtype\[(\w+)\]\]", r"NDArray[\1]", text)
    return text.replace("'", '"') if "Literal" in text else text.strip("'")


def signature(name: str, function: Any) -> str:
    """Return ``name(arguments) -> type``, on one line or several."""
    found = inspect.signature(function)
    words = []
    for each in found.parameters.values():
        if each.name == "self" or not shown(function, each.name):
            continue
        if each.kind == each.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        default = "" if each.default is each.empty else f" = {each.default!r}".replace("'", '"')
        if "factory" in default:
            default = " = ..."
        words.append(f"{each.name}: {annotation(each.annotation)}{default}")
    result = found.return_annotation
    end = ")" if inspect.isclass(function) else f") -> {annotation(result)}"
    line = f"{name}({', '.join(words)}{end}"
    if len(line) <= 96 or not words:
        return line
    return "".join([f"{name}(\n", *(f"    {word},\n" for word in words), end])


def text(thing: Any) -> str:
    """Return a docstring, its references as code."""
    found = inspect.getdoc(thing) or ""
    return re.sub(r"``([^`]+)``|:\w+:`([^`]+)`", lambda m: f"`{m[1] or m[2]}`", found)


def fields(kind: type) -> Iterator[str]:
    """Yield a dataclass's fields and their types."""
    yield "```python"
    for field in dataclasses.fields(kind):
        if shown(kind, field.name):
            yield f"{field.name}: {annotation(field.type)}"
    yield from ("```", "")


def entry(name: str, thing: Any) -> Iterator[str]:
    """Yield a class or function, with its members."""
    yield f"### {name}"
    yield ""
    if name not in MADE_FOR_YOU:
        kind = "class " if inspect.isclass(thing) else ""
        yield from ("```python", kind + signature(name, thing), "```", "")
    yield text(thing)
    yield ""
    if not inspect.isclass(thing):
        return
    if dataclasses.is_dataclass(thing):
        yield from fields(thing)
    for member, value in members(thing):
        function = value.fget if isinstance(value, property) else value
        line = signature(member, function)
        line = line.replace("()", "", 1) if isinstance(value, property) else line
        yield from ("```python", f"{name}.{line}", "```", "", text(function), "")


def part(kind: type) -> Iterator[str]:
    """Yield a dataclass that is returned to users."""
    yield f"### {kind.__name__}"
    yield ""
    yield text(kind)
    yield ""
    yield from fields(kind)
    for name, member in members(kind):
        if isinstance(member, property):
            yield f"`{name}`: {text(member.fget)}"
            yield ""


def event_rows() -> Iterator[str]:
    """Yield a row for each kind of event of a stream, in the order of the module."""
    common = {field.name for field in dataclasses.fields(events.Event)}
    yield "| event | fields | |"
    yield "| --- | --- | --- |"
    for name, kind in vars(events).items():
        if inspect.isclass(kind) and issubclass(kind, events.Event) and hasattr(kind, "type"):
            own = [field.name for field in dataclasses.fields(kind) if field.name not in common]
            meaning = " ".join(text(kind).split())
            yield f"| {name} | {', '.join(own)} | {meaning} |"
    yield ""


def document() -> str:
    """Return the whole page."""
    lines = [HEAD, "## Examples", ""]
    for example in EXAMPLES:
        path = TARGET.parents[1] / "examples" / f"{example}.py"
        lines += [f"[{path.name}](../examples/{path.name}):", ""]
        lines += ["```python", path.read_text().rstrip(), "```", ""]
    for chapter, names in CHAPTERS.items():
        lines += [f"## {chapter}", ""]
        for name in names:
            lines += entry(name, getattr(blkmig_cli, name))
    lines += ["## Parts of reports and disks", ""]
    for kind in PARTS:
        lines += part(kind)
    lines += ["## Events", "", f"`blkmig_cli.events`. {text(events)}", ""]
    lines += [f"Every event: {', '.join(f.name for f in dataclasses.fields(events.Event))}.", ""]
    lines += event_rows()
    for kind in (events.Payload, events.BlockBitmap):
        lines += part(kind)
    lines += ["## Runs", "", f"`blkmig_cli.runs`. {text(runs)}", ""]
    for kind in (runs.Run, runs.Column):
        lines += part(kind)
    lines += [
        "## Errors",
        "",
        f"`blkmig_cli.errors`. {text(errors)}".replace("\n\n", "\n\n```\n", 1),
    ]
    lines += ["```", "", f"`BlkmigError`: {text(blkmig_cli.BlkmigError)}", ""]
    lines += [f"`{name}`: {text(getattr(blkmig_cli, name))}\n" for name in blkmig_cli.__all__
              if name.endswith("Error") and name != "BlkmigError"]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    TARGET.write_text(document())
