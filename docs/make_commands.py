"""Writes docs/commands.md: every command with its options, from click; checks; JSON shapes; limits.

Usage: python docs/make_commands.py
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

from blkmig_cli import limits
from blkmig_cli.checks.acceptance import ACCEPTED, ALWAYS, GIVEN_BY, accepting
from blkmig_cli.checks.catalogue import CHECKS
from blkmig_cli.commands import cli
from blkmig_cli.spec.records import FIELDS
from blkmig_cli.text import human_size

TARGET = Path(__file__).with_name("commands.md")

ACCEPTANCE = """## Exit status by finding

All checks are in [checks.md](checks.md), one by one.

An error that ends the reading of a stream has the exit status that stands with it there, in every
command; `replay` and `extract` take what was sent before it with `--allow-incomplete`, and then have that
status. Other errors end a command with 1, and nothing is written; some are accepted with an
option. An error of a device that is not used is ignored. Warnings and notes do not count (`validate
--strict`: warnings do), except that a v1 bitmap whose granularity is unknown (`bitmap-open`) gives `replay`
the status 1, though the disk is written.
"""

SHAPES = """\
## JSON

The folder `docs/schemas` has a JSON Schema of every document and line. For JUnit XML and SARIF, which
`validate` writes, too, see the jobs in `examples/ci`.

`dump --output jsonl` writes one object per line, `--output json` one document
`{"version": 1, "stream": NAME, "records": [...]}`. Every object has `offset`, `length` (bytes),
`section` (name or null) and `type`; each begins where the preceding one ends. The others depend on the type:

| type | more keys |
| --- | --- |
| header | version |
| configuration | machine, target-page-bits, capabilities, uuid (where present) |
| section-start section-part section-end section-full | id, instance, version |
| section-footer | id |
| command | command, command-value, data (hex), package |
| eof, vm-description | |
| block | device, sector, sectors, sectors-min, flags, flags-value, data (payload, zero, none), bitmaps |
| progress | percent, flags, flags-value |
| eos | value |
| bitmap-start | device, bitmap, flags, granularity, recording, persistent |
| bitmap-bits | device, bitmap, flags, sector, sectors, count, bits-length |
| bitmap-complete, bitmap-eos | flags |
| ram | records (one object per part), with --all: block, address, flags |
| device-state | sized-by (description or footer) |
| undecoded | reason |

A block's bitmaps have `name`, `granularity` and `count` (bytes, null where a v1 layout does not
determine them), `length` (bytes of bits), and in v2 `recording` and `persistent`. `--payload` adds `sha256`,
`hex` or `base64`.

`validate --output json`:

    {"version": 1, "streams": [{"stream", "dialect", "container", "valid", "complete", "identity",
      "devices": [{"name", "chunks", "zero-chunks", "repeated-chunks",
                   "missing": [{"start", "length"}], "size", "inferred-size": {"min", "max"}}],
      "bitmaps": [{"device", "name", "granularity", "candidates", "recording", "persistent",
                   "count", "complete", "dirty": [{"start", "length"}], "dirty-omitted"}],
      "findings": [{"id", "severity", "offset", "device", "message"}]}],
     "passed-over", "unchanged", "without-base": [{"stream", "findings"}]}

`passed-over` counts the files in directories, or that match a glob, which are no streams; `unchanged` and
`without-base` are there with `--catalogue` only. `info --output json` of several files, of a directory or of
a glob is `{"version": 1, "streams": [...], "passed-over"}`.

`chunks` counts records with content, repeated ones too; all sizes are bytes. `complete` is true when
proven, false when something is proven missing, null when the size is unknown and progress does
not determine it. `count` is the number of dirty bytes of a bitmap; `dirty` lists their ranges, up to
16,384 of all bitmaps of a stream, and `dirty-omitted` says how many more there are. Both are null where
the granularity is open, and after the first 1,024 bitmaps; `map --output json` has all.

`replay --output json` has the same shape, with `bytes-written` for each device and
`bitmap-files`, and in `partial-images` the incomplete new images of a failed one.

`IMAGE.bitmaps.json`:

    {"version": 1, "virtual-size": 67108864, "bitmaps": [
      {"name": "bitmap0", "granularity": 65536, "recording": true, "persistent": false,
       "count": 65536, "dirty": [{"start": 0, "length": 65536}]}]}

`count` and ranges are bytes; ranges are whole granules clipped at the disk's end, sorted, not adjacent.

### Identity

`send` gives every stream an identity, unless `--no-identity` is specified: the key `blkmig` of the JSON
description at the stream's end, which QEMU ignores, and the same key in the manifest, which is the only
place for a stream without container:

    {"version": 1, "id": "c6edee4f-054d-43d1-b63e-0e9c1140883c", "base": null,
     "incremental": false, "created": "2026-01-31T23:59:59Z", "consistency": "paused",
     "disks": {"drive0": {"size": 67108864, "full": true, "since": null, "mark": null}}}

An increment (`incremental`) has only what changed since the stream whose id is `base`, except for disks
that are `full`; its gaps are intentional, and it is `whole` where it has what it states. `since` and
`mark` are names of bitmaps. `--id` and SOURCE_DATE_EPOCH (seconds since 1970) make two streams of the
same images equal. `convert` and `scrub` keep an identity, `salvage` drops it. One that is invalid is
ignored, with the warning `identity`; sizes that it states are used.

### The rest of a stream

The stream of `send --from-token` has the identity of a stream of whole disks, but not their first
chunks: alone, it is incomplete. Its machine type is `blkmig-rest-UUID`: the UUID is the first half of
the SHA-256 of the token's content, and says which images it continues. No QEMU has such a machine, so
that none loads it.

### Manifests

A manifest (`send --manifest`, `validate --manifest`; its schema is `docs/schemas/manifest.json`):

    {"version": 1,
     "devices": [{"device": "drive0", "size": 67108864, "sha256": "3b6a07d0..."}],
     "bitmaps": [{"device": "drive0", "name": "bitmap0", "granularity": 65536, "recording": true,
                  "persistent": false, "count": 65536, "sha256": "9f86d081..."}]}

A disk's digest is that of all its bytes, as of `sha256sum disk.img`; a bitmap's is what QEMU's
`x-debug-block-dirty-bitmap-sha256` prints. `sha256` is null for a disk that is not sent completely
(`--bitmaps-only`, `--skip-unallocated`), and is not checked then; `recording` and `persistent` are
null where dialect v1 does not carry them. `blkmig` is the stream's identity (see
[Identity](#identity)). The file is written only after the stream has been
sent. `validate --manifest` reads disks a second time, so that it needs a stream in a file.
"""

LIMITS = """\
## Limits

A stream or a file beyond these limits is refused (check `limit`, or the check of the broken rule).
Each is far above the needs of real streams.

| limit | at most | |
| --- | --- | --- |
"""

SPEC = """\
## Specs

`dump --spec` writes JSON Lines: `{"blkmig-spec": 1}`, then one record per line. `build` reads that, or
one JSON or YAML document `{"blkmig-spec": 1, "records": [...]}` of up to 64 MiB. A payload is
`{"fill": BYTE, "length": N}`, `{"base64": ...}`, `{"hex": ...}` or `{"file": PATH, "offset": N,
"length": N}` (PATH relative to the spec); `"stated": N` writes another length than the actual one.
Flags are a list of names or a number. `raw` takes any bytes.

| type | fields (those in brackets may be omitted) |
| --- | --- |
"""


def limit_rows() -> Iterator[str]:
    """Yield the limits, each with the comment above it."""
    found = re.findall(r"^#: (.+)\n([A-Z0-9_]+) = ", inspect.getsource(limits), re.MULTILINE)
    for comment, name in found:
        value = getattr(limits, name)
        shown = human_size(value) if comment.startswith("Bytes ") else f"{value:,}"
        yield f"| `{name}` | {shown} | {comment} |"


def option_row(option: click.Parameter) -> str:
    """Return one row of a command's table."""
    if isinstance(option, click.Argument):
        return f"| {option.metavar} | |"
    assert isinstance(option, click.Option)
    names = ", ".join(f"`{name}`" for name in option.opts)
    choice = isinstance(option.type, click.Choice)
    metavar = f"`{'|'.join(option.type.choices)}`" if choice else option.metavar or ""  # type: ignore[attr-defined]
    metavar = metavar.replace("|", "\\|")
    return f"| {names} {metavar} | {option.help or ''} |".replace("  ", " ")


def acceptance() -> list[str]:
    """Return the table of exit statuses, by finding, command and option."""
    lines = [ACCEPTANCE, f"| id | {' | '.join(ACCEPTED)} |", f"| ---{' | ---' * len(ACCEPTED)} |"]
    for check, (severity, text) in CHECKS.items():
        if severity == "error" and "(exit " not in text:
            cells = [status(command, check) for command in ACCEPTED]
            lines.append(f"| `{check}` | {' | '.join(cells)} |")
    return lines


def status(command: str, check: str) -> str:
    """Return the exit status of ``command`` for the error ``check``, and the options that change it."""
    options = accepting(command, check)
    if command not in GIVEN_BY.get(check, ACCEPTED):
        return ""
    if ALWAYS in options:
        return "0"
    return f"1, with `{'` or `'.join(options)}` 0" if options else "1"


def document() -> str:
    """Return the whole page."""
    lines = ["# Commands", "", "Made by `make docs` from the commands themselves.",
             "Terms are defined in the [glossary](glossary.md).", ""]  # fmt: skip
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        text = inspect.cleandoc(command.help or "")
        body, _, examples = text.partition("\b\n")
        lines += [f"## blkmig {name}", "", body.strip(), ""]
        lines += ["```", *[line.strip() for line in examples.splitlines()[1:]], "```", ""]
        lines += ["| option | |", "| --- | --- |"]
        lines += [option_row(option) for option in command.params]
        lines.append("")
    lines += [*acceptance(), "", SHAPES, SPEC.rstrip()]
    for name, (_, fields) in FIELDS.items():
        keys = [field.key if field.default is ... else f"[{field.key}]" for field in fields]
        lines.append(f"| {name} | {' '.join(keys)} |")
    lines += ["", LIMITS + "\n".join(limit_rows())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(document())
