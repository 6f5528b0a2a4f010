"""Folding a base and its increments into one stream, or increments into one increment.

The last content of each place counts, wherever its record begins; the bitmaps are those of the last stream.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import zip_longest

from blkmig_cli.checks.compatibility import Version
from blkmig_cli.checks.manifest import Manifest, read_manifest
from blkmig_cli.checks.names import Names
from blkmig_cli.checks.survey import Contents
from blkmig_cli.errors import IncompleteError, UsageError
from blkmig_cli.operations.chain import Chain
from blkmig_cli.operations.convert.convert import ConvertOptions, ConvertResult, write_new
from blkmig_cli.operations.reading import Reading, check_target
from blkmig_cli.progress import ignore
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.text import escape


def fold(
    streams: Sequence[str],
    target: str | None,
    options: ConvertOptions,
    reading: Reading,
    *,
    manifests: Sequence[str] = (),
    for_qemu: Version | None = None,
    warn: Callable[[str], None] = ignore,
) -> ConvertResult:
    """Write the STREAMs, from the lowest to the highest, to ``target`` (TARGET; None: stdout) as one.

    Of several streams in one file, all are taken.  ``manifests``: none, or the file of each STREAM's
    manifest, which has the identity of one without description.

    Raises UsageError where stdin is more than one of them or not every STREAM has a manifest, StreamError
    for a damaged one, IncompleteError where one has a fault or does not belong on the one before it, and
    otherwise as :func:`convert`.
    """
    first, *others = streams
    if manifests and len(manifests) != len(streams):
        raise UsageError(
            f"--manifest is specified {len(manifests)} times for {len(streams)} streams",
            hint="specify one for each, in the same order",
        )
    if streams.count("-") > 1:
        raise UsageError("stdin can be only one of the streams")
    check_target(first, target, *others)
    chain, names = Chain(), Names()
    with ExitStack() as stack:
        stated = [read_manifest(name) for name in manifests]
        for name, manifest in zip_longest(streams, stated):
            for contents in _each(name, manifest, reading, stack):
                chain.add(contents)
                names.add(contents.report)
        names.check_hints(reading.hints)
        uses = FileUses.of_stream(first, *others)
        for name in manifests:
            uses.add("a manifest", name, writes=False)
        options = replace(options, normalize=True, container=options.container or "qemu")
        return write_new(chain.contents(), target, options, reading, {}, for_qemu, warn, uses)


def _each(
    name: str, manifest: Manifest | None, reading: Reading, stack: ExitStack
) -> Iterator[Contents]:
    """Read each of the streams in the STREAM ``name``, which ``stack`` closes."""
    if manifest is not None:
        reading = replace(reading, hints=manifest.completing(reading.hints))
    stream = stack.enter_context(reading.open(name, again=True))
    source, number = stream.input, 1
    assert source.seekable
    while True:
        one = replace(stream, number=number, input=source.again())
        contents = replace(reading, number=number).read(one)
        if manifest is not None:
            _check_identity(contents, manifest)
        yield contents
        if contents.report.next_stream is None or contents.report.failure is not None:
            return
        number += 1


def _check_identity(contents: Contents, manifest: Manifest) -> None:
    """Raise IncompleteError where a stream is not that of its manifest."""
    found, stated = contents.report.identity, manifest.identity
    if contents.report.failure is None and found is not None and found != stated:
        raise IncompleteError(
            f"{escape(contents.stream.name)} has the id {found.id}, and {escape(manifest.path)} is not its "
            "manifest",
            check="wrong-base",
        )
