"""``blkmig dump``: shows every record of a stream."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import click

from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.commands.reading import exit_status, reading_of
from blkmig_cli.errors import UsageError
from blkmig_cli.operations.dump import Dump, Selection, first_events
from blkmig_cli.output.events_json import EventJson, run_texts
from blkmig_cli.output.events_text import HEADING, OFFSET_WIDTH, fold_empty, fold_ram, line
from blkmig_cli.output.run_lines import run_lines
from blkmig_cli.spec.records import FIELDS, KEY, VERSION, RecordWriter
from blkmig_cli.text import quote
from blkmig_cli.wire.events import Event
from blkmig_cli.wire.runs.columns import Piece, Run, has_payload

# Characters that are written at once.
_BATCH = 1 << 16
_DIGITS_MAX = 18  # of a sector number: more than the largest disk needs
_TYPES = [name for name in FIELDS if name != "raw"]  # raw is for build only


@click.command("dump", cls=Command)
@click.argument("stream", metavar="STREAM")
@options.stream_options
@options.number_option
@click.option(
    "--all", "show_all", is_flag=True, help="Show each RAM record, not one record per part."
)
@click.option(
    "--device", "devices", multiple=True, metavar="NAME", help="Show only records of this device."
)
@click.option("--type", "types", multiple=True, metavar="TYPE", type=click.Choice(_TYPES),
              help="Show only records of this type, e.g. block.")  # fmt: skip
@click.option(
    "--sectors", metavar="A-B", help="Show only records that overlap sectors A to B, without B."
)
@click.option(
    "--limit", type=click.IntRange(0, sys.maxsize), metavar="N", help="Stop after N records."
)
@click.option("--payload", type=click.Choice(["none", "sha256", "hex", "base64", "ref"]),
              default="none", show_default=True,
              help="How to show payloads (json, jsonl); ref only with --spec.")  # fmt: skip
@click.option("--spec", "as_spec", is_flag=True, help="Write a spec for build.")
@options.output_option("human", "json", "jsonl")
@options.quiet_option
@options.verbose_option
def command(
    stream: str,
    dialect: str,
    container: str,
    granularities: tuple[str, ...],
    device_sizes: tuple[str, ...],
    number: int | None,
    show_all: bool,
    devices: tuple[str, ...],
    types: tuple[str, ...],
    sectors: str | None,
    limit: int | None,
    payload: str,
    as_spec: bool,
    output: str,
    quiet: bool,
    verbose: bool,
) -> int:
    """Show every record of a stream, in order.

    The JSON objects are contiguous in the stream: each begins where the preceding one
    ends.  The RAM of one part is one record; in human output, a long run of empty parts
    is one line.

    \b
    Examples:
      blkmig dump stream.bin
      blkmig dump stream.bin --device drive0 --type block --sectors 0-4096
      blkmig dump stream.bin --output jsonl --payload sha256
      blkmig dump stream.bin --spec > stream.spec
    """
    if as_spec and (payload not in ("none", "base64", "ref") or show_all or output != "human"):
        raise UsageError("--spec requires --payload base64 or ref, and excludes --all and --output")
    if not as_spec and payload == "ref":
        raise UsageError("--payload ref requires --spec")
    if not as_spec and payload != "none" and output == "human":
        raise UsageError("--payload requires --output json or jsonl")
    selection = Selection(devices, types, _sectors(sectors))
    hints = options.hints_of(granularities, device_sizes)
    reading = reading_of(hints, dialect, container, number=number, quiet=quiet, verbose=verbose)
    with reading.open(stream) as opened:
        if payload == "ref" and opened.path is None:
            raise UsageError("--payload ref requires the path of an uncompressed file")
        dump = Dump(reading.decoder(opened.input, keep_state=as_spec or payload != "none"))
        pieces: Iterable[Piece] = dump if show_all or as_spec else fold_ram(dump)
        if selection:
            pieces = selection.of(pieces)
        if not (as_spec or output != "human" or selection or show_all):
            pieces = fold_empty(pieces)
        if limit is not None:
            pieces = first_events(pieces, limit)
        if as_spec:
            write = RecordWriter(opened.input, opened.path if payload == "ref" else None)
            texts = _lines(pieces, lambda event: json.dumps(write(event)), payloads=True)
            _print(texts, heading=json.dumps({KEY: VERSION}))
        elif output == "human":
            _print(_lines(pieces, line, OFFSET_WIDTH), heading=HEADING)
        elif output == "jsonl":
            _print(_texts(pieces, EventJson(opened.input, payload), payload))
        else:
            as_json = EventJson(opened.input, payload)
            _print_document(stream, _texts(pieces, as_json, payload, ",\n"))
    dump.names.check_devices("--device", devices)
    dump.names.check_hints(hints)
    return exit_status(stream, dump.failure)


def _sectors(text: str | None) -> range | None:
    if text is None:
        return None
    low, dash, high = text.partition("-")
    if not (dash and all(part.isascii() and part.isdigit() for part in (low, high))):
        raise UsageError(f"invalid --sectors {quote(text)}: expected A-B")
    if max(len(low), len(high)) > _DIGITS_MAX or int(low) > int(high):
        raise UsageError(f"invalid --sectors {quote(text)}: not a range of a disk's sectors")
    return range(int(low), int(high))


def _lines(
    pieces: Iterable[Piece],
    render: Callable[[Event], str],
    width: int = 1,
    *,
    payloads: bool = False,
) -> Iterator[str]:
    """Yield a line for each event, some joined; ``payloads``: the bytes of payloads are in it."""
    for piece in pieces:
        if not isinstance(piece, Run):
            yield render(piece)
        elif payloads and any(has_payload(column.event) for column in piece.columns):
            yield from map(render, piece)
        else:
            yield from run_lines(piece, render, width)


def _texts(
    pieces: Iterable[Piece], as_json: EventJson, payload: str, between: str = "\n"
) -> Iterator[str]:
    """Yield a JSON object for each event, some joined by ``between``."""
    for piece in pieces:
        if not isinstance(piece, Run):
            yield as_json.text(piece)
        elif payload == "none":
            yield from run_texts(piece, as_json, between)
        else:
            yield from map(as_json.text, piece)


def _batches(texts: Iterable[str], between: str) -> Iterator[str]:
    """Yield ``texts`` joined by ``between``, many at a time."""
    held: list[str] = []
    size = 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size >= _BATCH:
            yield between.join(held)
            held, size = [], 0
    if held:
        yield between.join(held)


def _print(texts: Iterable[str], heading: str | None = None) -> None:
    """Print lines to stdout, many at a time."""
    for batch in _batches(texts if heading is None else chain([heading], texts), "\n"):
        sys.stdout.write(batch + "\n")


def _print_document(stream: str, texts: Iterable[str]) -> None:
    """Print one JSON document, piece by piece."""
    sys.stdout.write(f'{{"version": 1, "stream": {json.dumps(stream)}, "records": [')
    separator = "\n"
    for batch in _batches(texts, ",\n"):
        sys.stdout.write(separator + batch)
        separator = ",\n"
    sys.stdout.write("\n]}\n")
