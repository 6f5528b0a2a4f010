"""``blkmig dump``: every record of a stream."""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

import click

from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.errors import BlkmigError, SeveralStreamsError, StreamError, UsageError
from blkmig_cli.output.events_json import EventJson, run_texts
from blkmig_cli.output.events_text import HEADING, fold_empty, fold_ram, line
from blkmig_cli.spec.records import FIELDS, KEY, VERSION, RecordWriter
from blkmig_cli.text import escape
from blkmig_cli.transport.source import open_stream
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import BitmapBits, Block, Event
from blkmig_cli.wire.runs import Column, Piece, Run, expand

_BATCH = 512
_TYPES = [name for name in FIELDS if name != "raw"]  # raw is for build only


@click.command("dump", cls=Command)
@click.argument("stream", metavar="STREAM")
@options.stream_options
@options.number_option
@click.option("--all", "show_all", is_flag=True, help="Each RAM record, not one line a part.")
@click.option("--device", "devices", multiple=True, metavar="NAME", help="Only this device's.")
@click.option("--type", "types", multiple=True, metavar="TYPE", type=click.Choice(_TYPES),
              help="Only this type, e.g. block.")  # fmt: skip
@click.option("--sectors", metavar="A-B", help="Only records that touch these sectors (half-open).")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Stop after N records.")
@click.option("--payload", type=click.Choice(["none", "sha256", "hex", "base64", "ref"]),
              default="none", show_default=True,
              help="What to show of payloads (json, jsonl); ref goes with --spec.")  # fmt: skip
@click.option("--spec", "as_spec", is_flag=True, help="Write what build reads.")
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
    """Show every record of a stream, in its order.

    The JSON objects tile the stream: each begins where the one before ended.
    For people, RAM is one line a part, and long runs of empty parts are one line.

    \b
    Examples:
      blkmig dump stream.bin
      blkmig dump stream.bin --device drive0 --type block --sectors 0-4096
      blkmig dump stream.bin --output jsonl --payload sha256
      blkmig dump stream.bin --spec > stream.spec
    """
    if as_spec and (payload not in ("none", "base64", "ref") or show_all or output != "human"):
        raise UsageError("--spec goes with --payload base64 or ref, and without --all and --output")
    if not as_spec and payload == "ref":
        raise UsageError("--payload ref goes with --spec")
    if not as_spec and payload != "none" and output == "human":
        raise UsageError("--payload goes with --output json or jsonl")
    wanted = _Filter(devices, types, _sectors(sectors))
    hints = options.hints_of(granularities, device_sizes)
    with open_stream(stream, options.saying(quiet)) as opened:
        options.log(verbose and not quiet, str(opened))
        if payload == "ref" and opened.path is None:
            raise UsageError("--payload ref needs the path of an uncompressed file")
        keep = as_spec or payload != "none"
        make = options.decoder_factory(dialect, container, number, keep_state=keep)
        failure = _Failure(make(opened.input, hints))
        pieces: Iterable[Piece] = failure if show_all or as_spec else fold_ram(failure)
        if wanted:
            pieces = _matching(pieces, wanted)
        if as_spec:
            write = RecordWriter(opened.input, opened.path if payload == "ref" else None)
            records = (json.dumps(write(event)) for event in islice(expand(pieces), limit))
            _print(records, heading=json.dumps({KEY: VERSION}))
        elif output == "human":
            events = expand(pieces)
            if not (wanted or show_all):
                events = fold_empty(events)
            _print(islice(map(line, events), limit), heading=HEADING)
        else:
            texts = islice(_texts(pieces, EventJson(opened.input, payload), payload), limit)
            if output == "jsonl":
                _print(texts)
            else:
                _print_document(stream, texts)
    if failure.error is not None:
        click.echo(f"blkmig: {escape(stream)}: {failure.error}", err=True)
        return failure.error.exit_status
    return 0


class _Failure:
    """The decoder's pieces; keeps what ended them, so that the rest of the output can end well."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.error: BlkmigError | None = None

    def __iter__(self) -> Iterator[Piece]:
        try:
            while True:
                yield self._decoder.piece()
        except StopIteration:
            return
        except (StreamError, SeveralStreamsError) as error:
            self.error = error


def _sectors(text: str | None) -> range | None:
    if text is None:
        return None
    low, dash, high = text.partition("-")
    if not (dash and low.isascii() and low.isdigit() and high.isascii() and high.isdigit()):
        raise UsageError(f"--sectors {escape(text)}: say A-B")
    if int(low) > int(high):
        raise UsageError(f"--sectors {escape(text)}: it ends before it begins")
    return range(int(low), int(high))


@dataclass(frozen=True, slots=True)
class _Filter:
    """What is wanted; empty and None let everything pass."""

    devices: tuple[str, ...]
    types: tuple[str, ...]
    sectors: range | None

    def __bool__(self) -> bool:
        return bool(self.devices or self.types or self.sectors is not None)

    def event(self, event: Event) -> bool:
        """Is ``event`` wanted?"""
        if not self._kind(event):
            return False
        if self.sectors is None:
            return True
        if not isinstance(event, Block | BitmapBits):
            return False
        end = event.sector + event.sectors
        return event.sector < self.sectors.stop and self.sectors.start < end

    def run(self, run: Run) -> bool:
        """Can any event of ``run`` be wanted?"""
        return any(self._kind(c.event) and self._touched(c) for c in run.columns)

    def _kind(self, event: Event) -> bool:
        if self.types and event.type not in self.types:
            return False
        return not self.devices or getattr(event, "device", None) in self.devices

    def _touched(self, column: Column) -> bool:
        if self.sectors is None:
            return True
        if not isinstance(column.event, Block) or column.numbers is None:
            return False
        low, high = int(column.numbers.min()), int(column.numbers.max()) + column.event.sectors
        return low < self.sectors.stop and self.sectors.start < high


def _matching(pieces: Iterable[Piece], wanted: _Filter) -> Iterator[Piece]:
    for piece in pieces:
        if isinstance(piece, Run):
            if wanted.run(piece):
                yield from filter(wanted.event, piece)
        elif wanted.event(piece):
            yield piece


def _texts(pieces: Iterable[Piece], as_json: EventJson, payload: str) -> Iterator[str]:
    for piece in pieces:
        if not isinstance(piece, Run):
            yield json.dumps(as_json(piece))
        elif payload == "none":
            yield from run_texts(piece, as_json)
        else:
            yield from (json.dumps(as_json(event)) for event in piece)


def _print(texts: Iterable[str], heading: str | None = None) -> None:
    """Lines to stdout, many at a time."""
    texts = iter(texts) if heading is None else chain([heading], texts)
    while batch := list(islice(texts, _BATCH)):
        sys.stdout.write("\n".join(batch) + "\n")


def _print_document(stream: str, texts: Iterable[str]) -> None:
    """One JSON document, written as it comes."""
    sys.stdout.write(f'{{"version": 1, "stream": {json.dumps(stream)}, "records": [')
    separator = "\n"
    for text in texts:
        sys.stdout.write(f"{separator}{text}")
        separator = ",\n"
    sys.stdout.write("\n]}\n")
