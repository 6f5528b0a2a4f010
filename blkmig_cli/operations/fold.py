"""Folding a base and its increments into one stream, or increments into one increment.

The last content of each place counts, wherever its record begins; the bitmaps are those of the last stream.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

from blkmig_cli.checks.compatibility import Version
from blkmig_cli.checks.names import Names
from blkmig_cli.checks.survey import Contents
from blkmig_cli.errors import UsageError
from blkmig_cli.operations.chain import Chain
from blkmig_cli.operations.convert.convert import ConvertOptions, ConvertResult, write_new
from blkmig_cli.operations.reading import Reading, check_target
from blkmig_cli.progress import ignore
from blkmig_cli.system.file_uses import FileUses


def fold(
    streams: Sequence[str],
    target: str | None,
    options: ConvertOptions,
    reading: Reading,
    *,
    for_qemu: Version | None = None,
    warn: Callable[[str], None] = ignore,
) -> ConvertResult:
    """Write the STREAMs, from the lowest to the highest, to ``target`` (TARGET; None: stdout) as one.

    Of several streams in one file, all are taken.

    Raises UsageError where stdin is more than one of them, StreamError for a damaged one, IncompleteError
    where one has a fault or does not belong on the one before it, and otherwise as :func:`convert`.
    """
    first, *others = streams
    if streams.count("-") > 1:
        raise UsageError("stdin can be only one of the streams")
    check_target(first, target, *others)
    chain, names = Chain(), Names()
    with ExitStack() as stack:
        for name in streams:
            for contents in _each(name, reading, stack):
                chain.add(contents)
                names.add(contents.report)
        names.check_hints(reading.hints)
        uses = FileUses.of_stream(first, *others)
        options = replace(options, normalize=True, container=options.container or "qemu")
        return write_new(chain.contents(), target, options, reading, {}, for_qemu, warn, uses)


def _each(name: str, reading: Reading, stack: ExitStack) -> Iterator[Contents]:
    """Read each of the streams in the STREAM ``name``, which ``stack`` closes."""
    stream = stack.enter_context(reading.open(name, again=True))
    source, number = stream.input, 1
    assert source.seekable
    while True:
        one = replace(stream, number=number, input=source.again())
        contents = replace(reading, number=number).read(one)
        yield contents
        if contents.report.next_stream is None or contents.report.failure is not None:
            return
        number += 1
